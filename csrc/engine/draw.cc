// draw.cc: see draw.h.
#include "engine/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "platform/error.h"

namespace polylm {
namespace {

// The token of the tail where the running sum of exp(score - log_z) first exceeds target. `head`
// holds the ids that are not in the tail, ascending. Rounding may leave target just above the
// whole sum: then it is the last token that has any weight. id -1 when none has.
Entry draw_tail(const Tail& tail, const float* logits, int64_t vocab,
                const std::vector<int32_t>& head, double target, double log_z) {
  Entry last;
  last.id = -1;
  auto skip = head.begin();
  double before = 0.0;
  for (int64_t begin = 0; begin < vocab; begin += kSumTokens) {
    const int64_t end = std::min(vocab, begin + kSumTokens);
    const auto first_skip = skip;
    double block = 0.0;
    for (int64_t id = begin; id < end; ++id) {
      if (skip != head.end() && *skip == id) {
        ++skip;
        continue;
      }
      const double weight = std::exp(tail.score(logits[id]) - log_z);
      block += weight;
      if (weight > 0.0) last = Entry{static_cast<int32_t>(id), logits[id], tail.score(logits[id])};
    }
    if (before + block <= target) {
      before += block;
      continue;
    }
    auto skipped = first_skip;
    double sum = before;
    for (int64_t id = begin; id < end; ++id) {
      if (skipped != head.end() && *skipped == id) {
        ++skipped;
        continue;
      }
      sum += std::exp(tail.score(logits[id]) - log_z);
      if (sum > target) return {static_cast<int32_t>(id), logits[id], tail.score(logits[id])};
    }
    return last;
  }
  return last;
}

// Walks the entries by rank; the index where the sum exceeds target, or size() when it does not.
// *rest becomes what is left of target there.
int64_t walk(ScoreRow* row, double target, double log_z, double* rest) {
  for (int64_t i = 0; i < row->size(); ++i) {
    row->rank(i + 1);
    const double weight = std::exp(row->entries()[static_cast<size_t>(i)].score - log_z);
    if (target < weight) {
      *rest = 0.0;
      return i;
    }
    target -= weight;
  }
  *rest = target;
  return row->size();
}

// An entry that could be drawn although rounding left target above everything.
int64_t last_resort(const ScoreRow& row, double log_z) {
  for (int64_t i = row.size() - 1; i > 0; --i) {
    if (std::exp(row.entries()[static_cast<size_t>(i)].score - log_z) > 0.0) return i;
  }
  return 0;
}

}  // namespace

Entry draw(ScoreRow* row, double u, int64_t vocab, FullRows& full, int64_t full_index) {
  POLYLM_CHECK(!row->entries().empty());
  const double log_z = row->log_sum();
  double rest = 0.0;
  const int64_t at = walk(row, u, log_z, &rest);
  if (at < row->size()) return row->entries()[static_cast<size_t>(at)];
  if (row->has_tail()) {
    const Entry entry =
        draw_tail(row->tail(), full.row(full_index), vocab, row->head_ids(), rest, log_z);
    if (entry.id >= 0) return entry;
  }
  return row->entries()[static_cast<size_t>(last_resort(*row, log_z))];
}

void RowsDraw::start(std::vector<ScoreRow>* rows, int64_t count,
                     const std::vector<int64_t>* full_index, int64_t vocab) {
  rows_ = rows;
  full_index_ = full_index;
  count_ = count;
  vocab_ = vocab;
  weigh();
}

// The mass of each row by what it holds now. False when nothing is left.
bool RowsDraw::weigh() {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  mass_.clear();
  log_z_ = kNothing;  // any common reference does: only ratios matter
  for (int64_t i = 0; i < count_; ++i) {
    mass_.push_back((*rows_)[static_cast<size_t>(i)].log_sum());
    log_z_ = std::max(log_z_, mass_.back());
  }
  const bool some = log_z_ > kNothing;
  for (double& mass : mass_) mass = some ? std::exp(mass - log_z_) : 0.0;
  return some;
}

bool RowsDraw::take(size_t at, double target, FullRows& full, Entry* out) {
  ScoreRow& row = (*rows_)[at];
  double rest = 0.0;
  int64_t index = walk(&row, target, log_z_, &rest);
  out->id = -1;
  if (index == row.size() && row.has_tail()) {
    const float* logits = full.row((*full_index_)[at]);
    *out = draw_tail(row.tail(), logits, vocab_, row.head_ids(), rest, log_z_);
  }
  if (out->id >= 0) {
    row.remove_from_tail(*out);
  } else if (row.size() > 0) {
    if (index == row.size()) index = last_resort(row, log_z_);
    *out = row.entries()[static_cast<size_t>(index)];
    row.erase(index);
  }
  if (out->id < 0 || row.empty()) {
    row.drop_tail();  // dust, if anything
    mass_[at] = 0.0;
  } else {
    mass_[at] = std::max(0.0, mass_[at] - std::exp(out->score - log_z_));
  }
  return out->id >= 0;
}

bool RowsDraw::next(double u, FullRows& full, DrawnEntry* out) {
  while (true) {
    double sum = 0.0;
    for (const double mass : mass_) sum += mass;
    double target = u * sum;
    int64_t last = -1;
    for (int64_t i = 0; i < count_; ++i) {
      const auto at = static_cast<size_t>(i);
      if (mass_[at] <= 0.0) continue;
      last = i;
      if (target < mass_[at]) break;
      target -= mass_[at];
    }
    if (last < 0) {
      if (!weigh()) return false;
      continue;
    }
    out->row = static_cast<int32_t>(last);
    // Subtraction can leave dust in a row that has nothing left; it is then out of the game.
    if (take(static_cast<size_t>(last), target, full, &out->entry)) return true;
  }
}

}  // namespace polylm
