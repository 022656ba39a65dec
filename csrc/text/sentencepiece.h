// sentencepiece.h: what the SentencePiece library does: normalise, cut into pieces, fall back to
// bytes; and its decoder, incremental. Not here: special tokens and LlamaTokenizer (tokenizer.h).
// Trap: the same model is run with and without its dummy prefix, so the prefix is an argument.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.h"
#include "text/tokenizer_tables.h"
#include "text/vocabulary.h"

namespace polylm {

struct SpPiece {
  int32_t id = -1;
  uint32_t begin = 0, end = 0;            // bytes of the text; 0 when offsets were not asked for
  uint32_t norm_begin = 0, norm_end = 0;  // bytes of the normalised text; a fallen-back character's
                                          // bytes share them
};

struct SpOptions {
  bool add_dummy_prefix = true;
  bool plain = false;    // blocked pieces are not used
  bool offsets = false;
};

class SentencePiece {
 public:
  // Takes the model's fields out of tables. Throws TOKENIZER_*, LIMIT.
  explicit SentencePiece(TokenizerTables* tables);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  Vocabulary& vocabulary() { return vocabulary_; }
  const NormalizerRules& rules() const { return normalizer_.rules(); }
  const std::string& unk_surface() const { return unk_surface_; }

  // Appends the pieces of a valid UTF-8 text. `normalized` receives the normalised text.
  void encode(std::string_view text, const SpOptions& options, std::string* normalized,
              std::vector<SpPiece>* out) const;

 private:
  void append(const ModelPiece& piece, const std::vector<uint32_t>& origin, bool merge_unknown,
              std::vector<SpPiece>* out, const std::string& normalized) const;

  ModelKind kind_;
  Vocabulary vocabulary_;
  Normalizer normalizer_;
  std::string unk_surface_;
};

// Pieces in, text out: the library's Decode over one run of pieces. A value.
class PieceRunDecoder {
 public:
  // Forgets the run.
  void reset() { *this = PieceRunDecoder(); }
  // Appends what became certain. `piece` may differ from the text of `id` only for unknown pieces.
  void push(const SentencePiece& model, bool add_dummy_prefix, std::string_view piece, int32_t id,
            std::string* out);
  // Appends what was held back: bytes that never became a character.
  void finish(std::string* out);

 private:
  void write(std::string_view text, std::string* out);
  void drain(bool end, std::string* out);

  std::array<char, 4> pending_{};  // an incomplete character out of byte pieces
  size_t pending_bytes_ = 0;
  bool has_text_ = false;
  bool at_begin_ = true;        // a leading space mark is still to be removed
  bool begin_seen_ = false;
};

}  // namespace polylm
