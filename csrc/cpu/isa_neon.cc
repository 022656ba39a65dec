// isa_neon.cc: kernels for 64-bit ARM, which always has NEON and fused multiply-add. No STL here.
// Trap: the order of the includes: lanes, products, kernels.
#include "cpu/isa_lanes_neon.h"

#include "cpu/isa_product.h"

#include "cpu/isa_kernels.h"

namespace polylm {
namespace {

inline constexpr int kRows = 5;  // 20 of the 32 registers, beside 4 of weights
inline constexpr int kTiles = 1;

KernelTable make_table() {
  KernelTable t = common_kernels();
  t.name = "neon";
  t.product_mixed = product<MixedKind, kRows, kTiles>;
  t.product_fp32 = product<Fp32Kind, kRows, kTiles>;
  t.row_scores_mixed = row_scores<MixedKind>;
  t.row_scores_fp32 = row_scores<Fp32Kind>;
  t.row_sums_mixed = row_sums<MixedKind>;
  t.row_sums_fp32 = row_sums<Fp32Kind>;
  return t;
}

}  // namespace

const KernelTable& neon_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
