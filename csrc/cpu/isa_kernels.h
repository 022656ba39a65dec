// isa_kernels.h: every kernel but the products, written once over F16, the 16 lanes of fp32 that an
// ISA file defines before it includes this. Everything is in an unnamed namespace and uses no STL:
// each ISA file gets its own copy, compiled with its own instructions.
// What the lane functions mean: low_halves, high_halves: the even, odd k of a line of a bf16 tile;
// first_or(a, n, b): lanes < n from a, the others from b; zero_below(y, x, l): 0 where x < l, else
// y; if_negative(x, a, b): a where x < 0; scale_by_power(y, n): y * 2^n for whole n;
// max(a, b): b where either is NaN; inverse(x): 1/x to about 1 ulp, for x from 1 to 2^127.6.
// Trap: compiled with -ffp-contract=off; a fused multiply-add is written as fma() or is not one.
#pragma once

#include "cpu/isa_product.h"

namespace polylm {
namespace {

inline constexpr float kLowest = -3.402823466e+38F;

// exp(x) to about 1 ulp; 0 below -87.3, 2^127.5 above 88.3; NaN stays NaN.
inline F16 exponential(F16 x) {
  const F16 clamped = min(broadcast(88.3F), max(broadcast(-88.0F), x));
  const F16 n = nearest(mul(clamped, broadcast(1.44269504088896341F)));
  F16 r = fma(n, broadcast(-0.693359375F), clamped);
  r = fma(n, broadcast(2.12194440e-4F), r);
  F16 p = broadcast(1.9875691500e-4F);
  p = fma(p, r, broadcast(1.3981999507e-3F));
  p = fma(p, r, broadcast(8.3334519073e-3F));
  p = fma(p, r, broadcast(4.1665795894e-2F));
  p = fma(p, r, broadcast(1.6666665459e-1F));
  p = fma(p, r, broadcast(5.0000001201e-1F));
  p = add(fma(mul(r, r), p, r), broadcast(1.0F));
  return zero_below(scale_by_power(p, n), x, -87.3F);
}

// x * sigmoid(2u), which is x/2 * (1 + tanh(u)) without its cancellation.
inline F16 gelu_tanh(F16 x) {
  const F16 cube = mul(mul(x, x), x);
  const F16 u = mul(broadcast(-1.5957691216057308F), fma(broadcast(0.044715F), cube, x));
  return mul(x, inverse(add(broadcast(1.0F), exponential(u))));
}

// x * Phi(x); erfc by the Chebyshev fit of Press et al., Numerical Recipes, erfcc: 1.2e-7.
inline F16 gelu_erf(F16 x) {
  const F16 z = mul(absolute(x), broadcast(0.70710678118654752F));
  const F16 t = div(broadcast(1.0F), fma(broadcast(0.5F), z, broadcast(1.0F)));
  F16 p = broadcast(0.17087277F);
  p = fma(p, t, broadcast(-0.82215223F));
  p = fma(p, t, broadcast(1.48851587F));
  p = fma(p, t, broadcast(-1.13520398F));
  p = fma(p, t, broadcast(0.27886807F));
  p = fma(p, t, broadcast(-0.18628806F));
  p = fma(p, t, broadcast(0.09678418F));
  p = fma(p, t, broadcast(0.37409196F));
  p = fma(p, t, broadcast(1.00002368F));
  p = fma(p, t, broadcast(-1.26551223F));
  const F16 power = exponential(sub(p, mul(z, z)));
  const F16 half_erfc = mul(broadcast(0.5F), mul(t, power));
  return mul(x, if_negative(x, half_erfc, sub(broadcast(1.0F), half_erfc)));
}

// Sixteen inputs at element `at`.
inline void store_kind(InputKind kind, void* to, int64_t at, F16 x) {
  if (kind == InputKind::kBf16) {
    store_bf16(static_cast<uint16_t*>(to) + at, x);
  } else {
    store(static_cast<float*>(to) + at, kind == InputKind::kRounded ? round_bf16(x) : x);
  }
}

// One row of results, which begins at `out`.
template <Finish F>
void finish_row(const FinishArgs& a, const float* acc, char* out) {
  const float* const bias = a.bias;
  const int64_t cols = a.cols;
  const InputKind kind = a.kind;
  for (int64_t c = 0; c < cols; c += 16) {
    F16 y = load(acc + c);
    if (bias != nullptr) y = add(y, load(bias + c));
    switch (F) {
      case Finish::kPlain: store(reinterpret_cast<float*>(out) + c, y); break;
      case Finish::kStore: store_kind(kind, out, c, y); break;
      case Finish::kGeluTanh: store_kind(kind, out, c, gelu_tanh(y)); break;
      case Finish::kGeluErf: store_kind(kind, out, c, gelu_erf(y)); break;
      case Finish::kAdd: {
        float* x = reinterpret_cast<float*>(out) + c;
        store(x, add(load(x), y));
        break;
      }
    }
  }
}

// What is added to lies in short runs far apart: it is fetched some rows ahead.
template <Finish F>
void finish_as(const FinishArgs& a) {
  constexpr int64_t kAheadRows = 6;
  const bool halves = F != Finish::kPlain && F != Finish::kAdd && a.kind == InputKind::kBf16;
  const int64_t row_bytes = a.out_stride * (halves ? 2 : 4);
  char* out = static_cast<char*>(a.out);
  for (int64_t r = 0; r < a.rows; ++r, out += row_bytes) {
    if (F == Finish::kAdd && r + kAheadRows < a.rows) {
      for (int64_t c = 0; c < a.cols; c += 16) prefetch(out + kAheadRows * row_bytes + c * 4);
    }
    finish_row<F>(a, a.acc + r * a.acc_stride, out);
  }
}

void finish_rows(const FinishArgs& a) {
  switch (a.finish) {
    case Finish::kPlain: return finish_as<Finish::kPlain>(a);
    case Finish::kStore: return finish_as<Finish::kStore>(a);
    case Finish::kGeluTanh: return finish_as<Finish::kGeluTanh>(a);
    case Finish::kGeluErf: return finish_as<Finish::kGeluErf>(a);
    case Finish::kAdd: return finish_as<Finish::kAdd>(a);
  }
}

void norm_row(const NormRowArgs& a) {
  const auto count = static_cast<float>(a.cols);
  F16 sums = zero();
  for (int64_t c = 0; c < a.cols; c += 16) {
    sums = add(sums, first_or(load(a.x + c), a.cols - c, zero()));
  }
  const F16 mean = broadcast(lane_sum(sums) / count);
  F16 squares = zero();
  for (int64_t c = 0; c < a.cols; c += 16) {
    const F16 d = first_or(sub(load(a.x + c), mean), a.cols - c, zero());
    squares = fma(d, d, squares);
  }
  const float variance = lane_sum(squares) / count;
  const F16 scale = broadcast(1.0F / __builtin_sqrtf(variance + a.epsilon));
  for (int64_t c = 0; c < a.cols; c += 16) {
    const F16 d = mul(sub(load(a.x + c), mean), scale);
    store_kind(a.kind, a.out, c, fma(d, load(a.weight + c), load(a.bias + c)));
  }
}

void store_inputs(InputKind kind, const float* from, float scale, void* to, int64_t count) {
  const F16 s = broadcast(scale);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_kind(kind, to, i, mul(load(from + i), s));
  if (i == count) return;
  const auto left = static_cast<size_t>(count - i);
  float in[16] = {};
  float out[16];
  std::memcpy(in, from + i, left * sizeof(float));
  store_kind(kind, out, 0, mul(load(in), s));
  const size_t element_bytes = kind == InputKind::kBf16 ? sizeof(uint16_t) : sizeof(float);
  std::memcpy(static_cast<char*>(to) + static_cast<size_t>(i) * element_bytes, out,
              left * element_bytes);
}

void load_inputs(InputKind kind, const void* from, float* to, int64_t count) {
  if (kind != InputKind::kBf16) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto* halves = static_cast<const uint16_t*>(from);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store(to + i, load_bf16(halves + i));
  for (; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

void softmax_rows(const SoftmaxArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* scores = a.scores + r * kSegmentKeys;
    const int64_t keys = a.first_keys + r < a.width ? a.first_keys + r : a.width;
    F16 highest = broadcast(kLowest);
    for (int64_t i = 0; i < keys; i += 16) {
      highest = max(highest, first_or(load(scores + i), keys - i, broadcast(kLowest)));
    }
    const float top = lane_max(highest);
    F16 sum = zero();
    for (int64_t i = 0; i < a.width; i += 16) {
      F16 p = zero();
      if (i < keys) {
        p = exponential(sub(load(scores + i), broadcast(top)));
        p = first_or(p, keys - i, zero());
        if (a.kind != InputKind::kExact) p = round_bf16(p);
        sum = add(sum, p);
      }
      store_kind(a.kind, a.p, r * kSegmentKeys + i, p);
    }
    a.highest[r] = top;
    a.sum[r] = lane_sum(sum);
  }
}

void fold_segment(const FoldArgs& a) {
  const float top = *a.highest > a.segment_highest ? *a.highest : a.segment_highest;
  const F16 old_scale = exponential(broadcast(*a.highest - top));
  const F16 new_scale = exponential(broadcast(a.segment_highest - top));
  *a.sum = lane(fma(broadcast(*a.sum), old_scale, mul(broadcast(a.segment_sum), new_scale)));
  *a.highest = top;
  for (int64_t i = 0; i < a.size; i += 16) {
    const F16 fresh = mul(load(a.segment_out + i), new_scale);
    store(a.out + i, fma(load(a.out + i), old_scale, fresh));
  }
}

bool has_nonfinite(const float* x, int64_t count) {
  uint32_t bad = 0;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) bad |= nan_or_infinity(load(x + i));
  for (; i < count; ++i) bad |= nan_or_infinity(broadcast(x[i]));
  return bad != 0;
}

// Up to 16 numbers of a row that may end in the middle of a vector; the others are `other`.
inline F16 load_some(const float* x, int64_t count, F16 other) {
  if (count >= 16) return load(x);
  float some[16];
  store(some, other);
  std::memcpy(some, x, static_cast<size_t>(count) * sizeof(float));
  return load(some);
}

BlockSums block_sums(const float* x, int64_t count, float temperature) {
  const F16 lowest = broadcast(-__builtin_inff());
  F16 highest = lowest;
  for (int64_t i = 0; i < count; i += 16) {
    highest = max(highest, load_some(x + i, count - i, lowest));
  }
  BlockSums out;
  out.highest = lane_max(highest);
  if (!(out.highest >= kLowest)) return out;
  const F16 top = broadcast(out.highest);
  F16 sum = zero();
  for (int64_t i = 0; i < count; i += 16) {
    sum = add(sum, exponential(sub(load_some(x + i, count - i, lowest), top)));
  }
  out.sum = lane_sum(sum);
  out.tempered = out.sum;
  if (temperature == 1.0F) return out;
  const F16 t = broadcast(temperature);
  sum = zero();
  for (int64_t i = 0; i < count; i += 16) {
    sum = add(sum, exponential(div(sub(load_some(x + i, count - i, lowest), top), t)));
  }
  out.tempered = lane_sum(sum);
  return out;
}

int64_t filter_above(const float* x, int64_t count, float above, int32_t first_id, float* to_x,
                     int32_t* to_id) {
  const F16 limit = broadcast(above);
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 16) {
    uint32_t mask = greater(load_some(x + i, count - i, broadcast(-__builtin_inff())), limit);
    for (; mask != 0; mask &= mask - 1) {
      const int64_t at = i + __builtin_ctz(mask);
      to_x[found] = x[at];
      to_id[found++] = first_id + static_cast<int32_t>(at);
    }
  }
  return found;
}

// A contiguous range line by line, as a product of one row reads its weights: one stream for each
// worker, fetched far ahead, was the fastest of many ways to read memory here.
uint64_t stream_bytes(const void* from, int64_t size_bytes) {
  const char* p = static_cast<const char*>(from);
  F16 sum[4] = {zero(), zero(), zero(), zero()};
  for (int64_t i = 0; i < size_bytes; i += 256) {
    POLYLM_UNROLL
    for (int s = 0; s < 4; ++s) {
      prefetch_l2(p + i + s * 64 + kFarBytes);
      sum[s] = max(sum[s], load(reinterpret_cast<const float*>(p + i + s * 64)));
    }
  }
  const float out = lane_max(max(max(sum[0], sum[1]), max(sum[2], sum[3])));
  uint32_t bits;
  std::memcpy(&bits, &out, sizeof bits);
  return bits;
}

// Multiply-adds on registers alone: what the products could reach if memory were free.
double busy_fma(int64_t rounds) {
  F16 acc[kBusyChains];
  for (auto& x : acc) x = zero();
  volatile float seed = 1e-9F;
  const F16 b = broadcast(seed);
  for (int64_t i = 0; i < rounds; ++i) {
    POLYLM_UNROLL
    for (int c = 0; c < kBusyChains; ++c) acc[c] = fma(b, b, acc[c]);
  }
  F16 sum = acc[0];
  for (int c = 1; c < kBusyChains; ++c) sum = add(sum, acc[c]);
  seed = lane_sum(sum);
  return static_cast<double>(rounds) * kBusyChains * 32.0;
}

// Everything but the names and the products.
KernelTable common_kernels() {
  KernelTable t;
  t.finish = finish_rows;
  t.norm = norm_row;
  t.store_inputs = store_inputs;
  t.load_inputs = load_inputs;
  t.softmax = softmax_rows;
  t.fold = fold_segment;
  t.has_nonfinite = has_nonfinite;
  t.block_sums = block_sums;
  t.filter = filter_above;
  t.stream = stream_bytes;
  t.busy = busy_fma;
  return t;
}

// The whole table where products are multiply-adds; the registers hold Rows by Tiles columns.
template <int Rows, int Tiles>
KernelTable fma_kernels(const char* name) {
  KernelTable t = common_kernels();
  t.name = name;
  t.product_mixed = product<MixedKind, Rows, Tiles>;
  t.product_fp32 = product<Fp32Kind, Rows, Tiles>;
  t.row_scores_mixed = row_scores<MixedKind>;
  t.row_scores_fp32 = row_scores<Fp32Kind>;
  t.row_sums_mixed = row_sums<MixedKind>;
  t.row_sums_fp32 = row_sums<Fp32Kind>;
  return t;
}

}  // namespace
}  // namespace polylm
