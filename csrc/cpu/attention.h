// attention.h: causal attention over the blocked cache. One task is one head of a group of up to 24
// neighbouring rows of one sequence. Keys are taken in segments of 256 anchored at position 0, each
// with its own softmax, folded left to right: so a row's bits do not depend on its group, its chunk
// or its batch. Not here: who calls it when (cpu_ops.cc).
#pragma once

#include "cpu/context.h"
#include "cpu/kv_cache.h"
#include "ops/ops.h"
#include "platform/buffer.h"

namespace polylm {

inline constexpr int64_t kGroupRows = 24;
inline constexpr int64_t kMaxHeadSize = 256;

struct RowGroup {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;
  const int32_t* blocks = nullptr;
};

struct AttentionArgs {
  const char* q = nullptr;  // inputs [T, C]
  char* out = nullptr;      // inputs [T, C]
  int64_t stride = 0;       // elements between rows, of both
  const KvCache* cache = nullptr;
  int64_t layer = 0;
};

class Attention {
 public:
  explicit Attention(const CpuContext& context) : context_(context) {}

  // Room for steps of these limits. Load time.
  void reserve(const StepLimits& limits);
  // Splits the step's sequences into groups.
  void begin(const StepInputs& in);
  void run(const AttentionArgs& a);
  int64_t size_bytes() const { return groups_.size_bytes() + scratch_.size_bytes(); }

 private:
  struct Scratch;
  void attend(const AttentionArgs& a, const RowGroup& g, int64_t head, Scratch* s) const;
  void segment(const AttentionArgs& a, const RowGroup& g, int64_t head, int64_t first_key,
               Scratch* s) const;

  const CpuContext& context_;
  Buffer groups_;  // RowGroup [limits.rows]
  int64_t group_count_ = 0;
  int64_t step_keys_ = 0;  // sum of keys over all rows, a measure of work
  Buffer scratch_;  // Scratch [workers]
};

}  // namespace polylm
