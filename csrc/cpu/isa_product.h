// isa_product.h: the one shape of all products: R rows times T columns of tiles in registers, k
// ascending, sums over 512 k first. Included by isa_*.cc after their F16; a Kind says how one tile
// is multiplied. Trap: nothing here may make an output's additions depend on R, T or its place.
#pragma once

#include "cpu/kernels.h"

#if defined(__clang__)
#define POLYLM_UNROLL _Pragma("unroll")
#else
#define POLYLM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace polylm {
namespace {

// How far ahead of its use a line is fetched: into L2, which may wait for many lines at once, and
// from there into L1.
inline constexpr int64_t kFarBytes = 16384;
inline constexpr int64_t kNearBytes = 2048;

// What is prefetched as a line is used: nothing, or one line into L1 and one into L2.
enum class Prefetch { kNone, kBoth };

// One tile column step for T streams: where they are and where they will be.
struct TileLines {
  const char* w;             // the tile of stream 0
  int64_t stride_bytes;      // between streams
  int64_t near_bytes = 0;    // from a line to the one to prefetch into L1
  int64_t far_bytes = 0;     // and into L2
};

template <Prefetch Fetch>
inline void fetch_ahead(const char* line, const TileLines& l) {
  if (Fetch == Prefetch::kNone) return;
  prefetch(line + l.near_bytes);
  prefetch_l2(line + l.far_bytes);
}

// Tile k of T columns that are streamed. Past the end of its column a stream goes on in the column
// T further on: the caller's next call starts there.
template <int T>
inline TileLines stream_lines(const char* w, int64_t stride_bytes, int64_t k, int64_t k_tiles,
                              int64_t tile_bytes) {
  const int64_t left = (k_tiles - k) * tile_bytes;
  const int64_t jump = (T - 1) * stride_bytes;
  return {w + k * tile_bytes, stride_bytes, kNearBytes + (kNearBytes >= left ? jump : 0),
          kFarBytes + (kFarBytes >= left ? jump : 0)};
}

// Where R rows of x are: a pointer for every third row, the two after it a stride further each,
// which is an addressing mode. The compiler would keep R pointers and run out of registers; the
// empty asm hides from it how they follow from each other.
template <class X, int R>
class RowPointers {
 public:
  RowPointers(const X* x, int64_t stride) : stride_(stride) {
    POLYLM_UNROLL
    for (int i = 0; i < kThirds; ++i) {
      at_[i] = x + 3 * i * stride;
      asm("" : "+r"(at_[i]));
    }
  }
  const X* row(int r) const { return at_[r / 3] + r % 3 * stride_; }
  void advance(int64_t count) {
    POLYLM_UNROLL
    for (int i = 0; i < kThirds; ++i) at_[i] += count;
  }

 private:
  static constexpr int kThirds = (R + 2) / 3;
  const X* at_[kThirds];
  int64_t stride_;
};

// fp32 x, bf16 tiles: even k, then odd k, of each line.
struct MixedKind {
  using X = float;
  static constexpr int64_t kTileBytes = kTileBytesBf16;

  template <int R, int T, Prefetch Fetch>
  static inline void tile(const float* x, int64_t x_stride, const TileLines& l, F16 (&acc)[R][T]) {
    RowPointers<float, R> rows(x, x_stride);
    for (int64_t p = 0; p < 16; ++p, rows.advance(2)) {
      const char* line = l.w + p * 64;
      F16 even[T];
      POLYLM_UNROLL
      for (int t = 0; t < T; ++t) {
        fetch_ahead<Fetch>(line + t * l.stride_bytes, l);
        even[t] = low_halves(line + t * l.stride_bytes);
      }
      POLYLM_UNROLL
      for (int r = 0; r < R; ++r) {
        const F16 xr = broadcast(rows.row(r)[0]);
        POLYLM_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = fma(even[t], xr, acc[r][t]);
      }
      F16 odd[T];
      POLYLM_UNROLL
      for (int t = 0; t < T; ++t) odd[t] = high_halves(line + t * l.stride_bytes);
      POLYLM_UNROLL
      for (int r = 0; r < R; ++r) {
        const F16 xr = broadcast(rows.row(r)[1]);
        POLYLM_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = fma(odd[t], xr, acc[r][t]);
      }
    }
  }
};

// fp32 x, fp32 tiles.
struct Fp32Kind {
  using X = float;
  static constexpr int64_t kTileBytes = kTileBytesFp32;

