// fma_gemm.cu: y[M,N] = x[M,K] · w[N,K]ᵀ in fp32 multiply-adds, for float32 precision and for
// matrices kept as fp32. Simple and exact rather than fast: one family for both roles.
// Grid: (ceil(N / 64), ceil(M / 32)). Block: 256 threads, each 2 rows by 4 columns.
// Shared memory: 32 k of 32 rows and 64 columns as fp32, rows padded by one: 12.4 KiB.
// Trap: the order of additions is k by k within a chunk of 128, then chunk by chunk.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kRows = 32;
constexpr int kCols = 64;
constexpr int kDepth = 32;
constexpr int kPitch = kDepth + 1;
constexpr int kThreads = 256;

template <bool kBf16>
__device__ __forceinline__ float value_at(const void* data, int64_t at) {
  return kBf16 ? bf16_value(static_cast<const uint16_t*>(data)[at])
               : static_cast<const float*>(data)[at];
}

template <bool kXIsBf16, bool kWIsBf16>
__device__ __forceinline__ void load_panels(const FmaCall& p, int64_t k0, float* xs, float* ws) {
  const int64_t k_blocks = (p.k + kTileK - 1) / kTileK;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kDepth; i += kThreads) {
    const int row = static_cast<int>(blockIdx.y) * kRows + i / kDepth;
    const int64_t k = k0 + i % kDepth;
    float v = 0.0F;
    if (row < p.rows && k < p.k) {
      const int64_t source = p.gather != nullptr ? p.gather[row] : row;
      v = value_at<kXIsBf16>(p.x, source * p.x_stride + k);
    }
    xs[i / kDepth * kPitch + i % kDepth] = v;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kCols * kDepth; i += kThreads) {
    const int64_t n = static_cast<int64_t>(blockIdx.x) * kCols + i / kDepth;
    const int64_t k = k0 + i % kDepth;
    float v = 0.0F;
    if (n < p.sink.n && k < p.k) {
      v = value_at<kWIsBf16>(p.w, kWIsBf16 ? packed_element(n, k, k_blocks) : n * p.k + k);
    }
    ws[i / kDepth * kPitch + i % kDepth] = v;
  }
}

template <bool kXIsBf16, bool kWIsBf16>
__global__ void __launch_bounds__(kThreads) fma_kernel(const FmaCall p) {
  let_next_begin();
  wait_for_previous();
  auto* xs = reinterpret_cast<float*>(block_shared());
  float* ws = xs + kRows * kPitch;
  const int r0 = static_cast<int>(threadIdx.x) / 16 * 2;
  const int c0 = static_cast<int>(threadIdx.x) % 16;
  float total[2][4] = {};
  float sum[2][4] = {};
  for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
    load_panels<kXIsBf16, kWIsBf16>(p, k0, xs, ws);
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          sum[r][c] = fmaf(xs[(r0 + r) * kPitch + k], ws[(c0 + 16 * c) * kPitch + k], sum[r][c]);
        }
      }
    }
    __syncthreads();
    if (k0 % kChunkK != kChunkK - kDepth && k0 + kDepth < p.k) continue;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        total[r][c] += sum[r][c];
        sum[r][c] = 0.0F;
      }
    }
  }
  for (int r = 0; r < 2; ++r) {
    const int row = static_cast<int>(blockIdx.y) * kRows + r0 + r;
    if (row >= p.rows) break;
    for (int c = 0; c < 4; ++c) {
      sink_one(p.sink, row, static_cast<int>(blockIdx.x) * kCols + c0 + 16 * c, total[r][c]);
    }
  }
}

}  // namespace

cudaError_t fma_product(const Card& card, const FmaCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(ceil_parts(call.sink.n, kCols), ceil_parts(call.rows, kRows));
  shape.threads = kThreads;
  shape.shared_bytes = sizeof(float) * (kRows + kCols) * kPitch;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  if (call.x_is_bf16) {
    return call.w_is_bf16 ? launch(&fma_kernel<true, true>, shape, call)
                          : launch(&fma_kernel<true, false>, shape, call);
  }
  return call.w_is_bf16 ? launch(&fma_kernel<false, true>, shape, call)
                        : launch(&fma_kernel<false, false>, shape, call);
}

}  // namespace polylm
