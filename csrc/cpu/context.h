// context.h: what the parts of the CPU device share: kernels, how inputs are stored, and how many
// workers a job gets. Immutable after construction.
#pragma once

#include "cpu/kernels.h"
#include "cpu/pack.h"
#include "platform/thread_pool.h"

namespace polylm {

struct CpuContext {
  const KernelTable* kernels = nullptr;
  InputKind kind = InputKind::kBf16;
  int64_t workers = 1;
  int64_t inline_work = 0;  // multiply-adds up to which a job stays on the calling thread

  int64_t element_bytes() const { return kind == InputKind::kBf16 ? 2 : 4; }

  int64_t workers_for(int64_t work) const { return work <= inline_work ? 1 : workers; }

  // Calls job(items, worker) until all of [0, size) is done, `chunk` items at a time. `work` is a
  // measure of it all in multiply-adds.
  template <class Job>
  void for_each(int64_t size, int64_t chunk, int64_t work, Job&& job) const {
    const int64_t count = workers_for(work);
    SharedWork items(size, chunk, count);
    ThreadPool::shared().run_helped(count, [&](int64_t worker) {
      int64_t helped = 0;
      for (Range some; items.take(worker, &helped, &some);) job(some, worker);
    });
  }

  // The product kernel for matrices stored as bf16, or as fp32.
  void (*product(bool bf16_matrix) const)(const ProductArgs&) {
    if (!bf16_matrix) return kernels->product_fp32;
    return kind == InputKind::kBf16 ? kernels->product_bf16 : kernels->product_mixed;
  }
  void (*product_list(bool bf16_matrix) const)(const ProductArgs&, const char* const*) {
    return bf16_matrix && kind == InputKind::kBf16 ? kernels->product_list_bf16 : nullptr;
  }
  void (*row_scores(bool bf16_matrix) const)(const RowListArgs&) {
    if (!bf16_matrix) return kernels->row_scores_fp32;
    return kind == InputKind::kBf16 ? kernels->row_scores_bf16 : kernels->row_scores_mixed;
  }
  void (*row_sums(bool bf16_matrix) const)(const RowListArgs&) {
    if (!bf16_matrix) return kernels->row_sums_fp32;
    return kind == InputKind::kBf16 ? kernels->row_sums_bf16 : kernels->row_sums_mixed;
  }
  void rest() const {
    if (kernels->rest != nullptr) kernels->rest();
  }
  Cut cut(bool bf16_matrix) const {
    return bf16_matrix && kind == InputKind::kBf16 ? kernels->cut_bf16 : Cut{};
  }
};

// Numbers between two rows of an activation: padded to whole k tiles, plus one more tile so that
// reading a padded head past the last channel stays inside the row, and so that no stride is a
// large power of two, which would put all rows into one set of the L1 cache.
constexpr int64_t act_stride(int64_t cols) {
  return (cols + kTileK - 1) / kTileK * kTileK + kTileK;
}

}  // namespace polylm
