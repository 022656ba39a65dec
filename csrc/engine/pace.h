// pace.h: how many rows of prompts a step may have so that it does not last long: everybody who
// generates waits for it, and everybody who comes during it. Learns from the steps that were made.
// The rows of a step never change a result (determinism tests), so time may decide about them.
// Not here: which prompts get the rows (scheduler.h).
#pragma once

#include <cstdint>

#include "engine/scheduler.h"

namespace polylm {

// Steps have a multiple of so many rows of prompts, of which devices multiply blocks, and no fewer;
// fewer teach nothing.
inline constexpr int64_t kPaceRows = 32;

class Pace {
 public:
  // step_ms: what a step with generated rows and rows of prompts should take; without generated
  // rows twice that. 0: no limit.
  explicit Pace(double step_ms) : step_ms_(step_ms) {}

  // Sets limits->prompt_mixed and prompt_alone.
  void limit(PlanLimits* limits) const;
  // A step of so many rows took ms.
  void observe(int64_t generated_rows, int64_t prompt_rows, double ms);

 private:
  int64_t rows_within(double ms) const;

  double step_ms_;
  double base_ms_ = 0.0;  // of a step without prompts: reading the weights
  double row_ms_ = 0.0;   // of a row of a prompt; 0: not known yet
};

}  // namespace polylm
