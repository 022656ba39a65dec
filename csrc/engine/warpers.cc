// warpers.cc: see warpers.h. Every rule is stated as Hugging Face computes it; sums are double.
#include "engine/warpers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/processors.h"

namespace polylm {
namespace {

// The cutoffs that Hugging Face applies at all.
bool inside_unit(double value) { return value > 0.0 && value < 1.0; }

// Entropy in nats of what is left; the tail must be empty.
double entropy(const ScoreRow& row, double log_z) {
  double sum = 0.0;
  for (const Entry& e : row.entries()) {
    const double log_p = e.score - log_z;
    sum -= std::exp(log_p) * log_p;
  }
  return sum;
}

}  // namespace

float row_temperature(const SamplingParams& params) {
  if (params.temperature == 0.0) return 1.0F;
  return std::max(static_cast<float>(params.temperature), kLeastTemperature);
}

Warpers::Warpers(const SamplingParams& params, int64_t min_keep)
    : temperature_(static_cast<double>(row_temperature(params))),
      top_k_(params.top_k),
      top_p_(params.top_p),
      min_p_(params.min_p),
      typical_p_(params.typical_p),
      epsilon_(params.epsilon_cutoff),
      eta_(params.eta_cutoff),
      min_keep_(min_keep) {}

bool Warpers::may_need_full() const {
  return top_k_ == 0 || std::max(top_k_, min_keep_) >= kCandidates;
}

bool Warpers::run(ScoreRow* row) {
  if (temperature_ != 1.0) row->temper(temperature_);
  if (top_k_ > 0 && !top_k(row)) return false;
  if (top_p_ < 1.0 && !top_p(row)) return false;
  if (min_p_ > 0.0 && !min_p(row)) return false;
  if (typical_p_ < 1.0 && !typical(row)) return false;
  if (inside_unit(epsilon_) && !epsilon(row)) return false;
  return !inside_unit(eta_) || eta(row);
}

// Keeps scores >= the k-th best; all that equal it stay. Where no full row can be had (topK < 64)
// tokens that equal the k-th but are not among the 64 candidates are dropped.
bool Warpers::top_k(ScoreRow* row) const {
  const int64_t k = std::max(top_k_, min_keep_);
  if (k >= row->size() + row->tail().count) return true;
  if (k > row->size()) return false;
  row->rank(k);
  const Entry kth = row->entries()[static_cast<size_t>(k - 1)];
  if (!row->certain(kth)) return false;
  if (row->has_tail() && row->tail().bound.score == kth.score && may_need_full()) return false;
  row->keep_from(kth.score, k);
  return true;
}

// Hugging Face sums from the smallest up and drops while the sum is <= 1 - p: a token stays when
// the mass before it, from the best down, is below p.
bool Warpers::top_p(ScoreRow* row) const {
  const double log_z = row->log_sum();
  double before = 0.0;
  int64_t kept = 0;
  for (; kept < row->size(); ++kept) {
    if (kept >= min_keep_ && before >= top_p_) break;
    row->rank(kept + 1);
    const Entry& entry = row->entries()[static_cast<size_t>(kept)];
    if (!row->certain(entry)) return false;
    before += std::exp(entry.score - log_z);
  }
  if (kept == row->size() && row->has_tail() && (kept < min_keep_ || before < top_p_)) return false;
  row->truncate(kept);
  row->drop_tail();
  return true;
}

// Drops p < min_p * p(best), but never the best min_keep.
bool Warpers::min_p(ScoreRow* row) const {
  if (row->size() == 0) return !row->has_tail();
  const double lowest = row->best().score + std::log(min_p_);
  return keep_best(row, lowest);
}

// Drops what is below `lowest`, but never the best min_keep.
bool Warpers::keep_best(ScoreRow* row, double lowest) const {
  if (row->has_tail() && row->tail().bound.score >= lowest) return false;
  const int64_t keep = std::min(min_keep_, row->size());
  row->rank(keep);
  if (!row->certain(row->entries()[static_cast<size_t>(keep - 1)])) return false;
  row->keep_from(lowest, keep);
  return true;
}

// Keeps the tokens whose surprise is nearest to the entropy until their mass reaches p; all that
// are as near as the last one stay, and never fewer than min_keep.
bool Warpers::typical(ScoreRow* row) {
  if (row->has_tail()) return false;
  if (row->size() == 0) return true;
  const double log_z = row->log_sum();
  const double mean = entropy(*row, log_z);
  const auto near_of = [&](const Entry& e) {
    return Near{std::fabs(log_z - e.score - mean), e.score, e.id};
  };
  near_.clear();
  for (const Entry& e : row->entries()) near_.push_back(near_of(e));
  const auto size = static_cast<int64_t>(near_.size());
  int64_t sorted = 0;
  int64_t last = 0;
  for (double mass = 0.0; last < size; ++last) {
    if (last == sorted) {
      sorted = std::min(size, std::max<int64_t>(64, 2 * sorted));
      const auto begin = near_.begin() + last;
      if (sorted < size) std::nth_element(begin, near_.begin() + sorted, near_.end());
      std::sort(begin, near_.begin() + sorted);
    }
    mass += std::exp(near_[static_cast<size_t>(last)].score - log_z);
    if (mass >= typical_p_) break;
  }
  last = std::min(last, size - 1);
  const int64_t keep = std::min({min_keep_, size, sorted});
  const Near kept = near_[static_cast<size_t>(keep - 1)];
  const double farthest = near_[static_cast<size_t>(last)].distance;
  const auto dropped = [&](const Entry& e) {
    const Near near = near_of(e);
    return near.distance > farthest && kept < near;
  };
  std::vector<Entry>& entries = row->entries();
  entries.erase(std::remove_if(entries.begin(), entries.end(), dropped), entries.end());
  row->changed();
  return true;
}

// The same, but what equals the last of the best min_keep stays too, as Hugging Face has it.
bool Warpers::cut_below(ScoreRow* row, double lowest) const {
  if (row->size() == 0) return !row->has_tail();
  const int64_t keep = std::min(min_keep_, row->size());
  row->rank(keep);
  return keep_best(row, std::min(lowest, row->entries()[static_cast<size_t>(keep - 1)].score));
}

bool Warpers::epsilon(ScoreRow* row) const {
  return cut_below(row, row->log_sum() + std::log(epsilon_));
}

bool Warpers::eta(ScoreRow* row) const {
  if (row->has_tail()) return false;
  const double log_z = row->log_sum();
  const double cut = std::min(eta_, std::sqrt(eta_) * std::exp(-entropy(*row, log_z)));
  return cut_below(row, log_z + std::log(cut));
}

void renormalize(ScoreRow* row) {
  const double log_z = row->log_sum();
  if (std::isfinite(log_z)) row->add(-log_z);
}

}  // namespace polylm
