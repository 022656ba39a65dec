// scoring.cc: log-softmax of one token and its best rivals, in double.
#include "engine/scoring.h"

#include <algorithm>
#include <cmath>

#include "engine/logprobs.h"
#include "engine/score_row.h"
#include "platform/error.h"

namespace polylm {

ScoredToken score_row(const SelectResult& row, int32_t token, int64_t top) {
  const float logit = row.listed_logits[0];
  if (!row.finite || std::isnan(logit)) {
    fail(Code::kNumeric, "the logits of a scored token are not finite");
  }
  const double log_sum = raw_log_sum(row, 1);
  ScoredToken scored;
  scored.token.id = token;
  scored.token.logprob = reported_logprob(static_cast<double>(logit) - log_sum);
  const auto before = [&](int64_t i) {  // candidate i comes before the token
    const float rival = row.candidate_logits[i];
    return rival != logit ? rival > logit : row.candidate_ids[i] < token;
  };
  scored.is_greedy = row.candidate_count == 0 || !before(0);
  const int64_t count = std::min(top, row.candidate_count + 1);
  int64_t next = 0;
  bool placed = false;
  scored.token.top.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    TokenAlternative rival{token, scored.token.logprob};
    if (placed || (next < row.candidate_count && before(next))) {
      rival.id = row.candidate_ids[next];
      rival.logprob =
          reported_logprob(static_cast<double>(row.candidate_logits[next]) - log_sum);
      ++next;
    } else {
      placed = true;
    }
    scored.token.top.push_back(rival);
  }
  return scored;
}

}  // namespace polylm
