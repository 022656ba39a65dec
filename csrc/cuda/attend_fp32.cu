// attend_fp32.cu: attention in float32, for both roles: one warp per row and head, segments of 256
// keys with a two-pass softmax each, folded left to right. Simple rather than fast.
// Grid: (heads, rows). Block: one warp. Shared memory: 256 + D floats.
// Trap: a lane owns keys lane, lane + 32, ... while scoring and channels lane, lane + 32, ... while
// summing; nothing is reduced in an order that depends on anything but the row's length.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kKeysPerLane = kSegmentKeys / kWarp;
constexpr int kChannelsPerLane = 256 / kWarp;

__device__ __forceinline__ float highest_of_warp(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, mask));
  return x;
}
__device__ __forceinline__ float sum_of_warp(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(0xffffffffU, x, mask);
  return x;
}

// K of one head of the block that holds `key`; V is half a head further on.
__device__ __forceinline__ const float* head_of_key(const AttendCall& p, const RowInfo& row,
                                                    int head, int key) {
  const int64_t half = static_cast<int64_t>(kCudaBlockTokens) * p.padded;
  const int64_t block = p.tables[row.table + key / kCudaBlockTokens];
  return static_cast<const float*>(p.layer) + (block * p.heads + head) * 2 * half;
}

__global__ void __launch_bounds__(kWarp) fp32_attend_kernel(const AttendCall p) {
  let_next_begin();
  wait_for_previous();
  auto* probabilities = reinterpret_cast<float*>(block_shared());
  float* q = probabilities + kSegmentKeys;
  const int lane = static_cast<int>(threadIdx.x);
  const int head = static_cast<int>(blockIdx.x);
  const int at = p.first_row + static_cast<int>(blockIdx.y);
  const RowInfo row = p.rows[at];
  const int keys = row.position + 1;
  const int64_t offset = at * p.stride + static_cast<int64_t>(head) * p.head_size;
  for (int d = lane; d < p.head_size; d += kWarp) q[d] = static_cast<const float*>(p.q)[offset + d];
  __syncwarp();

  float highest = -INFINITY;
  float sum = 0.0F;
  float out[kChannelsPerLane] = {};
  for (int first = 0; first < keys; first += kSegmentKeys) {
    const int count = min(kSegmentKeys, keys - first);
    float scores[kKeysPerLane];
    float most = -INFINITY;
    for (int i = 0; i < kKeysPerLane; ++i) {
      const int key = first + lane + i * kWarp;
      scores[i] = -INFINITY;
      if (key >= keys) continue;
      const float* k = head_of_key(p, row, head, key);
      float dot = 0.0F;
      for (int d = 0; d < p.head_size; ++d) {
        dot = fmaf(q[d], k[k_element(key % kCudaBlockTokens, d, p.padded)], dot);
      }
      scores[i] = dot;
      most = fmaxf(most, dot);
    }
    most = highest_of_warp(most);
    float mine = 0.0F;
    for (int i = 0; i < kKeysPerLane; ++i) {
      const float e = expf(scores[i] - most);
      probabilities[lane + i * kWarp] = e;
      mine += e;
    }
    const float segment_sum = sum_of_warp(mine);
    __syncwarp();
    const float both = fmaxf(highest, most);
    const float left = expf(highest - both);
    const float right = expf(most - both);
    for (int i = 0; i < kChannelsPerLane; ++i) {
      const int d = lane + i * kWarp;
      if (d >= p.head_size) break;
      float y = 0.0F;
      for (int j = 0; j < count; ++j) {
        const float* v = head_of_key(p, row, head, first + j) +
                         static_cast<int64_t>(kCudaBlockTokens) * p.padded;
        y = fmaf(probabilities[j], v[v_element((first + j) % kCudaBlockTokens, d)], y);
      }
      out[i] = out[i] * left + y * right;
    }
    sum = sum * left + segment_sum * right;
    highest = both;
    __syncwarp();
  }
  for (int i = 0; i < kChannelsPerLane; ++i) {
    const int d = lane + i * kWarp;
    // A row that only fills the bucket has no keys and no sum.
    if (d < p.head_size) static_cast<float*>(p.out)[offset + d] = keys > 0 ? out[i] / sum : 0.0F;
  }
}

}  // namespace

cudaError_t attend_fp32(const Card& card, const AttendCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.heads, call.row_count);
  shape.threads = kWarp;
  shape.shared_bytes = sizeof(float) * static_cast<size_t>(kSegmentKeys + call.head_size);
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&fp32_attend_kernel, shape, call);
}

}  // namespace polylm
