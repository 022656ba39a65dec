// score_row.cc: see score_row.h. Sums are double and taken relative to a maximum.
#include "engine/score_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/processors.h"
#include "platform/error.h"

namespace polylm {
namespace {

constexpr double kMinusInf = -std::numeric_limits<double>::infinity();
constexpr int64_t kRankStep = 64;  // entries are put in order in chunks that double from here

}  // namespace

double raw_log_sum(const SelectResult& row, int64_t listed_count) {
  double top = static_cast<double>(row.rest_max);
  for (int64_t i = 0; i < listed_count; ++i) {
    top = std::max(top, static_cast<double>(row.listed_logits[i]));
  }
  if (top == kMinusInf) return kMinusInf;
  double sum = 0.0;
  if (static_cast<double>(row.rest_max) != kMinusInf) {
    sum = row.rest_sum_exp * std::exp(static_cast<double>(row.rest_max) - top);
  }
  for (int64_t i = 0; i < listed_count; ++i) {
    sum += std::exp(static_cast<double>(row.listed_logits[i]) - top);
  }
  return top + std::log(sum);
}

void ScoreRow::reserve(int64_t listed, int64_t full) {
  entries_.reserve(static_cast<size_t>(std::max(listed + kCandidates, full)));
  head_.reserve(static_cast<size_t>(listed + kCandidates));
}

void ScoreRow::set_tail(const SelectResult& row, int64_t listed_count, const RowPlan& plan) {
  tail_ = Tail{};
  const int64_t count = plan.vocab - listed_count - row.candidate_count;
  if (plan.rest != RestTokens::kKeep || count <= 0 || row.candidate_count == 0) return;
  const int64_t last = row.candidate_count - 1;
  const double top = static_cast<double>(row.rest_max);
  if (top == kMinusInf || std::isinf(row.candidate_logits[last])) return;
  double sum = row.rest_sum_exp;
  double tempered = row.rest_sum_exp_tempered;
  for (int64_t i = 0; i < row.candidate_count; ++i) {
    const double distance = static_cast<double>(row.candidate_logits[i]) - top;
    sum -= std::exp(distance);
    tempered -= std::exp(distance / plan.temperature);
  }
  tail_.count = count;
  tail_.max_logit = top;
  tail_.sum = std::max(0.0, sum);
  tail_.sum_tempered = std::max(0.0, tempered);
  const float logit = row.candidate_logits[last];
  tail_.bound = Entry{row.candidate_ids[last], logit, static_cast<double>(logit)};
}

void ScoreRow::build(const SelectResult& row, const RowPlan& plan, const Processors& processors,
                     double log_z) {
  entries_.clear();
  ranked_ = 0;
  const auto listed_count = static_cast<int64_t>(plan.edits.size());
  set_tail(row, listed_count, plan);
  tail_.offset = -log_z;
  tail_.bound.score -= log_z;
  head_.clear();
  if (has_tail()) {
    for (const Edit& edit : plan.edits) head_.push_back(edit.id);
    head_.insert(head_.end(), row.candidate_ids, row.candidate_ids + row.candidate_count);
  }
  for (int64_t i = 0; i < listed_count; ++i) {
    const Edit& edit = plan.edits[static_cast<size_t>(i)];
    const float logit = row.listed_logits[i];
    const double score = processors.apply(edit, static_cast<double>(logit) - log_z);
    if (score != kMinusInf) entries_.push_back({edit.id, logit, score});
  }
  if (plan.rest != RestTokens::kKeep) return;
  for (int64_t i = 0; i < row.candidate_count; ++i) {
    const float logit = row.candidate_logits[i];
    const double score = static_cast<double>(logit) - log_z;
    if (score != kMinusInf) entries_.push_back({row.candidate_ids[i], logit, score});
  }
}

void ScoreRow::build_full(const float* logits, int64_t vocab, const RowPlan& plan,
                          const Processors& processors, double log_z) {
  tail_ = Tail{};
  ranked_ = 0;
  entries_.resize(static_cast<size_t>(vocab));
  for (int64_t id = 0; id < vocab; ++id) {
    const float logit = logits[id];
    entries_[static_cast<size_t>(id)] =
        Entry{static_cast<int32_t>(id), logit, static_cast<double>(logit) - log_z};
  }
  if (plan.bias != nullptr) {
    for (const TokenBias& rule : *plan.bias) {
      entries_[static_cast<size_t>(rule.id)].score += static_cast<double>(rule.value);
    }
  }
  for (const Edit& edit : plan.edits) {
    Entry& entry = entries_[static_cast<size_t>(edit.id)];
    entry.score = processors.apply(edit, entry.score);
  }
  if (plan.rest == RestTokens::kMask) {
    // `allowed` is ascending, so every entry moves to the left or stays.
    size_t kept = 0;
    for (const int32_t id : *plan.allowed) entries_[kept++] = entries_[static_cast<size_t>(id)];
    entries_.resize(kept);
  } else if (plan.rest == RestTokens::kDrop) {
    std::vector<Entry> listed;
    for (const Edit& edit : plan.edits) listed.push_back(entries_[static_cast<size_t>(edit.id)]);
    entries_.swap(listed);
  }
  const auto banned = [](const Entry& e) { return e.score == kMinusInf; };
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(), banned), entries_.end());
}

