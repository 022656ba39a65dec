// isa_avx512bf16.cc: products of bf16 by bf16 with vdpbf16ps; the rest comes from isa_avx512.cc.
// The instruction adds the odd product, then the even one, each rounded to fp32, denormals as zero:
// other bits than a fused multiply-add, so it serves all numbers of rows or none.
#include "cpu/isa_lanes_avx512.h"

#include "cpu/isa_product.h"

namespace polylm {
namespace {

using Pairs = __m512bh;

inline Pairs load_pairs(const void* line) { return (__m512bh)_mm512_loadu_si512(line); }
inline Pairs broadcast_pair(int32_t pair) { return (__m512bh)_mm512_set1_epi32(pair); }
inline F16 dot(F16 sum, Pairs a, Pairs b) { return _mm512_dpbf16_ps(sum, a, b); }

}  // namespace
}  // namespace polylm

#include "cpu/isa_dot.h"

namespace polylm {
namespace {

inline constexpr int kRows = 12;  // rows and columns of tiles that the registers hold
inline constexpr int kTiles = 2;

KernelTable make_table() { return dot_kernels<kRows, kTiles>("avx512bf16"); }

}  // namespace

const KernelTable& avx512bf16_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