  template <int R, int T, Prefetch Fetch>
  static inline void tile(const float* x, int64_t x_stride, const TileLines& l, F16 (&acc)[R][T]) {
    RowPointers<float, R> rows(x, x_stride);
    for (int64_t k = 0; k < kTileK; ++k, rows.advance(1)) {
      const char* line = l.w + k * 64;
      F16 w[T];
      POLYLM_UNROLL
      for (int t = 0; t < T; ++t) {
        fetch_ahead<Fetch>(line + t * l.stride_bytes, l);
        w[t] = load(reinterpret_cast<const float*>(line + t * l.stride_bytes));
      }
      POLYLM_UNROLL
      for (int r = 0; r < R; ++r) {
        const F16 xr = broadcast(*rows.row(r));
        POLYLM_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = fma(w[t], xr, acc[r][t]);
      }
    }
  }
};

// A part of a product: at most MaxRows rows, T columns of tiles, 512 k.
struct Part {
  int64_t row, rows;
  int64_t tile;
  int64_t first, end;  // tiles of k
};

template <class Kind, int R, int T, Prefetch Fetch>
void part_product(const ProductArgs& a, const Part& part) {
  const auto* x = static_cast<const typename Kind::X*>(a.x) + part.row * a.x_stride;
  const char* w = static_cast<const char*>(a.w) + part.tile * a.w_stride_bytes;
  float* out = a.out + part.row * a.out_stride + part.tile * kTileN;
  F16 acc[R][T];
  POLYLM_UNROLL
  for (int r = 0; r < R; ++r) {
    POLYLM_UNROLL
    for (int t = 0; t < T; ++t) {
      acc[r][t] = a.continued ? load(out + r * a.out_stride + t * kTileN) : zero();
    }
  }
  for (int64_t k = part.first; k < part.end; ++k) {
    const TileLines lines = stream_lines<T>(w, a.w_stride_bytes, k, a.k_tiles, Kind::kTileBytes);
    Kind::template tile<R, T, Fetch>(x + k * kTileK, a.x_stride, lines, acc);
  }
  POLYLM_UNROLL
  for (int r = 0; r < R; ++r) {
    POLYLM_UNROLL
    for (int t = 0; t < T; ++t) {
      float* to = out + r * a.out_stride + t * kTileN;
      store(to, part.first == 0 ? acc[r][t] : add(load(to), acc[r][t]));
    }
  }
}

// part.rows <= MaxRows rows as one block.
template <class Kind, int MaxRows, int T, Prefetch Fetch>
void rows_product(const ProductArgs& a, const Part& part) {
  if constexpr (MaxRows > 1) {
    if (part.rows < MaxRows) {
      rows_product<Kind, MaxRows - 1, T, Fetch>(a, part);
      return;
    }
  }
  part_product<Kind, MaxRows, T, Fetch>(a, part);
}

// All rows, columns of tiles from `tile` on in groups of T, then of T / 2. 512 k of T columns stay
// in cache while all rows pass.
template <class Kind, int MaxRows, int T>
void columns_product(const ProductArgs& a, int64_t tile) {
  for (; tile + T <= a.n_tiles; tile += T) {
    for (int64_t first = 0; first < a.k_tiles; first += kPartialTiles) {
      const int64_t end = first + kPartialTiles < a.k_tiles ? first + kPartialTiles : a.k_tiles;
      for (int64_t row = 0; row < a.rows; row += MaxRows) {
        const Part part = {row, a.rows - row < MaxRows ? a.rows - row : MaxRows, tile, first, end};
        if (a.streamed && row == 0) {
          rows_product<Kind, MaxRows, T, Prefetch::kBoth>(a, part);
        } else {
          rows_product<Kind, MaxRows, T, Prefetch::kNone>(a, part);
        }
      }
    }
  }
  if constexpr (T > 1) {
    if (tile < a.n_tiles) columns_product<Kind, MaxRows, T / 2>(a, tile);
  }
}

template <class Kind, int MaxRows, int MaxTiles>
void product(const ProductArgs& a) {
  columns_product<Kind, MaxRows, MaxTiles>(a, 0);
}

// ------------------------------------------------------- one row against a list of matrices

// Matrix i of a list: as it is used, the next one goes into L1 and the one after that into L2.
inline TileLines list_lines(const RowListArgs& a, int64_t i) {
  return {a.w[i], 0, a.w[i + 1] - a.w[i], a.w[i + 2] - a.w[i]};
}

template <class Kind>
void row_scores(const RowListArgs& a) {
  const auto* x = static_cast<const typename Kind::X*>(a.x);
  const int64_t column_bytes = a.k_tiles * Kind::kTileBytes;
  float* out = a.out;
  for (int64_t i = 0; i < a.count; ++i) {
    TileLines lines = list_lines(a, i);
    lines.stride_bytes = column_bytes;
    const char* w = a.w[i];
    for (int64_t n = 0; n < a.n_tiles; n += 2, w += 2 * column_bytes, out += 2 * kTileN) {
      F16 acc[1][2] = {{zero(), zero()}};
      for (int64_t k = 0; k < a.k_tiles; ++k) {
        lines.w = w + k * Kind::kTileBytes;
        Kind::template tile<1, 2, Prefetch::kBoth>(x + k * kTileK, 0, lines, acc);
      }
      store(out, acc[0][0]);
      store(out + kTileN, acc[0][1]);
    }
  }
}

// Columns of tiles [tile, tile + T) of every matrix of the list.
template <class Kind, int T>
void row_sums_of(const RowListArgs& a, int64_t tile) {
  const auto* x = static_cast<const typename Kind::X*>(a.x);
  F16 acc[1][T];
  for (auto& sum : acc[0]) sum = zero();
  for (int64_t i = 0; i < a.count; ++i) {
    TileLines lines = list_lines(a, i);
    lines.w += tile * Kind::kTileBytes;
    lines.stride_bytes = Kind::kTileBytes;
    Kind::template tile<1, T, Prefetch::kBoth>(x + i * kTileK, 0, lines, acc);
  }
  for (int t = 0; t < T; ++t) store(a.out + (tile + t) * kTileN, acc[0][t]);
}

template <class Kind>
void row_sums(const RowListArgs& a) {
  int64_t tile = 0;
  for (; tile + 4 <= a.n_tiles; tile += 4) row_sums_of<Kind, 4>(a, tile);
  for (; tile < a.n_tiles; tile += 2) row_sums_of<Kind, 2>(a, tile);
}

}  // namespace
}  // namespace polylm
