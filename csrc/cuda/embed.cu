// embed.cu: x[T,C] = wte[token] + wpe[position] in fp32, gathered from the packed matrices.
// Grid: rows. Block: 256 threads. No shared memory. A row that only fills the bucket is zeros.
// Trap: results of the step before are read here, so that this must be the first kernel of a step:
// that one waits for everything before it.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float element(const MatrixView& m, int64_t n, int64_t k) {
  if (!m.is_bf16) return static_cast<const float*>(m.data)[n * m.k + k];
  const int64_t k_blocks = (m.k + kTileK - 1) / kTileK;
  return bf16_value(static_cast<const uint16_t*>(m.data)[packed_element(n, k, k_blocks)]);
}

// A row without candidates is broken, and nobody will look at what follows it.
__device__ __forceinline__ int32_t token_of(const RowInfo& row, const HeadResult* chosen) {
  if (row.source < 0) return row.token;
  const HeadResult& from = chosen[row.source];
  return from.count > 0 ? from.ids[0] : 0;
}

__global__ void __launch_bounds__(kThreads) embed_kernel(const EmbedCall p) {
  let_next_begin();
  wait_for_previous();
  const RowInfo row = p.rows[blockIdx.x];
  const int32_t token = token_of(row, p.chosen);
  float* x = p.x + blockIdx.x * p.stride;
  for (int64_t c = threadIdx.x; c < p.wte.k; c += kThreads) {
    float v = 0.0F;
    if (row.position >= 0) {
      v = element(p.wte, token, c);
      if (p.wpe.data != nullptr) v += element(p.wpe, row.position, c);
    }
    x[c] = v;
  }
}

}  // namespace

cudaError_t embed_rows(const Card& card, const EmbedCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.row_count);
  shape.threads = kThreads;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&embed_kernel, shape, call);
}

}  // namespace polylm
