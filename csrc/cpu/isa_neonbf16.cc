// isa_neonbf16.cc: products of bf16 by bf16 with BFDOT; the rest comes from isa_neon.cc. The
// instruction rounds each pair of products and its sum to odd, denormals as zero: other bits than
// a fused multiply-add, so it serves all numbers of rows or none.
#include "cpu/isa_lanes_neon.h"

#include "cpu/isa_product.h"

namespace polylm {
namespace {

struct Pairs {
  bfloat16x8_t v[4];
};

inline Pairs load_pairs(const void* line) {
  Pairs o;
  for (int i = 0; i < 4; ++i) o.v[i] = vreinterpretq_bf16_u32(line_quarter(line, i));
  return o;
}
inline Pairs broadcast_pair(int32_t pair) {
  Pairs o;
  for (auto& v : o.v) v = vreinterpretq_bf16_s32(vdupq_n_s32(pair));
  return o;
}
inline F16 dot(const F16& sum, const Pairs& a, const Pairs& b) {
  F16 o;
  for (int i = 0; i < 4; ++i) o.v[i] = vbfdotq_f32(sum.v[i], a.v[i], b.v[i]);
  return o;
}

}  // namespace
}  // namespace polylm

#include "cpu/isa_dot.h"

namespace polylm {
namespace {

inline constexpr int kRows = 5;  // 20 of the 32 registers, beside 4 of weights
inline constexpr int kTiles = 1;

KernelTable make_table() { return dot_kernels<kRows, kTiles>("neonbf16"); }

}  // namespace

const KernelTable& neonbf16_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
