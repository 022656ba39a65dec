// vocabulary.cc: see vocabulary.h. Every rule of SentencePiece's own loader is checked, and a few
// that it takes on trust (finite scores, UTF-8, no piece under two ids).
#include "text/vocabulary.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <utility>

#include "platform/checked.h"
#include "text/utf8.h"

namespace polylm {
namespace {

bool is_ordinary(PieceType type) {
  return type == PieceType::kNormal || type == PieceType::kUserDefined ||
         type == PieceType::kUnused;
}

std::string named(int32_t id, std::string_view piece) {
  return "piece " + std::to_string(id) + " (" + quoted(piece) + ")";
}

[[noreturn]] void bad_format(const std::string& message) {
  fail(Code::kTokenizerFormat, message, "tokenizer.model is damaged; download it again");
}

void refuse_duplicate(const std::vector<PieceTrie::Entry>& entries, int64_t index) {
  if (index == PieceTrie::kNone) return;
  const PieceTrie::Entry& entry = entries[static_cast<size_t>(index)];
  fail(Code::kTokenizerDuplicate, named(entry.value, entry.key) + " is in the vocabulary twice",
       "tokenizer.model is damaged; download it again");
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "<0x0A>" is 10; anything else -1.
int parse_byte_piece(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]);
  const int low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

Vocabulary::Vocabulary(TokenizerTables* tables)
    : blob_(std::move(tables->blob)),
      offsets_(std::move(tables->piece_offsets)),
      scores_(std::move(tables->scores)),
      types_(std::move(tables->types)),
      byte_fallback_(tables->byte_fallback),
      min_score_(FLT_MAX),
      max_score_(FLT_MIN) {
  byte_ids_.fill(-1);
  check_layout();
  for (int32_t id = 0; id < size(); ++id) check_piece(id);
  if (unk_id_ < 0) bad_format("the vocabulary has no unknown piece");
  if (byte_fallback_ && std::count(byte_ids_.begin(), byte_ids_.end(), -1) != 0) {
    bad_format("byte fallback is on, but not all 256 byte pieces are there");
  }
  blocked_.assign(types_.size(), false);
  build_tries();
}

size_t Vocabulary::max_piece_bytes() const {
  size_t longest = 1;
  for (int32_t id = 0; id < size(); ++id) longest = std::max(longest, piece(id).size());
  return longest;
}

void Vocabulary::check_layout() const {
  if (types_.empty()) bad_format("the vocabulary is empty");
  if (types_.size() > static_cast<size_t>(kMaxPieces)) {
    fail(Code::kLimit, "the vocabulary has " + std::to_string(types_.size()) +
                           " pieces, more than 1,048,576");
  }
  if (scores_.size() != types_.size() || offsets_.size() != types_.size() + 1) {
    bad_format("the vocabulary's tables have different lengths");
  }
  if (offsets_.front() != 0 || offsets_.back() != blob_.size() ||
      !std::is_sorted(offsets_.begin(), offsets_.end())) {
    bad_format("the vocabulary's offsets do not cover its text");
  }
}

void Vocabulary::check_piece(int32_t id) {
  const std::string_view text = piece(id);
  if (text.empty()) bad_format("piece " + std::to_string(id) + " is empty");
  if (text.size() > kMaxPieceBytes) {
    fail(Code::kLimit, "piece " + std::to_string(id) + " is " + std::to_string(text.size()) +
                           " bytes long, more than 4096");
  }
  if (!is_valid_utf8(text)) bad_format(named(id, text) + " is not UTF-8");
  if (!std::isfinite(score(id))) bad_format(named(id, text) + " has a score that is no number");
  const auto type = static_cast<uint8_t>(this->type(id));
  if (type < 1 || type > 6) bad_format(named(id, text) + " has type " + std::to_string(type));
  if (this->type(id) == PieceType::kNormal) {
    min_score_ = std::min(min_score_, score(id));
    max_score_ = std::max(max_score_, score(id));
  }
  if (this->type(id) == PieceType::kUnknown) {
    if (unk_id_ >= 0) bad_format(named(id, text) + " is a second unknown piece");
    unk_id_ = id;
  }
  if (this->type(id) == PieceType::kByte) {
    const int byte = parse_byte_piece(text);
    if (!byte_fallback_) bad_format(named(id, text) + " is a byte piece without byte fallback");
    if (byte < 0) bad_format(named(id, text) + " is no byte piece: expected <0x00> to <0xFF>");
    byte_ids_[static_cast<size_t>(byte)] = id;
  }
}

void Vocabulary::build_tries() {
  std::vector<PieceTrie::Entry> ordinary, reserved, user;
  ordinary.reserve(types_.size());
  for (int32_t id = 0; id < size(); ++id) {
    (is_ordinary(type(id)) ? ordinary : reserved).push_back({piece(id), id});
    if (type(id) == PieceType::kUserDefined) user.push_back({piece(id), id});
  }
  refuse_duplicate(ordinary, ordinary_.build(ordinary));
  refuse_duplicate(reserved, reserved_.build(reserved));
  for (size_t i = 0; i < reserved.size(); ++i) {
    if (ordinary_.find(reserved[i].key) != PieceTrie::kNone) {
      refuse_duplicate(reserved, static_cast<int64_t>(i));
    }
  }
  user_defined_.build(user);
  plain_user_defined_.build(user);
}

void Vocabulary::block(const std::vector<int32_t>& ids) {
  for (const int32_t id : ids) {
    if (contains(id)) blocked_[static_cast<size_t>(id)] = true;
  }
  std::vector<PieceTrie::Entry> user;
  for (int32_t id = 0; id < size(); ++id) {
    if (type(id) == PieceType::kUserDefined && !blocked(id)) user.push_back({piece(id), id});
  }
  plain_user_defined_.build(user);
}

uint8_t Vocabulary::byte_of(int32_t id) const {
  return static_cast<uint8_t>(parse_byte_piece(piece(id)));
}

int32_t Vocabulary::find(std::string_view piece) const {
  const int32_t id = reserved_.find(piece);
  return id != PieceTrie::kNone ? id : ordinary_.find(piece);
}

}  // namespace polylm
