// isa_scalar.cc: kernels for every machine: the table that all others fall back to. No STL in here.
// Trap: the order of the includes: lanes, products, kernels.
#include "cpu/isa_lanes_scalar.h"

#include "cpu/isa_product.h"

#include "cpu/isa_kernels.h"

namespace polylm {
namespace {

inline constexpr int kRows = 2;   // rows and columns of tiles that the registers hold
inline constexpr int kTiles = 1;

KernelTable make_table() { return fma_kernels<kRows, kTiles>("scalar"); }

}  // namespace

const KernelTable& scalar_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
