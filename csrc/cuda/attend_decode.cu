// attend_decode.cu: attention of generated rows, bound by reading K and V once: a row's keys are
// cut into segments of 256, a block takes one segment of one head of one row, each of its 8 warps
// 32 keys straight from memory into registers. Of a row's blocks the one that comes last folds the
// segments, left to right whoever that is.
// K, then V, are operand A of the tensor cores and the row is operand B, the same in all 8 columns:
// 16 keys or channels an instruction, and half the registers that the row as operand A would take,
// so that two blocks share a processor and one reads while the other folds.
// Grid: (segments, heads, rows). Block: 8 warps. Shared memory: 8 x (D + 2) floats and a flag.
// Trap: segments and their order depend on the row's own length alone; the grid may have more
// segments than any row, and rows that only fill the bucket have none.
#include "cuda/attend.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = kDecodeAttendWarps * kWarp;

// A part of a row: its highest score, its sum of exponentials and D weighted sums relative to it.
__host__ __device__ constexpr int part_floats(int padded) { return padded + 2; }

// What one channel of two parts becomes when the right one is folded into the left one.
struct Fold {
  float highest = -INFINITY;
  float sum = 0.0F;
  float out = 0.0F;
};
struct Part {
  float highest;
  float sum;
  float out;
};
__device__ __forceinline__ void fold_in(const Part& part, Fold* f) {
  const float highest = fmaxf(f->highest, part.highest);
  const float left = exp2f((f->highest - highest) * kLog2E);
  const float right = exp2f((part.highest - highest) * kLog2E);
  f->sum = fmaf(f->sum, left, part.sum * right);
  f->out = fmaf(f->out, left, part.out * right);
  f->highest = highest;
}

__device__ __forceinline__ uint16_t* out_of(const AttendCall& p, int row, int head) {
  return static_cast<uint16_t*>(p.out) + row * p.stride + static_cast<int64_t>(head) * p.head_size;
}
__device__ __forceinline__ float* partial_of(const AttendCall& p, int index, int head,
                                             int segment) {
  const int64_t at = (static_cast<int64_t>(index) * p.heads + head) * p.segments + segment;
  return p.partial + at * part_floats(p.padded);
}

// The part of 32 keys: the highest score, the sum of exponentials, the weighted sums of V. With
// lane = 4g + t, every t of a g has the same: the scores of keys 4g .. 4g+3, and of each 16
// channels numbers g and g + 8.
template <int kD32>
struct WarpPart {
  float highest;
  float sum;
  float out[2 * kD32][2];
};

// Key of row `row` (0..15) of the i-th product of scores: a lane gets four neighbours.
__device__ __forceinline__ int key_of_row(int i, int row) { return row % 8 * 4 + 2 * i + row / 8; }

// This head's channels of the row as operand B, [D/16] fragments of two registers.
template <int kD32>
__device__ __forceinline__ void load_query(const uint16_t* q, int head_size, int t,
                                           uint32_t (&to)[2 * kD32][2]) {
#pragma unroll
  for (int b = 0; b < kD32; ++b) {
    const int d = b * 32 + t * 8;
    Quad x = make_uint4(0, 0, 0, 0);
    if (d < head_size) x = load_shared_read(q + d);
    to[2 * b][0] = x.x;
    to[2 * b][1] = x.y;
    to[2 * b + 1][0] = x.z;
    to[2 * b + 1][1] = x.w;
  }
}

