// norm.cu: h = (x - mean) / sqrt(variance + epsilon) * weight + bias, in fp32, rounded to the input
// type. Grid: rows. Block: 256 threads. Shared memory: 8 floats.
// Trap: thread i sums columns i, i + 256, ... and the 256 sums are folded as a fixed tree, so the
// order depends on the number of columns alone.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// The sum over all threads, given to each of them. `shared` holds kWarps floats.
__device__ __forceinline__ float sum_of_block(float x, float* shared) {
  const int tid = static_cast<int>(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffU, x, mask);
  __syncthreads();  // the last sum has been read by everyone
  if (tid % kWarp == 0) shared[tid / kWarp] = x;
  __syncthreads();
  float sum = shared[0];
  for (int w = 1; w < kWarps; ++w) sum += shared[w];
  return sum;
}

__global__ void __launch_bounds__(kThreads) norm_kernel(const NormCall p) {
  auto* shared = reinterpret_cast<float*>(block_shared());
  const int tid = static_cast<int>(threadIdx.x);
  const float* x = p.x + blockIdx.x * p.x_stride;
  float mine = 0.0F;
  for (int c = tid; c < p.cols; c += kThreads) mine += x[c];
  const float mean = sum_of_block(mine, shared) / static_cast<float>(p.cols);
  mine = 0.0F;
  for (int c = tid; c < p.cols; c += kThreads) mine += (x[c] - mean) * (x[c] - mean);
  const float variance = sum_of_block(mine, shared) / static_cast<float>(p.cols);
  const float scale = 1.0F / sqrtf(variance + p.epsilon);
  for (int c = tid; c < p.cols; c += kThreads) {
    const float y = (x[c] - mean) * scale * p.weight[c] + p.bias[c];
    const int64_t at = blockIdx.x * p.h_stride + c;
    if (p.h_is_bf16) {
      static_cast<uint16_t*>(p.h)[at] = bf16_bits(y);
    } else {
      static_cast<float*>(p.h)[at] = y;
    }
  }
}

}  // namespace

cudaError_t norm_rows(const Card& card, const NormCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.row_count);
  shape.threads = kThreads;
  shape.shared_bytes = sizeof(float) * kWarps;
  shape.stream = card.stream;
  return launch(&norm_kernel, shape, call);
}

}  // namespace polylm
