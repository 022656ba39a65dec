// tokenizer.h: text to ids and back: SentencePiece plus the rules that Hugging Face's
// LlamaTokenizer puts around it. Immutable after create; any thread may call any const method.
// Not here: reading files (lib/tokenizer), streaming text out (stream_decoder.h). Trap:
// decode(a + b) is not decode(a) + decode(b); whoever needs text piecewise uses StreamDecoder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_tables.h"

namespace polylm {

// Longest text that encode takes and longest that decode makes; beyond: LIMIT.
inline constexpr int64_t kMaxTextBytes = int64_t{1} << 28;

struct EncodeOptions {
  bool add_special_tokens = true;  // bos and eos where the checkpoint asks for them
  // False: markers and special tokens written in the text are ordinary text; no special id comes
  // out (but unk, where the model has no byte fallback).
  bool parse_special = true;
  // False: the text follows a control token, so it is encoded as the tail of a longer text.
  bool at_start = true;
};

struct Encoding {
  std::vector<int32_t> ids;
  // [2 * ids]: begin and end of each id in UTF-16 code units of the text. All bytes of a
  // fallen-back character have the same range; bos and eos have an empty one.
  std::vector<uint32_t> offsets;
};

class Tokenizer {
 public:
  // Throws TOKENIZER_*, LIMIT.
  static std::shared_ptr<const Tokenizer> create(TokenizerTables tables);

  std::vector<int32_t> encode(std::string_view utf8, const EncodeOptions& options) const;
  Encoding encode_with_offsets(std::string_view utf8, const EncodeOptions& options) const;
  // Throws INVALID_PROMPT for an id outside [0, id_limit).
  std::string decode(const int32_t* ids, int64_t n, bool skip_special) const;

  // What the SentencePiece library alone does, without LlamaTokenizer's rules.
  std::vector<int32_t> encode_raw(std::string_view utf8) const;
  std::string decode_raw(const int32_t* ids, int64_t n) const;

  // Ids are [0, vocab_size); some may be holes. id_limit() >= vocab_size().
  int32_t vocab_size() const { return vocab_size_; }
  int32_t id_limit() const { return id_limit_; }
  int32_t bos_id() const { return bos_id_; }  // -1: none, like the next three
  int32_t eos_id() const { return eos_id_; }
  int32_t unk_id() const { return unk_id_; }
  int32_t pad_id() const { return pad_id_; }
  // A control or unknown piece, or a special added token.
  bool is_special(int32_t id) const;
  // What skip_special leaves out: Hugging Face's all_special_ids.
  bool is_skipped(int32_t id) const { return added_.is_special(id); }
  // Empty for holes and ids out of range.
  std::string_view piece(int32_t id) const;
  // Bytes of text that one id can stand for at most, so that a text's length says how many ids it
  // has at least. Where that is not bounded (white space that is removed, runs of unknown
  // characters, a character map) 64 or the longest piece, as if it were.
  int64_t bytes_per_token() const { return bytes_per_token_; }
  // What the token alone stands for: its piece with spaces for space marks, the one byte of a byte
  // piece (which may be a part of a character), the name of a special token.
  std::string surface(int32_t id) const;
  // The id of a piece or an added token by its exact name; -1: none.
  int32_t find(std::string_view token) const;

 private:
  friend class StreamDecoder;
  struct Item;
  struct Prepared;
  explicit Tokenizer(TokenizerTables tables);

  void check_special_ids() const;
  int64_t measure_tokens() const;
  std::vector<Item> run(std::string_view text, const EncodeOptions& options, bool offsets) const;
  Prepared prepare(std::string_view text, bool at_start, bool offsets) const;
  bool encode_segment(std::string_view segment, const SpOptions& options,
                      std::vector<SpPiece>* out) const;
  void encode_after_unk(std::string_view segment, const SpOptions& options, std::string* normalized,
                        std::vector<SpPiece>* out) const;
  void drop_space_mark(const std::string& normalized, bool plain,
                       std::vector<SpPiece>* pieces) const;
  // The id of a token by its text, as convert_tokens_to_ids.
  int32_t token_id(std::string_view token) const;

  SentencePiece model_;
  AddedTokens added_;
  int32_t unk_id_, bos_id_, eos_id_, pad_id_;
  bool add_bos_, add_eos_, legacy_, add_prefix_space_;
  Compat compat_;
  int32_t vocab_size_ = 0, id_limit_ = 0;
  int64_t bytes_per_token_ = 0;
};

}  // namespace polylm