template <int kD32>
__device__ __forceinline__ void score_keys(const uint16_t* k, const uint32_t (&q)[2 * kD32][2],
                                           float (&scores)[4]) {
  constexpr int kPadded = 32 * kD32;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4;
  const int t = lane % 4;
  float s[2][4] = {};
#pragma unroll
  for (int b = 0; b < kD32; ++b) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int channel = b * 32 + t * 8;
      const Quad x = load_once(k + k_element(key_of_row(i, g), channel, kPadded));
      const Quad y = load_once(k + k_element(key_of_row(i, g + 8), channel, kPadded));
      mma_bf16(s[i], {x.x, y.x, x.y, y.y}, q[2 * b][0], q[2 * b][1]);
      mma_bf16(s[i], {x.z, y.z, x.w, y.w}, q[2 * b + 1][0], q[2 * b + 1][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    scores[2 * i] = s[i][0];
    scores[2 * i + 1] = s[i][2];
  }
}

// Combines the eight groups' values; each lane of a group has the same.
template <class Combine>
__device__ __forceinline__ float over_groups(float x, Combine combine) {
#pragma unroll
  for (int step = 4; step < kWarp; step *= 2) {
    x = combine(x, __shfl_xor_sync(0xffffffffU, x, step));
  }
  return x;
}

// Keys [begin, begin + 32) of one head, `keys` of the row's in all; at least one is there.
template <int kD32>
__device__ __forceinline__ void attend_span(const AttendCall& p, const RowInfo& row, int head,
                                            int begin, int keys,
                                            const uint32_t (&q)[2 * kD32][2],
                                            WarpPart<kD32>* part) {
  static_assert(kWarpKeys == kCudaBlockTokens);
  constexpr int kPadded = 32 * kD32;
  constexpr int64_t kHalf = static_cast<int64_t>(kCudaBlockTokens) * kPadded;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4;
  const int t = lane % 4;
  const int64_t block = p.tables[row.table + begin / kCudaBlockTokens];
  const uint16_t* k = static_cast<const uint16_t*>(p.layer) + (block * p.heads + head) * 2 * kHalf;
  const uint16_t* v = k + kHalf;
  float s[4];
  score_keys<kD32>(k, q, s);
  float most = -INFINITY;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (begin + 4 * g + j >= keys) s[j] = -INFINITY;
    most = fmaxf(most, s[j]);
  }
  most = over_groups(most, [](float a, float b) { return fmaxf(a, b); });
  const float base = most == -INFINITY ? 0.0F : most;
  float sum = 0.0F;
  uint32_t pairs[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    pairs[j] = pack_bf16(exp2f((s[2 * j] - base) * kLog2E), exp2f((s[2 * j + 1] - base) * kLog2E));
    sum += bf16_value(pairs[j] & 0xffffU) + bf16_value(pairs[j] >> 16);
  }
  part->highest = most;
  part->sum = over_groups(sum, [](float a, float b) { return a + b; });
  uint32_t weights[4];  // of keys 8t .. 8t+7, in pairs
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    weights[j] = __shfl_sync(0xffffffffU, pairs[j % 2], 8 * t + 4 * (j / 2));
  }
  const int mine = keys - begin - 8 * t;  // V beyond them may be anything
#pragma unroll
  for (int i = 0; i < 2 * kD32; ++i) {
    Quad x = load_once(v + v_element(8 * t, i * 16 + g));
    Quad y = load_once(v + v_element(8 * t, i * 16 + g + 8));
    if (mine < 8) {
      x = first_of(x, mine);
      y = first_of(y, mine);
    }
    float out[4] = {};
    mma_bf16(out, {x.x, y.x, x.y, y.y}, weights[0], weights[1]);
    mma_bf16(out, {x.z, y.z, x.w, y.w}, weights[2], weights[3]);
    part->out[i][0] = out[0];
    part->out[i][1] = out[2];
  }
}

// Whether this block is the last of the row's `count` to leave its segment. The usual order of a
// combine by the last one: each thread's part is made visible to the card (fence), all threads have
// done so (barrier), one counts the block in. The last block then fences once more before it reads,
// and puts the counter back to zero for the next layer, which runs after this kernel.
__device__ __forceinline__ bool is_last(int32_t* arrived, int count, int32_t* flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const int32_t before = atomicAdd(arrived, 1);
    *flag = before;
    if (before == count - 1) *arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return *flag == count - 1;
}

