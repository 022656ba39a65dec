// copy.cu: whole blocks of the cache copied onto others in every layer, and pieces of matrices put
// into their packed places. Both are bound by memory and move each byte once.
// copy: grid (count, layers), 256 threads, 16 bytes each at a time; the pairs travel as arguments.
// pack: grid covers the piece's tiles, or rows for fp32; consecutive threads store consecutively.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) copy_kernel(const CopyCall p) {
  const int64_t layer = blockIdx.y * p.blocks;
  const auto* from = reinterpret_cast<const Quad*>(
      p.base + (layer + p.from[blockIdx.x]) * p.block_bytes);
  auto* to = reinterpret_cast<Quad*>(p.base + (layer + p.to[blockIdx.x]) * p.block_bytes);
  for (int64_t i = threadIdx.x; i < p.block_bytes / 16; i += kThreads) to[i] = from[i];
}

// One block per tile of 16 n by 32 k that the piece touches.
__global__ void __launch_bounds__(kThreads) pack_bf16_kernel(const PackCall p) {
  const int64_t k_blocks = (p.k + kTileK - 1) / kTileK;
  const int64_t n_tile = p.n0 / kTileN + blockIdx.y;
  const int64_t k_tile = p.k0 / kTileK + blockIdx.x;
  auto* tile = static_cast<uint16_t*>(p.matrix) + (n_tile * k_blocks + k_tile) * kTileElements;
  for (int i = static_cast<int>(threadIdx.x); i < kTileElements; i += kThreads) {
    const TilePlace place = packed_place(i);
    const int64_t n = n_tile * kTileN + place.n - p.n0;
    const int64_t k = k_tile * kTileK + place.k - p.k0;
    if (n < 0 || n >= p.n_count || k < 0 || k >= p.k_count) continue;
    tile[i] = static_cast<const uint16_t*>(p.source)[n * p.stride_n + k * p.stride_k];
  }
}

__global__ void __launch_bounds__(kThreads) pack_fp32_kernel(const PackCall p) {
  const int64_t n = blockIdx.x;
  float* row = static_cast<float*>(p.matrix) + (p.n0 + n) * p.k + p.k0;
  for (int64_t k = threadIdx.x; k < p.k_count; k += kThreads) {
    row[k] = static_cast<const float*>(p.source)[n * p.stride_n + k * p.stride_k];
  }
}

}  // namespace

cudaError_t copy_blocks(const Card& card, const CopyCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.count, call.layers);
  shape.threads = kThreads;
  shape.stream = card.stream;
  return launch(&copy_kernel, shape, call);
}

cudaError_t pack_piece(const Card& card, const PackCall& call) {
  LaunchShape shape;
  shape.threads = kThreads;
  shape.stream = card.stream;
  if (!call.is_bf16) {
    shape.grid = grid_of(call.n_count);
    return launch(&pack_fp32_kernel, shape, call);
  }
  const int64_t n_end = ceil_parts(call.n0 + call.n_count, kTileN);
  const int64_t k_end = ceil_parts(call.k0 + call.k_count, kTileK);
  shape.grid = grid_of(k_end - call.k0 / kTileK, n_end - call.n0 / kTileN);
  return launch(&pack_bf16_kernel, shape, call);
}

}  // namespace polylm
