// norm.h: h = (x - mean) / sqrt(variance + epsilon) * weight + bias of one row by one block of 256
// threads, in fp32. Device code, used by norm.cu and by the decode product that normalises its own
// input, which must agree in every bit: hence the explicit multiply-adds.
// Trap: thread i sums columns i, i + 256, ... and the 256 sums are folded as a fixed tree, so the
// order depends on the number of columns alone.
#pragma once

#include "cuda/kernels.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {

inline constexpr int kNormThreads = 256;
inline constexpr int kNormWarps = kNormThreads / kWarp;

// The sum over all threads, given to each of them. `shared` holds kNormWarps floats.
__device__ __forceinline__ float sum_of_block(float x, float* shared) {
  const int tid = static_cast<int>(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffU, x, mask);
  __syncthreads();  // the last sum has been read by everyone
  if (tid % kWarp == 0) shared[tid / kWarp] = x;
  __syncthreads();
  float sum = shared[0];
  for (int w = 1; w < kNormWarps; ++w) sum += shared[w];
  return sum;
}

// Calls store(column, value) for each column, in some thread.
template <class Store>
__device__ __forceinline__ void norm_row(const NormCall& p, int row, float* shared, Store store) {
  const int tid = static_cast<int>(threadIdx.x);
  const float* x = p.x + row * p.x_stride;
  float mine = 0.0F;
  for (int c = tid; c < p.cols; c += kNormThreads) mine += x[c];
  const float mean = sum_of_block(mine, shared) / static_cast<float>(p.cols);
  mine = 0.0F;
  for (int c = tid; c < p.cols; c += kNormThreads) {
    const float d = x[c] - mean;
    mine = fmaf(d, d, mine);
  }
  const float variance = sum_of_block(mine, shared) / static_cast<float>(p.cols);
  const float scale = 1.0F / sqrtf(variance + p.epsilon);
  for (int c = tid; c < p.cols; c += kNormThreads) {
    store(c, fmaf((x[c] - mean) * scale, p.weight[c], p.bias[c]));
  }
}

}  // namespace polylm
