// isa_dot.h: products for instructions that multiply pairs of bf16 and add both to one fp32 lane.
// Included by isa_*.cc after isa_product.h and their own Pairs (16 lanes of two bf16), load_pairs,
// broadcast_pair and dot(sum, a, b).
#pragma once

#include "cpu/isa_product.h"

namespace polylm {
namespace {

struct DotKind {
  using X = uint16_t;
  static constexpr int64_t kTileBytes = kTileBytesBf16;

  template <int R, int T, Prefetch Fetch>
  static inline void tile(const uint16_t* x, int64_t x_stride, const TileLines& l,
                          F16 (&acc)[R][T]) {
    RowPointers<uint16_t, R> rows(x, x_stride);
    for (int64_t p = 0; p < 16; ++p, rows.advance(2)) {
      const char* line = l.w + p * 64;
      Pairs w[T];
      POLYLM_UNROLL
      for (int t = 0; t < T; ++t) {
        fetch_ahead<Fetch>(line + t * l.stride_bytes, l);
        w[t] = load_pairs(line + t * l.stride_bytes);
      }
      POLYLM_UNROLL
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, rows.row(r), sizeof pair);
        const Pairs xr = broadcast_pair(pair);
        POLYLM_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = dot(acc[r][t], w[t], xr);
      }
    }
  }
};

double busy_dot(int64_t rounds) {
  constexpr int kChains = 12;
  F16 acc[kChains];
  for (auto& x : acc) x = zero();
  volatile int32_t seed = 0x30003000;
  const Pairs b = broadcast_pair(seed);
  for (int64_t i = 0; i < rounds; ++i) {
    POLYLM_UNROLL
    for (int c = 0; c < kChains; ++c) acc[c] = dot(acc[c], b, b);
  }
  F16 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = add(sum, acc[c]);
  seed = static_cast<int32_t>(lane_sum(sum));
  return static_cast<double>(rounds) * kChains * 64.0;
}

template <int MaxRows, int MaxTiles>
KernelTable dot_kernels(const char* name) {
  KernelTable t;
  t.name = name;
  t.product_bf16 = product<DotKind, MaxRows, MaxTiles>;
  t.row_scores_bf16 = row_scores<DotKind>;
  t.row_sums_bf16 = row_sums<DotKind>;
  t.busy = busy_dot;
  return t;
}

}  // namespace
}  // namespace polylm
