// logprobs.h: log-probabilities that are reported beside tokens, of the model's distribution or of
// the processed one. Not here: the scores that decide (score_row.h, warpers.h).
// Trap: of the processed distribution fewer alternatives may exist than were asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/score_row.h"

namespace polylm {

// A log-probability as it is reported: float's lowest number where float32 ends (a bias or a low
// temperature makes more), never -inf, which JSON cannot hold.
float reported_logprob(double logprob);

// The k best tokens of the raw row, best first. log_z: raw_log_sum of the row.
void top_of_model(const SelectResult& row, const RowPlan& plan, double log_z, int64_t k,
                  std::vector<TokenAlternative>* out);
// The k best of what processors and warpers left. log_z: row->log_sum().
void top_of_scores(ScoreRow* row, double log_z, int64_t k, std::vector<TokenAlternative>* out);

// What is reported with the tokens chosen from one row; reused for every row.
class RowLogprobs {
 public:
  explicit RowLogprobs(const SamplingParams& params);
  // `log_z` is raw_log_sum of the row. Call when processors and warpers are through.
  void start(const SelectResult& row, const RowPlan& plan, double log_z, ScoreRow* scores);
  // Of the chosen token; its score must be the row's (nothing added since start).
  double of(const Entry& entry) const;
  const std::vector<TokenAlternative>& top() const { return top_; }

 private:
  bool processed_;
  int64_t count_;  // alternatives; 0: none
  double log_z_ = 0.0;
  std::vector<TokenAlternative> top_;
};

// What is reported with the tokens of many hypotheses: a node per (hypothesis, token), shared by
// all that descend from it.
class TokenLog {
 public:
  void reserve(int64_t nodes, int64_t top) {
    nodes_.reserve(static_cast<size_t>(nodes));
    top_.reserve(static_cast<size_t>(nodes * top));
  }
  int32_t add(float logprob, const std::vector<TokenAlternative>& top);
  TokenInfo info(int32_t token, int32_t node) const;

 private:
  struct Node {
    float logprob = 0.0F;
    int32_t top_count = 0;
    size_t top_begin = 0;
  };
  std::vector<Node> nodes_;
  std::vector<TokenAlternative> top_;
};

}  // namespace polylm
