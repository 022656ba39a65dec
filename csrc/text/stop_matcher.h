// stop_matcher.h: finds the first completed stop string in text that arrives in parts, and holds
// back only what may still become one. Bytes in, bytes out; linear in the text, whatever the stops.
// Not here: stop token ids (the engine compares those). Trap: the match that ends first wins; of
// those that end at the same byte the longest.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace polylm {

// A value: copying it forks the stream (the automaton is shared).
class StopMatcher {
 public:
  struct Result {
    std::string text;   // text that is now certain; after a match everything before the stop string
    int32_t stop = -1;  // index of the stop string that matched
  };

  StopMatcher() = default;  // no stop strings: push returns everything
  // Throws INVALID_OPTION for an empty string.
  explicit StopMatcher(const std::vector<std::string>& stops);

  bool empty() const { return automaton_ == nullptr; }
  // After a match further text is ignored.
  Result push(std::string_view text);
  // The same with the text appended; returns the index of the stop string that matched, or -1.
  int32_t push(std::string_view text, std::string* out);
  // The text held back, when no match came.
  std::string finish();

 private:
  struct Automaton;
  std::shared_ptr<const Automaton> automaton_;
  int32_t state_ = 0;
  bool matched_ = false;
  std::string held_;  // always the text of state_: the longest suffix that begins a stop string
};

}  // namespace polylm
