// token_stops.h: stop strings as Hugging Face's StopStringCriteria finds them (transformers 4.55
// and 4.57): in the texts of single tokens, joined, those of the prompt's end included. A match
// ends inside the token that came last; what that token has behind it stays in the output.
// Not here: stop strings in the decoded text (stop_matcher.h). Trap: a character whose bytes come
// as several tokens is several U+FFFD here, and special tokens show.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace polylm {

class Tokenizer;

// A value: copying it forks the stream (the rules are shared).
class TokenStops {
 public:
  // `stops`: none empty.
  TokenStops(std::vector<std::string> stops, std::shared_ptr<const Tokenizer> tokenizer);

  // Tokens further back than this cannot matter.
  int64_t reach() const;
  // Takes a token of the prompt.
  void seed(int32_t id) { add(id); }
  // Index of the stop string that ends in this token (the first end, then the longest), or -1.
  int32_t push(int32_t id);

 private:
  struct Rules;
  void add(int32_t id);

  std::shared_ptr<const Rules> rules_;
  std::string window_;             // texts of the last tokens, at most reach() of them
  std::vector<uint32_t> lengths_;  // bytes of each
};

}  // namespace polylm
