// isa_avx512.cc: kernels for AVX-512 (F, BW, VL, DQ) and FMA. No STL in here.
// Trap: the order of the includes: lanes, products, kernels.
#include "cpu/isa_lanes_avx512.h"

#include "cpu/isa_product.h"

#include "cpu/isa_kernels.h"

namespace polylm {
namespace {

inline constexpr int kRows = 12;  // rows and columns of tiles that the registers hold
inline constexpr int kTiles = 2;

KernelTable make_table() { return fma_kernels<kRows, kTiles>("avx512"); }

}  // namespace

const KernelTable& avx512_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
