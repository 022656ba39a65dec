// pack.cc: strided pieces into tiles and rows out of them. See pack.h.
#include "cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "platform/bf16.h"
#include "platform/checked.h"

namespace polylm {
namespace {

// Where k of lane n lies inside its tile, in elements.
constexpr int64_t bf16_place(int64_t lane, int64_t k) { return (k / 2) * 32 + lane * 2 + k % 2; }
constexpr int64_t fp32_place(int64_t lane, int64_t k) { return k * 16 + lane; }

// A piece inside one tile: n lanes [lane0, lane1), k [k0, k1) of the tile.
struct TilePiece {
  int64_t lane0, lane1, k0, k1;
  int64_t stride_n, stride_k;
};

void pack_bf16_tile(const TilePiece& t, const uint16_t* from, uint16_t* tile) {
  const bool pairs = t.k0 % 2 == 0 && t.k1 % 2 == 0;
  if (pairs && t.stride_k == 1) {  // [N,K] row-major: pairs of k are neighbours in both
    for (int64_t lane = t.lane0; lane < t.lane1; ++lane) {
      const uint16_t* row = from + (lane - t.lane0) * t.stride_n - t.k0;
      for (int64_t k = t.k0; k < t.k1; k += 2) {
        std::memcpy(tile + bf16_place(lane, k), row + k, 2 * sizeof(uint16_t));
      }
    }
    return;
  }
  if (pairs && t.stride_n == 1) {  // [K,N] row-major: interleave two rows of 16
    const int64_t lanes = t.lane1 - t.lane0;
    for (int64_t k = t.k0; k < t.k1; k += 2) {
      const uint16_t* even = from + (k - t.k0) * t.stride_k;
      const uint16_t* odd = even + t.stride_k;
      uint16_t* line = tile + bf16_place(t.lane0, k);
      if (lanes == kTileN) {  // a count that the compiler knows
        for (int64_t lane = 0; lane < kTileN; ++lane) {
          line[2 * lane] = even[lane];
          line[2 * lane + 1] = odd[lane];
        }
        continue;
      }
      for (int64_t lane = 0; lane < lanes; ++lane) {
        line[2 * lane] = even[lane];
        line[2 * lane + 1] = odd[lane];
      }
    }
    return;
  }
  for (int64_t lane = t.lane0; lane < t.lane1; ++lane) {
    for (int64_t k = t.k0; k < t.k1; ++k) {
      tile[bf16_place(lane, k)] = from[(lane - t.lane0) * t.stride_n + (k - t.k0) * t.stride_k];
    }
  }
}

void pack_fp32_tile(const TilePiece& t, const float* from, float* tile) {
  for (int64_t k = t.k0; k < t.k1; ++k) {
    for (int64_t lane = t.lane0; lane < t.lane1; ++lane) {
      tile[fp32_place(lane, k)] = from[(lane - t.lane0) * t.stride_n + (k - t.k0) * t.stride_k];
    }
  }
}

}  // namespace

PackedMatrix make_packed(int64_t n, int64_t k, WeightFormat format) {
  PackedMatrix m;
  m.n = n;
  m.k = k;
  m.n_tiles = ceil_div(n, kTileN);
  m.k_tiles = ceil_div(k, kTileK);
  m.format = format;
  const int64_t tile = format == WeightFormat::kBf16 ? kTileBytesBf16 : kTileBytesFp32;
  m.column_bytes = checked_mul(m.k_tiles, tile);
  m.buffer = Buffer(checked_mul(m.n_tiles, m.column_bytes), "weights");
  return m;
}

void pack_piece(const WeightPiece& piece, PackedMatrix* m) {
  const int64_t n_end = piece.n0 + piece.n_count;
  const int64_t k_end = piece.k0 + piece.k_count;
  for (int64_t nt = piece.n0 / kTileN; nt * kTileN < n_end; ++nt) {
    const int64_t n_first = std::max(piece.n0, nt * kTileN);
    const int64_t n_last = std::min(n_end, (nt + 1) * kTileN);
    for (int64_t kt = piece.k0 / kTileK; kt * kTileK < k_end; ++kt) {
      const int64_t k_first = std::max(piece.k0, kt * kTileK);
      const int64_t k_last = std::min(k_end, (kt + 1) * kTileK);
      const TilePiece t = {n_first - nt * kTileN, n_last - nt * kTileN, k_first - kt * kTileK,
                           k_last - kt * kTileK, piece.stride_n, piece.stride_k};
      const int64_t from = (n_first - piece.n0) * piece.stride_n +
                           (k_first - piece.k0) * piece.stride_k;
      const int64_t tile = (nt * m->k_tiles + kt) * kTileN * kTileK;
      if (m->format == WeightFormat::kBf16) {
        pack_bf16_tile(t, piece.bf16_data + from, m->buffer.as<uint16_t>() + tile);
      } else {
        pack_fp32_tile(t, piece.fp32_data + from, m->buffer.as<float>() + tile);
      }
    }
  }
}

void unpack_row(const PackedMatrix& m, int64_t n, float* out) {
  std::fill_n(out, m.k, 0.0F);
  add_row(m, n, out);
}

void add_row(const PackedMatrix& m, int64_t n, float* out) {
  const int64_t lane = n % kTileN;
  const char* column = m.column(n / kTileN);
  if (m.format == WeightFormat::kFp32) {
    const auto* from = reinterpret_cast<const float*>(column) + lane;
    for (int64_t k = 0; k < m.k; ++k) out[k] += from[k * kTileN];
    return;
  }
  const auto* from = reinterpret_cast<const uint16_t*>(column) + 2 * lane;
  int64_t k = 0;
  for (; k + 2 <= m.k; k += 2) {  // a pair of k every line of 64 bytes, across tiles too
    out[k] += bf16_to_float(from[k * 16]);
    out[k + 1] += bf16_to_float(from[k * 16 + 1]);
  }
  if (k < m.k) out[k] += bf16_to_float(from[k * 16]);
}

}  // namespace polylm
