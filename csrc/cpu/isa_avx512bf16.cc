// isa_avx512bf16.cc: products of bf16 by bf16 with vdpbf16ps; the rest comes from isa_avx512.cc.
// The instruction adds the odd product, then the even one, each rounded to fp32, denormals as zero:
// other bits than a fused multiply-add, so it serves all numbers of rows or none.
#include "cpu/isa_lanes_avx512.h"

#include "cpu/isa_product.h"

namespace polylm {
namespace {

inline constexpr int kRows = 12;  // rows and columns of tiles that the registers hold
inline constexpr int kTiles = 2;

struct DotKind {
  using X = uint16_t;
  static constexpr int64_t kTileBytes = kTileBytesBf16;

  template <int R, int T, Prefetch Fetch>
  static inline void tile(const uint16_t* x, int64_t x_stride, const TileLines& l,
                          F16 (&acc)[R][T]) {
    RowPointers<uint16_t, R> rows(x, x_stride);
    for (int64_t p = 0; p < 16; ++p, rows.advance(2)) {
      const char* line = l.w + p * 64;
      __m512bh w[T];
      POLYLM_UNROLL
      for (int t = 0; t < T; ++t) {
        fetch_ahead<Fetch>(line + t * l.stride_bytes, l);
        w[t] = (__m512bh)_mm512_loadu_si512(line + t * l.stride_bytes);
      }
      POLYLM_UNROLL
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, rows.row(r), sizeof pair);
        const auto xr = (__m512bh)_mm512_set1_epi32(pair);
        POLYLM_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = _mm512_dpbf16_ps(acc[r][t], w[t], xr);
      }
    }
  }
};

double busy_dot(int64_t rounds) {
  constexpr int kChains = 12;
  F16 acc[kChains];
  for (auto& x : acc) x = zero();
  volatile int seed = 0x30003000;
  const auto b = (__m512bh)_mm512_set1_epi32(seed);
  for (int64_t i = 0; i < rounds; ++i) {
    POLYLM_UNROLL
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbf16_ps(acc[c], b, b);
  }
  F16 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = add(sum, acc[c]);
  seed = static_cast<int>(lane_sum(sum));
  return static_cast<double>(rounds) * kChains * 64.0;
}

KernelTable make_table() {
  KernelTable t;
  t.name = "avx512bf16";
  t.product_bf16 = product<DotKind, kRows, kTiles>;
  t.row_scores_bf16 = row_scores<DotKind>;
  t.row_sums_bf16 = row_sums<DotKind>;
  t.busy = busy_dot;
  return t;
}

}  // namespace

const KernelTable& avx512bf16_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
