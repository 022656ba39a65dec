// normalizer.h: SentencePiece's normalisation: the precompiled character map (a darts double array
// over UTF-8 and a list of replacement texts), white space rules, and the mark that stands for a
// space. Not here: what the pieces are. Trap: user-defined pieces pass through unchanged, so the
// caller hands in their trie.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_trie.h"

namespace polylm {

// How long a text may become. NFKC grows it at most 13-fold (U+FDFA, with its spaces marked); the
// cutters keep positions in 32 bits, so there is an end whatever the length.
constexpr size_t max_normalized_bytes(size_t text_bytes) {
  constexpr size_t kMaxGrowth = 32;
  constexpr size_t kMost = size_t{1} << 30;
  return text_bytes < kMost / kMaxGrowth ? kMaxGrowth * text_bytes + 64 : kMost;
}

struct NormalizerRules {
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;
};

class Normalizer {
 public:
  // Throws TOKENIZER_FORMAT for a damaged character map, LIMIT for a rule over 256 bytes or a
  // replacement over 4 KiB.
  explicit Normalizer(NormalizerRules rules);
  Normalizer(const Normalizer&) = delete;  // replacements_ points into rules_
  Normalizer& operator=(const Normalizer&) = delete;

  const NormalizerRules& rules() const { return rules_; }

  // Replaces `out` with the normalised text. `origin`, when given, becomes [out + 1] offsets into
  // text: where the byte came from. Throws LIMIT when the text grows beyond all reason.
  void run(std::string_view text, bool add_dummy_prefix, const PieceTrie& user_defined,
           std::string* out, std::vector<uint32_t>* origin) const;

 private:
  struct Chunk {
    std::string_view text;  // what replaces
    size_t used_bytes;      // how much of the input
  };
  class Sink;

  Chunk next_chunk(std::string_view text, const PieceTrie& user_defined) const;
  // The longest rule at the beginning of text; used_bytes 0: none.
  Chunk longest_rule(std::string_view text) const;

  NormalizerRules rules_;
  std::vector<uint32_t> units_;    // the double array
  std::string_view replacements_;  // inside rules_.charsmap, each ends with a zero byte
};

}  // namespace polylm
