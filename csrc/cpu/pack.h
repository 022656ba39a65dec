// pack.h: matrices in the packed layout of kernels.h, and the way in and out of it. Scalar code: it
// runs at load time, or gathers single rows. Trap: pieces may be packed by several threads at once,
// at any n0 and k0; they only have to be disjoint.
#pragma once

#include "cpu/kernels.h"
#include "ops/shapes.h"
#include "platform/buffer.h"

namespace polylm {

struct PackedMatrix {
  int64_t n = 0;
  int64_t k = 0;
  int64_t n_tiles = 0;
  int64_t k_tiles = 0;
  WeightFormat format = WeightFormat::kBf16;
  int64_t column_bytes = 0;  // of one column of tiles: all k of 16 n
  Buffer buffer;             // [n_tiles][k_tiles] tiles

  const char* column(int64_t tile) const { return buffer.as<char>() + tile * column_bytes; }
};

PackedMatrix make_packed(int64_t n, int64_t k, WeightFormat format);
void pack_piece(const WeightPiece& piece, PackedMatrix* m);
// out[k] = row n as fp32.
void unpack_row(const PackedMatrix& m, int64_t n, float* out);
// out[i] += row n, for wpe.
void add_row(const PackedMatrix& m, int64_t n, float* out);

}  // namespace polylm
