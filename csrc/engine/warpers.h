// warpers.h: Hugging Face's warpers, which look at a whole distribution and drop a part of it:
// temperature, top-k, top-p, min-p, typical-p, epsilon and eta cutoff, renormalisation. Each works
// on the entries of a ScoreRow and says when the candidates do not suffice.
// Not here: processors of single tokens (processors.h).
// Trap: entries that a warper decides by rank must be `certain`: not behind a token of the tail.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/score_row.h"

namespace polylm {

// The temperature as a device and the warpers take it: one float for all of a row, 1 when greedy.
// Values below kLeastTemperature count as it: their float may be 0 or have an infinite inverse, and
// the best tokens have all the weight there already.
inline constexpr float kLeastTemperature = 1e-30F;
float row_temperature(const SamplingParams& params);

class Warpers {
 public:
  // min_keep: Hugging Face's min_tokens_to_keep (1; with beams 2, or 1 + number of stop ids).
  Warpers(const SamplingParams& params, int64_t min_keep);

  // False when the row must be built again from all logits; with a full row always true.
  bool run(ScoreRow* row);
  // From the parameters alone: a full row may be needed.
  bool may_need_full() const;
  // Room for rows of so many tokens.
  void reserve(int64_t vocab) {
    if (typical_p_ < 1.0) near_.reserve(static_cast<size_t>(vocab));
  }

 private:
  // Distance of a token's surprise from the entropy; nearest first, then by id.
  struct Near {
    double distance = 0.0;
    double score = 0.0;
    int32_t id = 0;
    bool operator<(const Near& other) const {
      return distance < other.distance || (distance == other.distance && id < other.id);
    }
  };

  bool top_k(ScoreRow* row) const;
  bool top_p(ScoreRow* row) const;
  bool min_p(ScoreRow* row) const;
  bool typical(ScoreRow* row);
  bool epsilon(ScoreRow* row) const;
  bool eta(ScoreRow* row) const;
  bool keep_best(ScoreRow* row, double lowest) const;
  bool cut_below(ScoreRow* row, double lowest) const;

  double temperature_;  // of row_temperature
  int64_t top_k_;
  double top_p_, min_p_, typical_p_, epsilon_, eta_;
  int64_t min_keep_;
  std::vector<Near> near_;  // typical's scratch
};

// log-softmax of what is left.
void renormalize(ScoreRow* row);

}  // namespace polylm
