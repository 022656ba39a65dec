// prompt_lookup.cc: see prompt_lookup.h. A plain search: at most three passes over the context, a
// few microseconds beside a step of milliseconds.
#include "engine/prompt_lookup.h"

#include <algorithm>

namespace polylm {
namespace {

constexpr int64_t kLongestMatch = 3;

// Where the last n tokens stood before, as the index behind them; -1: nowhere.
int64_t behind_match(const std::vector<int32_t>& text, int64_t begin, int64_t n) {
  const auto size = static_cast<int64_t>(text.size());
  for (int64_t end = size - 1; end - n >= begin; --end) {
    if (std::equal(text.end() - n, text.end(), text.begin() + (end - n))) return end;
  }
  return -1;
}

}  // namespace

void look_up(const std::vector<int32_t>& text, int64_t begin, int64_t most,
             std::vector<int32_t>* draft) {
  draft->clear();
  const auto size = static_cast<int64_t>(text.size());
  if (most <= 0) return;
  int64_t from = -1;
  for (int64_t n = kLongestMatch; n > 0 && from < 0; --n) from = behind_match(text, begin, n);
  if (from < 0) return;
  for (int64_t at = from; at < from + most; ++at) {
    draft->push_back(at < size ? text[static_cast<size_t>(at)]
                               : (*draft)[static_cast<size_t>(at - size)]);
  }
}

void DraftLength::learn(int64_t drafted, int64_t accepted) {
  tokens_ = accepted == drafted ? std::min(kMostDraft, tokens_ + 2) : accepted + 1;
}

}  // namespace polylm
