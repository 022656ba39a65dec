// isa_neon.cc: kernels for 64-bit ARM, which always has NEON and fused multiply-add. No STL here.
// Trap: the order of the includes: lanes, products, kernels.
#include "cpu/isa_lanes_neon.h"

#include "cpu/isa_product.h"

#include "cpu/isa_kernels.h"

namespace polylm {
namespace {

inline constexpr int kRows = 5;  // 20 of the 32 registers, beside 4 of weights
inline constexpr int kTiles = 1;

KernelTable make_table() { return fma_kernels<kRows, kTiles>("neon"); }

}  // namespace

const KernelTable& neon_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
