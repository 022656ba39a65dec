// attention.h: causal attention over the blocked cache. One task is one head of a group of up to 48
// neighbouring rows of one sequence. Keys are taken in segments of 256 anchored at position 0, each
// with its own softmax, folded left to right: so a row's bits do not depend on its group, its chunk
// or its batch. Not here: groups of one row (row_attention.h), who calls it when (cpu_ops.cc).
#pragma once

#include "cpu/row_attention.h"

namespace polylm {

inline constexpr int64_t kGroupRows = 48;  // whole register blocks of 16 and of 12 rows

struct RowGroup {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;
  const int32_t* blocks = nullptr;
};

class Attention {
 public:
  explicit Attention(const CpuContext& context) : context_(context), alone_(context) {}

  // Room for steps of these limits over caches of at most `heads` heads. Load time.
  void reserve(const StepLimits& limits, int64_t heads);
  // Splits the step's sequences into groups.
  void begin(const StepInputs& in);
  void run(const AttentionArgs& a);
  int64_t size_bytes() const {
    return groups_.size_bytes() + scratch_.size_bytes() + alone_.size_bytes();
  }

 private:
  struct Scratch;
  void attend(const AttentionArgs& a, const RowGroup& g, int64_t head, Scratch* s) const;
  void segment(const AttentionArgs& a, const RowGroup& g, int64_t head, int64_t first_key,
               Scratch* s) const;

  const CpuContext& context_;
  RowAttention alone_;  // groups of one row
  Buffer groups_;       // RowGroup [limits.rows], the others
  int64_t group_count_ = 0;
  int64_t step_keys_ = 0;  // sum of keys over all their rows, a measure of work
  Buffer scratch_;  // Scratch [workers]
};

}  // namespace polylm
