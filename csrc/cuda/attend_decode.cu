// attend_decode.cu: attention of generated rows, bound by reading K and V once: a row's keys are
// cut into segments of 256, a block takes one segment of one head of one row, each of its 4 warps
// 64 keys straight from memory into registers, and parts are folded left to right.
// Grid: (segments, heads, rows), then (heads, rows) where any row has several segments.
// Block: 4 warps, then 64 threads or more. Shared memory: 4 x (D + 2) floats.
// Trap: segments and their order depend on the row's own length alone.
#include "cuda/attend.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = kDecodeAttendWarps * kWarp;
constexpr int kFoldThreads = 128;

// A part of a row: its highest score, its sum of exponentials and D weighted sums relative to it.
__host__ __device__ constexpr int part_floats(int padded) { return padded + 2; }

// What one channel of two parts becomes when the right one is folded into the left one.
struct Fold {
  float highest = -INFINITY;
  float sum = 0.0F;
  float out = 0.0F;
};
__device__ __forceinline__ void fold_in(const float* part, int d, Fold* f) {
  const float highest = fmaxf(f->highest, part[0]);
  const float left = exp2f((f->highest - highest) * kLog2E);
  const float right = exp2f((part[0] - highest) * kLog2E);
  f->sum = f->sum * left + part[1] * right;
  f->out = f->out * left + part[2 + d] * right;
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

// Row 0 of the 16 rows of the fragments is the row; the others are zeros and ignored.
template <int kD32>
__device__ __forceinline__ void attend_span(const AttendCall& p, const RowInfo& row, int head,
                                            int begin, int keys,
                                            const QueryFragments<kD32>& queries,
                                            AttendState<kD32>* state) {
  constexpr int kPadded = 32 * kD32;
  constexpr int64_t kHalf = static_cast<int64_t>(kCudaBlockTokens) * kPadded;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4;
  const int t = lane % 4;
  const int sees[2] = {g == 0 ? keys : 0, 0};
  for (int key = begin; key < begin + kWarpKeys && key < keys; key += kCudaBlockTokens) {
    const int64_t block = p.tables[row.table + key / kCudaBlockTokens];
    const uint16_t* k =
        static_cast<const uint16_t*>(p.layer) + (block * p.heads + head) * 2 * kHalf;
    const uint16_t* v = k + kHalf;
    attend_keys<kD32>(
        queries, key, sees, keys,
        [&](int i, int b) {
          return load_stream(k + k_element(key_of_column(i, g), b * 32 + t * 8, kPadded));
        },
        [&](int i) { return load_stream(v + v_element(8 * t, i * 8 + g)); }, state);
  }
}

template <int kD32>
__global__ void __launch_bounds__(kThreads) decode_attend_kernel(const AttendCall p) {
  constexpr int kPadded = 32 * kD32;
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
  QueryFragments<kD32> queries;
  load_queries<kD32>(lane / 4 == 0 ? q : nullptr, nullptr, p.head_size, lane % 4, &queries);
  AttendState<kD32> state;
  clear(&state);
  attend_span<kD32>(p, row, head, segment * kSegmentKeys + warp * kWarpKeys, keys, queries,
                    &state);
  finish_sums(&state);
  if (lane / 4 == 0) {
    float* part = parts + warp * part_floats(kPadded);
    part[0] = state.highest[0];
    part[1] = state.sum[0];
#pragma unroll
    for (int i = 0; i < 4 * kD32; ++i) {
      part[2 + i * 8 + lane * 2] = state.out[i][0];
      part[2 + i * 8 + lane * 2 + 1] = state.out[i][1];
    }
  }
  __syncthreads();
  for (int d = static_cast<int>(threadIdx.x); d < kPadded; d += kThreads) {
    Fold f;
    for (int w = 0; w < kDecodeAttendWarps; ++w) {
      if (segment * kSegmentKeys + w * kWarpKeys >= keys) break;
      fold_in(parts + w * part_floats(kPadded), d, &f);
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
}

__global__ void __launch_bounds__(kFoldThreads) fold_segments_kernel(const AttendCall p) {
  const int head = static_cast<int>(blockIdx.x);
  const int index = static_cast<int>(blockIdx.y);
  const int at = p.first_row + index;
  const int keys = p.rows[at].position + 1;
  if (keys <= kSegmentKeys) return;
  for (int d = static_cast<int>(threadIdx.x); d < p.head_size; d += kFoldThreads) {
    Fold f;
    for (int s = 0; s * kSegmentKeys < keys; ++s) fold_in(partial_of(p, index, head, s), d, &f);
    out_of(p, at, head)[d] = bf16_bits(f.out * (1.0F / f.sum));
  }
}

template <int kD32>
cudaError_t start(const Card& card, const AttendCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.segments, call.heads, call.row_count);
  shape.threads = kThreads;
  shape.shared_bytes = sizeof(float) * kDecodeAttendWarps * part_floats(32 * kD32);
  shape.stream = card.stream;
  const cudaError_t e = launch(&decode_attend_kernel<kD32>, shape, call);
  if (e != cudaSuccess || call.segments == 1) return e;
  shape.grid = grid_of(call.heads, call.row_count);
  shape.threads = kFoldThreads;
  shape.shared_bytes = 0;
  return launch(&fold_segments_kernel, shape, call);
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