template <int kD32>
__global__ void __launch_bounds__(kThreads, kD32 <= 4 ? 2 : 1)
    decode_attend_kernel(const AttendCall p) {
  constexpr int kPadded = 32 * kD32;
  let_next_begin();
  wait_for_previous();
  auto* parts = reinterpret_cast<float*>(block_shared());
  const int segment = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int index = static_cast<int>(blockIdx.z);
  const int at = p.first_row + index;
  const RowInfo row = p.rows[at];
  const int keys = row.position + 1;
  if (segment * kSegmentKeys >= keys) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;

  const uint16_t* q = static_cast<const uint16_t*>(p.q) + at * p.stride +
                      static_cast<int64_t>(head) * p.head_size;
  const int begin = segment * kSegmentKeys + warp * kWarpKeys;
  if (begin < keys) {
    uint32_t query[2 * kD32][2];
    load_query<kD32>(q, p.head_size, lane % 4, query);
    WarpPart<kD32> mine;
    attend_span<kD32>(p, row, head, begin, keys, query, &mine);
    float* part = parts + warp * part_floats(kPadded);
    if (lane == 0) {
      part[0] = mine.highest;
      part[1] = mine.sum;
    }
    if (lane % 4 == 0) {
#pragma unroll
      for (int i = 0; i < 2 * kD32; ++i) {
        part[2 + i * 16 + lane / 4] = mine.out[i][0];
        part[2 + i * 16 + lane / 4 + 8] = mine.out[i][1];
      }
    }
  }
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < kPadded; d += kThreads) {
    Fold f;
    for (int w = 0; w < kDecodeAttendWarps; ++w) {
      if (segment * kSegmentKeys + w * kWarpKeys >= keys) break;
      const float* part = parts + w * part_floats(kPadded);
      fold_in({part[0], part[1], part[2 + d]}, &f);
    }
    if (keys <= kSegmentKeys) {
      if (d < p.head_size) out_of(p, at, head)[d] = bf16_bits(f.out * (1.0F / f.sum));
      continue;
    }
    float* to = partial_of(p, index, head, segment);
    to[2 + d] = f.out;
    if (d != 0) continue;
    to[0] = f.highest;
    to[1] = f.sum;
  }
  if (keys <= kSegmentKeys) return;
  const int count = (keys + kSegmentKeys - 1) / kSegmentKeys;
  auto* flag = reinterpret_cast<int32_t*>(parts + kDecodeAttendWarps * part_floats(kPadded));
  if (!is_last(p.arrived + index * p.heads + head, count, flag)) return;
  for (int d = static_cast<int>(threadIdx.x); d < p.head_size; d += kThreads) {
    Fold f;
    for (int s = 0; s < count; ++s) {  // other blocks' parts: from L2, never from this L1
      const float* part = partial_of(p, index, head, s);
      fold_in({__ldcg(part), __ldcg(part + 1), __ldcg(part + 2 + d)}, &f);
    }
    out_of(p, at, head)[d] = bf16_bits(f.out * (1.0F / f.sum));
  }
}

template <int kD32>
cudaError_t start(const Card& card, const AttendCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.segments, call.heads, call.row_count);
  shape.threads = kThreads;
  shape.shared_bytes = sizeof(float) * (kDecodeAttendWarps * part_floats(32 * kD32) + 1);
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&decode_attend_kernel<kD32>, shape, call);
}

}  // namespace

cudaError_t attend_decode(const Card& card, const AttendCall& call) {
  switch (call.padded / 32) {
    case 1: return start<1>(card, call);
    case 2: return start<2>(card, call);
    case 3: return start<3>(card, call);
    case 4: return start<4>(card, call);
    case 5: return start<5>(card, call);
    case 6: return start<6>(card, call);
    case 7: return start<7>(card, call);
    default: return start<8>(card, call);
  }
}

}  // namespace polylm
