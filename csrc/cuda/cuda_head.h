// cuda_head.h: the rows of a select on the card: their logits (128 at a time), the reductions of
// select.cu, and the way of the results back. Not here: the product itself, the rows' tables
// (step_tables.h).
// Trap: a row that keeps its logits has them copied aside, because the next 128 rows use the same
// memory and listed tokens are overwritten. Two steps may be in flight: what the host reads, and
// remembers of a select, exists twice.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels.h"
#include "cuda/step_tables.h"
#include "ops/ops.h"
#include "platform/buffer.h"

namespace polylm {

class CudaHead {
 public:
  void reserve(const StepLimits& limits);
  int64_t size_bytes() const;

  // Starts the head over a step whose tables are at `upload` on the card. `product` starts the
  // logits of `count` rows whose places in the step are gather[0 .. count).
  using Product = std::function<cudaError_t(const int32_t* gather, int64_t count, float* logits,
                                            int64_t stride)>;
  cudaError_t run(const Card& card, const StepShape& shape, const char* upload,
                  const Product& product);
  // Starts the results' way back.
  cudaError_t send_back(const Card& card, const StepShape& shape);
  // What read_results needs of the select that is started.
  void remember(const SelectRow* rows, int64_t count, const StepShape& shape);
  // After the step of this slot has been waited for.
  const std::vector<SelectResult>& read_results(int64_t slot);
  const float* full_row(const Card& card, int64_t slot, int64_t index);
  // On the card: what the select that was started last has chosen, or will have.
  const HeadResult* results() const { return answer_.as<HeadResult>(); }

 private:
  struct Asked {
    PinnedBuffer answer;
    int64_t row_count = 0;
    int64_t listed_place = 0;  // bytes in answer
    std::vector<int64_t> listed_begin;  // [select_rows]
    std::vector<int32_t> full_index;    // [select_rows], -1: not kept
  };
  Asked& asked(int64_t slot) { return asked_[static_cast<size_t>(slot)]; }

  StepLimits limits_;
  int64_t at_once_ = 0;   // rows whose logits are in memory together
  int64_t stride_ = 0;
  int64_t blocks_ = 0;    // of 1,024 tokens
  DeviceBuffer logits_;   // [at_once, stride]
  DeviceBuffer sums_;     // BlockSum [at_once, blocks]
  DeviceBuffer lists_;    // uint64 [at_once, blocks, 64]
  DeviceBuffer merged_;   // uint64 [at_once, ceil(blocks / 16), 64]
  DeviceBuffer answer_;   // HeadResult [selects], then float [listed]
  DeviceBuffer full_;     // [full_rows, stride]
  Buffer full_host_;      // float [full_rows, V], touched by rows that are asked for

  std::array<Asked, 2> asked_;
  std::vector<SelectResult> results_;
};

}  // namespace polylm
