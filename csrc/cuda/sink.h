// sink.h: what becomes of a finished sum, shared by all products: bias, gelu, residual add, or q
// and the places of k and v in the cache. Device code. Not here: sums.
// Trap: every element is stored by exactly one thread of the whole grid.
#pragma once

#include "cuda/kernels.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {

__device__ __forceinline__ float bf16_value(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ __forceinline__ uint16_t bf16_bits(float x) {
  return static_cast<uint16_t>(pack_bf16(x, 0.0F) & 0xffffU);
}

// x / (1 + exp(-2u)) is x/2 · (1 + tanh u) without its cancellation for negative x.
__device__ __forceinline__ float gelu_tanh(float x) {
  const float u = 0.79788456080286536F * (x + 0.044715F * x * x * x);
  return x / (1.0F + expf(-2.0F * u));
}
__device__ __forceinline__ float gelu_erf(float x) {
  return 0.5F * x * erfcf(-x * 0.70710678118654752F);
}

__device__ __forceinline__ void store_input(const Sink& s, void* row, int64_t at, float v) {
  if (s.is_bf16) {
    static_cast<uint16_t*>(row)[at] = bf16_bits(v);
  } else {
    static_cast<float*>(row)[at] = v;
  }
}

// Column n of [q | k | v] of one row; `v` has its bias.
__device__ __forceinline__ void sink_qkv(const Sink& s, int row, int n, float v) {
  if (n < s.channels) {
    store_input(s, s.out, row * s.stride + n, v * s.q_scale);
    return;
  }
  const bool is_v = n >= 2 * s.channels;
  const int c = n - (is_v ? 2 : 1) * s.channels;
  const int head = c / s.head_size;
  const int d = c % s.head_size;
  const RowInfo info = s.rows[row];
  if (info.position < 0) return;  // no row, and no place in the cache
  const int64_t block = s.tables[info.table + info.position / kCudaBlockTokens];
  const int slot = info.position % kCudaBlockTokens;
  const int64_t half = static_cast<int64_t>(kCudaBlockTokens) * s.padded;
  const int64_t heads = s.channels / s.head_size;
  const int64_t base = (block * heads + head) * 2 * half;
  const int64_t at = is_v ? half + v_element(slot, d) : k_element(slot, d, s.padded);
  store_input(s, s.layer, base + at, v);
}

// One element whose sum is complete.
__device__ __forceinline__ void sink_one(const Sink& s, int row, int n, float sum) {
  if (n >= s.n) return;
  const float v = s.bias != nullptr ? sum + s.bias[n] : sum;
  const int64_t at = row * s.stride + n;
  switch (s.kind) {
    case SinkKind::kStore: store_input(s, s.out, at, v); return;
    case SinkKind::kGeluTanh: store_input(s, s.out, at, gelu_tanh(v)); return;
    case SinkKind::kGeluErf: store_input(s, s.out, at, gelu_erf(v)); return;
    case SinkKind::kAdd: static_cast<float*>(s.out)[at] += v; return;
    case SinkKind::kQkv: sink_qkv(s, row, n, v); return;
  }
}

// Elements n and n + 1, n even: one store where the layout allows it.
__device__ __forceinline__ void sink_two(const Sink& s, int row, int n, float a, float b) {
  if (n + 1 >= s.n || s.kind == SinkKind::kQkv || (!s.is_bf16 && s.kind != SinkKind::kAdd)) {
    sink_one(s, row, n, a);
    sink_one(s, row, n + 1, b);
    return;
  }
  if (s.bias != nullptr) {
    a += s.bias[n];
    b += s.bias[n + 1];
  }
  const int64_t at = row * s.stride + n;
  if (s.kind == SinkKind::kAdd) {
    auto* to = reinterpret_cast<float2*>(static_cast<float*>(s.out) + at);
    const float2 x = *to;
    *to = make_float2(x.x + a, x.y + b);
    return;
  }
  if (s.kind == SinkKind::kGeluTanh) {
    a = gelu_tanh(a);
    b = gelu_tanh(b);
  } else if (s.kind == SinkKind::kGeluErf) {
    a = gelu_erf(a);
    b = gelu_erf(b);
  }
  *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(s.out) + at) = pack_bf16(a, b);
}

}  // namespace polylm
