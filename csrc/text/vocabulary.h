// vocabulary.h: the validated pieces of a SentencePiece model and the tries over them. Read-only
// after construction. Not here: how text is cut into pieces (unigram.h, bpe.h).
// Trap: "reserved" pieces (unknown, control, byte) are never found in text, only by name;
// "ordinary" ones (normal, user-defined, unused) are what text is cut into.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_trie.h"
#include "text/tokenizer_tables.h"

namespace polylm {

// Limits of the format; reaching one is LIMIT.
inline constexpr int64_t kMaxPieces = int64_t{1} << 20;
inline constexpr size_t kMaxPieceBytes = 4096;

// A piece found in normalised text.
struct ModelPiece {
  int32_t id;
  uint32_t begin, end;  // bytes of the normalised text
};

class Vocabulary {
 public:
  // Takes the vocabulary's fields out of tables. Throws TOKENIZER_*, LIMIT.
  explicit Vocabulary(TokenizerTables* tables);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  int32_t size() const { return static_cast<int32_t>(types_.size()); }
  bool contains(int32_t id) const { return id >= 0 && id < size(); }
  std::string_view piece(int32_t id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(blob_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
  }
  float score(int32_t id) const { return scores_[static_cast<size_t>(id)]; }
  PieceType type(int32_t id) const {
    return static_cast<PieceType>(types_[static_cast<size_t>(id)]);
  }

  size_t max_piece_bytes() const;

  int32_t unk_id() const { return unk_id_; }
  bool byte_fallback() const { return byte_fallback_; }
  int32_t byte_id(uint8_t byte) const { return byte_ids_[byte]; }
  // The byte of a byte piece.
  uint8_t byte_of(int32_t id) const;

  // By name, as the library's PieceToId: kNone where it says unk.
  int32_t find(std::string_view piece) const;
  const PieceTrie& ordinary() const { return ordinary_; }
  const PieceTrie& user_defined() const { return user_defined_; }
  // The same without added tokens, for text that may contain nothing special.
  const PieceTrie& plain_user_defined() const { return plain_user_defined_; }
  bool blocked(int32_t id) const { return blocked_[static_cast<size_t>(id)]; }
  // Declares added tokens (any id). Call before the first use, once.
  void block(const std::vector<int32_t>& ids);

  // Extremes of the normal pieces' scores, as the library starts them.
  float min_score() const { return min_score_; }
  float max_score() const { return max_score_; }

 private:
  void check_layout() const;
  void check_piece(int32_t id);
  void build_tries();

  std::string blob_;
  std::vector<uint32_t> offsets_;
  std::vector<float> scores_;
  std::vector<uint8_t> types_;
  std::vector<bool> blocked_;
  bool byte_fallback_;
  int32_t unk_id_ = -1;
  std::array<int32_t, 256> byte_ids_;
  float min_score_, max_score_;
  PieceTrie ordinary_, reserved_, user_defined_, plain_user_defined_;
};

}  // namespace polylm
