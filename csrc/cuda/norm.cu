// norm.cu: rows of the residual stream normalised and rounded to the input type. Grid: rows.
// Block: 256 threads. Shared memory: 8 floats. Not here: the arithmetic (norm.h).
#include "cuda/norm.h"

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"

namespace polylm {
namespace {

__global__ void __launch_bounds__(kNormThreads) norm_kernel(const NormCall p) {
  let_next_begin();
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x);
  norm_row(p, row, reinterpret_cast<float*>(block_shared()), [&](int c, float y) {
    const int64_t at = row * p.h_stride + c;
    if (p.h_is_bf16) {
      static_cast<uint16_t*>(p.h)[at] = bf16_bits(y);
    } else {
      static_cast<float*>(p.h)[at] = y;
    }
  });
}

}  // namespace

cudaError_t norm_rows(const Card& card, const NormCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.row_count);
  shape.threads = kNormThreads;
  shape.shared_bytes = sizeof(float) * kNormWarps;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&norm_kernel, shape, call);
}

}  // namespace polylm
