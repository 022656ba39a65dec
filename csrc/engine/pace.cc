// pace.cc: time of a step = base + row * rows of prompts, both moving averages. A step may always
// last two bases: reading the weights once for a handful of rows would be the greater waste.
#include "engine/pace.h"

#include <algorithm>

namespace polylm {
namespace {

// Half old, half new: a stall of the machine is forgotten within a few steps.
double mixed(double average, double now) { return average == 0.0 ? now : 0.5 * (average + now); }

}  // namespace

int64_t Pace::rows_within(double ms) const {
  if (row_ms_ == 0.0) return 2 * kPaceRows;  // the first prompt shows it
  const double rows = (std::max(ms, 2.0 * base_ms_) - base_ms_) / row_ms_;
  return std::max(kPaceRows, static_cast<int64_t>(std::min(rows, 1e9)) / kPaceRows * kPaceRows);
}

void Pace::limit(PlanLimits* limits) const {
  if (step_ms_ <= 0.0) return;
  limits->prompt_mixed = rows_within(step_ms_);
  limits->prompt_alone = rows_within(2.0 * step_ms_);
}

void Pace::observe(int64_t generated_rows, int64_t prompt_rows, double ms) {
  if (prompt_rows == 0 && generated_rows > 0) base_ms_ = mixed(base_ms_, ms);
  if (prompt_rows < kPaceRows) return;
  // The base is at most half of what a row is said to cost: a step that was quick by chance must
  // not make the next one endless.
  const double cost = std::max(ms - base_ms_, 0.5 * ms) / static_cast<double>(prompt_rows);
  // Products of few rows cost more a row than those of many: the end of a prompt says nothing about
  // whole steps, unless it was quicker.
  const bool is_end = 2 * prompt_rows < rows_within(step_ms_);
  if (!is_end || cost < row_ms_) row_ms_ = mixed(row_ms_, cost);
}

}  // namespace polylm
