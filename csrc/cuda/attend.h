// attend.h: attention of 16 query rows of one head to 32 keys on the tensor cores, with a running
// softmax (attend_prefill.cu), and what decode shares with it: kLog2E and first_of. Device code.
// Not here: where K and V come from, decode's own products (attend_decode.cu).
// Trap: a key that a row does not see leaves that row's state exactly as it was; V beyond the
// sequence may be NaN and is cut off, because zero times NaN is NaN.
#pragma once

#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {

inline constexpr float kLog2E = 1.4426950408889634F;

// Query rows as operand A: [D/16] fragments.
template <int kD32>
struct QueryFragments {
  uint32_t part[2 * kD32][4];
};

// State of rows g and g + 8 of a warp's 16. `sum` is this lane's share until finish_sums.
template <int kD32>
struct AttendState {
  float highest[2];
  float sum[2];
  float out[4 * kD32][4];
};

template <int kD32>
__device__ __forceinline__ void clear(AttendState<kD32>* s) {
  for (int r = 0; r < 2; ++r) {
    s->highest[r] = -INFINITY;
    s->sum[r] = 0.0F;
  }
#pragma unroll
  for (int i = 0; i < 4 * kD32; ++i) {
#pragma unroll
    for (int c = 0; c < 4; ++c) s->out[i][c] = 0.0F;
  }
}

// upper and lower point at this head's channels of rows g and g + 8, null for rows that do not
// exist. head_size is a multiple of 8, what pads it is zero.
template <int kD32>
__device__ __forceinline__ void load_queries(const uint16_t* upper, const uint16_t* lower,
                                             int head_size, int t, QueryFragments<kD32>* q) {
#pragma unroll
  for (int b = 0; b < kD32; ++b) {
    const int d = b * 32 + t * 8;
    Quad x = make_uint4(0, 0, 0, 0);
    Quad y = x;
    if (d < head_size) {
      if (upper != nullptr) x = load_shared_read(upper + d);
      if (lower != nullptr) y = load_shared_read(lower + d);
    }
    q->part[2 * b][0] = x.x;
    q->part[2 * b][1] = y.x;
    q->part[2 * b][2] = x.y;
    q->part[2 * b][3] = y.y;
    q->part[2 * b + 1][0] = x.z;
    q->part[2 * b + 1][1] = y.z;
    q->part[2 * b + 1][2] = x.w;
    q->part[2 * b + 1][3] = y.w;
  }
}

// The first `count` of 8 bf16 numbers, the rest zero.
__device__ __forceinline__ Quad first_of(const Quad& q, int count) {
  const auto word = [count](uint32_t bits, int i) {
    if (count >= 2 * i + 2) return bits;
    return count == 2 * i + 1 ? bits & 0xffffU : 0U;
  };
  return make_uint4(word(q.x, 0), word(q.y, 1), word(q.z, 2), word(q.w, 3));
}

// Rounds a row's 8 probabilities of this lane to bf16 and returns the sum of what they became.
__device__ __forceinline__ float round_row(const float (&p)[4][4], int row, uint32_t (&bits)[4]) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    bits[i] = pack_bf16(p[i][2 * row], p[i][2 * row + 1]);
    sum += bf16_value(bits[i] & 0xffffU) + bf16_value(bits[i] >> 16);
  }
  return sum;
}

// Turns scores into probabilities relative to the new highest; returns what old parts shrink by.
__device__ __forceinline__ float soften_row(float (&s)[4][4], int row, float* highest) {
  float most = *highest;
#pragma unroll
  for (int i = 0; i < 4; ++i) most = fmaxf(most, fmaxf(s[i][2 * row], s[i][2 * row + 1]));
  most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 1));
  most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, 2));
  const float base = most == -INFINITY ? 0.0F : most;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    s[i][2 * row] = exp2f((s[i][2 * row] - base) * kLog2E);
    s[i][2 * row + 1] = exp2f((s[i][2 * row + 1] - base) * kLog2E);
  }
  const float shrink = exp2f((*highest - base) * kLog2E);
  *highest = most;
  return shrink;
}

// Keys [first_key, first_key + 32). Row g sees keys below sees[0], row g + 8 below sees[1]; keys
// from `length` on are not in the cache. load_k(i, b): 16 bytes of key key_of_column(i, g),
// channels 32b + 8t on. load_v(i): 16 bytes of channel 8i + g, keys 8t on.
template <int kD32, class LoadK, class LoadV>
__device__ __forceinline__ void attend_keys(const QueryFragments<kD32>& q, int first_key,
                                            const int (&sees)[2], int length, LoadK load_k,
                                            LoadV load_v, AttendState<kD32>* state) {
  const int t = static_cast<int>(threadIdx.x) % 4;
  float s[4][4] = {};
#pragma unroll
  for (int b = 0; b < kD32; ++b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Quad k = load_k(i, b);
      mma_bf16(s[i], q.part[2 * b], k.x, k.y);
      mma_bf16(s[i], q.part[2 * b + 1], k.z, k.w);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int key = first_key + key_of_column(i, 2 * t + c % 2);
      if (key >= sees[c / 2]) s[i][c] = -INFINITY;
    }
  }
  uint32_t bits[2][4];
  float shrink[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    shrink[row] = soften_row(s, row, &state->highest[row]);
    state->sum[row] = state->sum[row] * shrink[row] + round_row(s, row, bits[row]);
  }
  const uint32_t first[4] = {bits[0][0], bits[1][0], bits[0][1], bits[1][1]};
  const uint32_t second[4] = {bits[0][2], bits[1][2], bits[0][3], bits[1][3]};
  const int mine = length - first_key - 8 * t;
#pragma unroll
  for (int i = 0; i < 4 * kD32; ++i) {
    Quad v = load_v(i);
    if (mine < 8) v = first_of(v, mine);
#pragma unroll
    for (int c = 0; c < 4; ++c) state->out[i][c] *= shrink[c / 2];
    mma_bf16(state->out[i], first, v.x, v.y);
    mma_bf16(state->out[i], second, v.z, v.w);
  }
}

// Adds the four lanes' shares of a row's sum.
template <int kD32>
__device__ __forceinline__ void finish_sums(AttendState<kD32>* s) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    s->sum[row] += __shfl_xor_sync(0xffffffffU, s->sum[row], 1);
    s->sum[row] += __shfl_xor_sync(0xffffffffU, s->sum[row], 2);
  }
}

}  // namespace polylm
