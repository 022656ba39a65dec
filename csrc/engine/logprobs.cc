// logprobs.cc: see logprobs.h.
#include "engine/logprobs.h"

#include <algorithm>
#include <limits>

#include "engine/processors.h"

namespace polylm {
namespace {

TokenAlternative alternative(int32_t id, double logprob) { return {id, reported_logprob(logprob)}; }

}  // namespace

float reported_logprob(double logprob) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp<double>(logprob, -kMost, kMost));
}

void top_of_model(const SelectResult& row, const RowPlan& plan, double log_z, int64_t k,
                  std::vector<TokenAlternative>* out) {
  const auto better = [](const TokenAlternative& a, const TokenAlternative& b) {
    return a.logprob > b.logprob || (a.logprob == b.logprob && a.id < b.id);
  };
  // Raw logits while comparing, so that rounding of the difference makes no ties.
  out->clear();
  for (int64_t i = 0; i < std::min(k, row.candidate_count); ++i) {
    out->push_back({row.candidate_ids[i], row.candidate_logits[i]});
  }
  for (int64_t i = 0; i < plan.listed(); ++i) {
    const TokenAlternative entry{plan.edits[static_cast<size_t>(i)].id, row.listed_logits[i]};
    const bool full = static_cast<int64_t>(out->size()) == k;
    if (full && !better(entry, out->back())) continue;
    if (full) out->pop_back();
    out->insert(std::upper_bound(out->begin(), out->end(), entry, better), entry);
  }
  for (TokenAlternative& entry : *out) {
    entry = alternative(entry.id, static_cast<double>(entry.logprob) - log_z);
  }
}

void top_of_scores(ScoreRow* row, double log_z, int64_t k, std::vector<TokenAlternative>* out) {
  out->clear();
  row->rank(k);
  for (int64_t i = 0; i < std::min(k, row->size()); ++i) {
    const Entry& entry = row->entries()[static_cast<size_t>(i)];
    if (!row->certain(entry)) break;
    out->push_back(alternative(entry.id, entry.score - log_z));
  }
}

RowLogprobs::RowLogprobs(const SamplingParams& params)
    : processed_(params.logprobs_processed), count_(std::max<int64_t>(params.logprobs, 0)) {
  top_.reserve(static_cast<size_t>(count_));
}

void RowLogprobs::start(const SelectResult& row, const RowPlan& plan, double log_z,
                        ScoreRow* scores) {
  log_z_ = processed_ ? scores->log_sum() : log_z;
  top_.clear();
  if (count_ == 0) return;
  if (processed_) {
    top_of_scores(scores, log_z_, count_, &top_);
  } else {
    top_of_model(row, plan, log_z_, count_, &top_);
  }
}

double RowLogprobs::of(const Entry& entry) const {
  return (processed_ ? entry.score : static_cast<double>(entry.logit)) - log_z_;
}

int32_t TokenLog::add(float logprob, const std::vector<TokenAlternative>& top) {
  nodes_.push_back({logprob, static_cast<int32_t>(top.size()), top_.size()});
  top_.insert(top_.end(), top.begin(), top.end());
  return static_cast<int32_t>(nodes_.size()) - 1;
}

TokenInfo TokenLog::info(int32_t token, int32_t node) const {
  const Node& from = nodes_[static_cast<size_t>(node)];
  TokenInfo info;
  info.id = token;
  info.logprob = from.logprob;
  const auto begin = top_.begin() + static_cast<int64_t>(from.top_begin);
  info.top.assign(begin, begin + from.top_count);
  return info;
}

}  // namespace polylm
