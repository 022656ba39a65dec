// tokenizer_tables.h: the plain tables a tokenizer is made of, as lib/tokenizer reads them from a
// checkpoint. Nothing here is trusted: Tokenizer::create validates every field.
// Trap: scores follow float32 arithmetic everywhere; never widen them "for precision".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace polylm {

enum class ModelKind : uint8_t { kUnigram = 1, kBpe = 2 };  // trainer_spec.model_type

// ModelProto.SentencePiece.Type.
enum class PieceType : uint8_t {
  kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6,
};

// Whose LlamaTokenizer (slow) is followed. k436 and k455 encode alike; decoding differs in one
// space after a leading special token.
enum class Compat : uint8_t { k431, k436, k455 };

// A token that is cut out of the text before SentencePiece sees it.
struct AddedToken {
  std::string content;       // UTF-8, 1..4096 bytes
  int32_t id = -1;           // a piece of the same text, or an id after the pieces
  bool special = false;      // in Hugging Face's all_special_tokens: skipped by skip_special
  bool additional = false;   // listed in additional_special_tokens
  bool lstrip = false;       // eats white space on its left
  bool rstrip = false;       // eats white space on its right
};

struct TokenizerTables {
  ModelKind kind = ModelKind::kUnigram;
  std::string blob;                     // all pieces one after another, UTF-8
  std::vector<uint32_t> piece_offsets;  // [pieces + 1], into blob
  std::vector<float> scores;            // [pieces]
  std::vector<uint8_t> types;           // [pieces], PieceType
  bool byte_fallback = false;
  std::string unk_surface = " \xE2\x81\x87 ";  // what an unknown token decodes to

  // normalizer_spec
  std::string charsmap;  // precompiled: uint32 size, double array, replacements; empty: identity
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;

  // LlamaTokenizer
  std::vector<AddedToken> added;  // specials included; those that HF never splits
  int32_t unk_id = -1, bos_id = -1, eos_id = -1, pad_id = -1;  // -1: none
  bool add_bos = false, add_eos = false;
  bool legacy = false;
  bool add_prefix_space = true;  // k455 only; earlier versions always add it
  Compat compat = Compat::k455;
  // Ids in [vocab_size, id_limit) exist in the model (padding rows) and decode to nothing.
  int32_t id_limit = 0;
};

}  // namespace polylm
