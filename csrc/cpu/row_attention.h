// row_attention.h: causal attention of rows that are alone in their group: generated tokens. A task
// is one head over one segment of 256 keys, so that one sequence keeps all workers busy; whoever
// finishes the last segment of a head folds them all, left to right. The additions are those of
// attention.cc, so a row has the same bits in a prompt. Not here: rows side by side (attention.h).
#pragma once

#include <atomic>

#include "cpu/context.h"
#include "cpu/kv_cache.h"
#include "ops/ops.h"
#include "platform/buffer.h"

namespace polylm {

struct AttentionArgs {
  const char* q = nullptr;  // inputs [T, C]
  char* out = nullptr;      // inputs [T, C]
  int64_t stride = 0;       // elements between rows, of both
  const KvCache* cache = nullptr;
  int64_t layer = 0;
};

class RowAttention {
 public:
  explicit RowAttention(const CpuContext& context) : context_(context) {}

  // Room for steps of these limits over caches of at most `heads` heads. Load time.
  void reserve(const StepLimits& limits, int64_t heads);
  // Forgets the rows of the last step.
  void clear() { row_count_ = segment_count_ = step_keys_ = 0; }
  void add(int64_t row, int64_t position, const int32_t* blocks);
  void run(const AttentionArgs& a);
  int64_t size_bytes() const;

 private:
  struct Row {
    int64_t row = 0;
    int64_t keys = 0;
    const int32_t* blocks = nullptr;
    int64_t first_segment = 0;  // among those of the step
    int64_t segments = 0;
  };
  struct Partial;  // what one segment gives

  const char* first_block(const AttentionArgs& a, int64_t task) const;
  void segment(const AttentionArgs& a, const Row& r, int64_t segment, int64_t head,
               const char* next, Partial* to) const;
  void finish(const AttentionArgs& a, const Row& r, int64_t head, Partial* partials) const;

  const CpuContext& context_;
  Buffer rows_;          // Row [sequences]
  Buffer segment_rows_;  // int32 [segments]: whose it is
  Buffer partials_;      // Partial [segments, heads]
  Buffer pending_;       // atomic int32 [sequences, heads]: segments still to come
  int64_t row_count_ = 0;
  int64_t segment_count_ = 0;
  int64_t step_keys_ = 0;  // of all rows, a measure of work
};

}  // namespace polylm
