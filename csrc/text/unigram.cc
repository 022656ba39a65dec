// unigram.cc: see unigram.h. The arithmetic follows unigram_model.cc (EncodeOptimized) of
// SentencePiece 0.1.97: piece scores are compared in double, stored in float.
#include "text/unigram.h"

#include <algorithm>

#include "platform/checked.h"
#include "text/utf8.h"

namespace polylm {
namespace {

constexpr float kUnkPenalty = 10.0F;

// The best cut of the text up to one byte.
struct Best {
  int32_t id = -1;
  float score = 0.0F;
  int32_t begin = -1;  // of its last piece; -1: no cut ends here
};

template <class Score>
void offer(Best* best, int32_t id, Score score, int32_t begin) {
  if (best->begin != -1 && !(score > best->score)) return;
  *best = {id, static_cast<float>(score), begin};
}

// Offers every piece that begins at `begin`. Returns whether one is exactly the character there.
bool offer_pieces(const Vocabulary& vocabulary, std::string_view text, size_t begin,
                  size_t char_bytes, bool plain, std::vector<Best>* best) {
  const PieceTrie& trie = vocabulary.ordinary();
  const float before = (*best)[begin].score;
  bool has_char = false;
  int32_t node = trie.root();
  for (size_t end = begin + 1; end <= text.size(); ++end) {
    node = trie.child(node, static_cast<uint8_t>(text[end - 1]));
    if (node == PieceTrie::kNone) break;
    const int32_t id = trie.value(node);
    if (id == PieceTrie::kNone || vocabulary.type(id) == PieceType::kUnused) continue;
    if (plain && vocabulary.blocked(id)) continue;
    const size_t length = end - begin;
    // A user-defined piece gets a bonus that makes it win always.
    const double score = vocabulary.type(id) == PieceType::kUserDefined
                             ? static_cast<float>(length) * vocabulary.max_score() - 0.1
                             : static_cast<double>(vocabulary.score(id));
    offer(&(*best)[end], id, score + static_cast<double>(before), static_cast<int32_t>(begin));
    has_char = has_char || length == char_bytes;
  }
  return has_char;
}

}  // namespace

void encode_unigram(const Vocabulary& vocabulary, std::string_view normalized, bool plain,
                    std::vector<ModelPiece>* out) {
  const size_t size = normalized.size();
  narrow<int32_t>(size);  // positions are kept in 32 bits; the normaliser's limit is below that
  const float unk_score = vocabulary.min_score() - kUnkPenalty;
  std::vector<Best> best(size + 1);
  for (size_t begin = 0; begin < size;) {
    const size_t char_bytes = char_length_bytes(normalized.substr(begin));
    if (!offer_pieces(vocabulary, normalized, begin, char_bytes, plain, &best)) {
      const float score = unk_score + best[begin].score;
      offer(&best[begin + char_bytes], vocabulary.unk_id(), score, static_cast<int32_t>(begin));
    }
    begin += char_bytes;
  }
  const size_t first = out->size();
  for (size_t end = size; end > 0;) {
    const Best& last = best[end];
    const auto begin = static_cast<uint32_t>(last.begin);
    out->push_back({last.id, begin, static_cast<uint32_t>(end)});
    end = begin;
  }
  std::reverse(out->begin() + static_cast<std::ptrdiff_t>(first), out->end());
}

}  // namespace polylm
