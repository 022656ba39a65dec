// prompt_lookup.h: guesses the next tokens of a text from the text itself: what followed when its
// last tokens stood there before. Translations, rewritings and code copy a lot. Not here: whether a
// guess is right (sample_decoder.cc), whether there is room for its rows (scheduler.h).
#pragma once

#include <cstdint>
#include <vector>

namespace polylm {

inline constexpr int64_t kMostDraft = 8;  // tokens of a draft

// Sets `draft` to `most` tokens, or to none when the last token of text[begin, end) is new. Looks
// for the last three tokens first, then two, then one; the latest place counts. A draft that runs
// into the end goes on with itself, so a period is continued.
void look_up(const std::vector<int32_t>& text, int64_t begin, int64_t most,
             std::vector<int32_t>* draft);

// How long the next draft should be: longer while all of it is right, else little more than was.
class DraftLength {
 public:
  int64_t tokens() const { return tokens_; }
  void learn(int64_t drafted, int64_t accepted);

 private:
  int64_t tokens_ = 4;
};

}  // namespace polylm