void ScoreRow::rank(int64_t count) {
  const int64_t all = size();
  count = std::min(count, all);
  if (count <= ranked_) return;
  const int64_t target = std::min(all, std::max({count, 2 * ranked_, kRankStep}));
  const auto begin = entries_.begin() + ranked_;
  const auto end = entries_.begin() + target;
  if (target < all) std::nth_element(begin, end, entries_.end(), ranks_before);
  std::sort(begin, end, ranks_before);
  ranked_ = target;
}

const Entry& ScoreRow::best() {
  POLYLM_CHECK(!entries_.empty());
  if (ranked_ > 0) return entries_.front();
  return *std::min_element(entries_.begin(), entries_.end(), ranks_before);
}

double ScoreRow::log_tail() const {
  const double sum = tail_.tempered ? tail_.sum_tempered : tail_.sum;
  if (tail_.count <= 0 || sum <= 0.0) return kMinusInf;
  return tail_.max_logit * tail_.scale + tail_.offset + std::log(sum);
}

double ScoreRow::log_sum() const {
  const double tail = log_tail();
  double top = tail;
  for (const Entry& e : entries_) top = std::max(top, e.score);
  if (top == kMinusInf) return kMinusInf;
  double sum = std::exp(tail - top);
  for (const Entry& e : entries_) sum += std::exp(e.score - top);
  return top + std::log(sum);
}

void ScoreRow::add(double value) {
  for (Entry& e : entries_) e.score += value;
  tail_.offset += value;
  tail_.bound.score += value;
}

void ScoreRow::temper(double temperature) {
  for (Entry& e : entries_) e.score /= temperature;
  tail_.offset /= temperature;
  tail_.scale /= temperature;
  tail_.bound.score /= temperature;
  tail_.tempered = true;
}

void ScoreRow::truncate(int64_t count) {
  if (count >= size()) return;
  POLYLM_CHECK_LE(count, ranked_);
  entries_.resize(static_cast<size_t>(count));
  ranked_ = count;
}

void ScoreRow::keep_from(double lowest, int64_t always) {
  always = std::min(always, size());
  POLYLM_CHECK_LE(always, ranked_);
  const auto low = [lowest](const Entry& e) { return e.score < lowest; };
  // What is in order stays in order: only its end can be below.
  const auto front = entries_.begin() + ranked_;
  const auto ranked_end = std::find_if(entries_.begin() + always, front, low);
  const int64_t ranked = ranked_end - entries_.begin();
  const auto unranked_end = std::remove_if(front, entries_.end(), low);
  entries_.erase(unranked_end, entries_.end());
  entries_.erase(ranked_end, front);
  ranked_ = ranked;
  drop_tail();
}

void ScoreRow::erase(int64_t index) {
  entries_.erase(entries_.begin() + index);
  if (index < ranked_) --ranked_;
}

void ScoreRow::copy_entries(const ScoreRow& from) {
  entries_.assign(from.entries_.begin(), from.entries_.end());
  ranked_ = from.ranked_;
  tail_ = Tail{};
  head_.clear();
}

const std::vector<int32_t>& ScoreRow::head_ids() {
  std::sort(head_.begin(), head_.end());
  return head_;
}

void ScoreRow::remove_from_tail(const Entry& entry) {
  const double distance = static_cast<double>(entry.logit) - tail_.max_logit;
  tail_.sum = std::max(0.0, tail_.sum - std::exp(distance));
  tail_.sum_tempered = std::max(0.0, tail_.sum_tempered - std::exp(distance * tail_.scale));
  --tail_.count;
  head_.push_back(entry.id);
}

}  // namespace polylm
