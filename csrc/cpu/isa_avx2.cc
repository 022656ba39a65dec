// isa_avx2.cc: kernels for AVX2 and FMA. No STL in here.
// Trap: the order of the includes: lanes, products, kernels.
#include "cpu/isa_lanes_avx2.h"

#include "cpu/isa_product.h"

#include "cpu/isa_kernels.h"

namespace polylm {
namespace {

inline constexpr int kRows = 6;  // rows and columns of tiles that the registers hold
inline constexpr int kTiles = 1;

KernelTable make_table() { return fma_kernels<kRows, kTiles>("avx2"); }

}  // namespace

const KernelTable& avx2_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
