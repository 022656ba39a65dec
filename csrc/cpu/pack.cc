// pack.cc: strided pieces into tiles and rows out of them. See pack.h.
#include "cpu/pack.h"

#include <algorithm>
#include <cstring>

#include "platform/bf16.h"
#include "platform/checked.h"

namespace polylm {
namespace {

// Where k of a lane lies inside its column of tiles, in elements.
constexpr int64_t place(bf16, int64_t lane, int64_t k) { return k / 2 * 32 + lane * 2 + k % 2; }
constexpr int64_t place(float, int64_t lane, int64_t k) { return k * kTileN + lane; }

// A part of a piece and of the matrix: n [n0, n1), k [k0, k1), at most two columns of tiles.
struct Part {
  int64_t n0, n1, k0, k1;
};

template <class T>
T* column_of(PackedMatrix* m, int64_t n) {
  return reinterpret_cast<T*>(m->buffer.as<char>() + n / kTileN * m->column_bytes);
}

// Pairs of k as numbers of 32 bits, four at a time.
using Pairs = uint32_t __attribute__((vector_size(16)));

inline Pairs load_pairs(const uint16_t* from) {
  Pairs p;
  std::memcpy(&p, from, sizeof p);
  return p;
}

// To memory past the caches, which is worth it for whole lines: nothing reads the weights soon, and
// a line that is only written need not be read first.
inline void stream_pairs(uint16_t* to, Pairs p) {
#if defined(__x86_64__)
  asm volatile("movntdq %1, %0" : "=m"(*reinterpret_cast<Pairs*>(to)) : "x"(p));
#else
  std::memcpy(to, &p, sizeof p);
#endif
}

// What was streamed is seen before anything that this thread does next.
inline void finish_streams() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

// A whole tile of rows [N, K]: what is a row there is a lane here, so pairs are transposed.
void pack_rows(const uint16_t* from, int64_t stride, uint16_t* tile) {
  for (int64_t lane = 0; lane < kTileN; lane += 4, from += 4 * stride) {
    for (int64_t k = 0; k < kTileK; k += 8) {
      const Pairs a = load_pairs(from + k);
      const Pairs b = load_pairs(from + stride + k);
      const Pairs c = load_pairs(from + 2 * stride + k);
      const Pairs d = load_pairs(from + 3 * stride + k);
      const Pairs ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Pairs cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Pairs ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Pairs cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const Pairs out[4] = {__builtin_shufflevector(ab, cd, 0, 1, 4, 5),
                            __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                            __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                            __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
      uint16_t* to = tile + place(bf16{}, lane, k);
      for (const Pairs& line : out) {
        std::memcpy(to, &line, sizeof line);
        to += 2 * kTileN;
      }
    }
  }
}

// `tiles` whole tiles, next_tile apart, of [K, N]: two rows are interleaved. Two tiles at once use
// whole lines of the cache: rows that lie a power of two apart push each other out of L1 before the
// second tile comes.
void pack_columns(const uint16_t* from, int64_t stride, int64_t tiles, int64_t next_tile,
                  uint16_t* tile) {
  using Eight = uint16_t __attribute__((vector_size(16)));
  for (int64_t k = 0; k < kTileK; k += 2) {
    const uint16_t* even = from + k * stride;
    for (int64_t t = 0; t < tiles; ++t) {
      uint16_t* line = tile + t * next_tile + place(bf16{}, 0, k);
      for (int64_t half = 0; half < 2; ++half, even += 8, line += 16) {
        const auto e = reinterpret_cast<Eight>(load_pairs(even));
        const auto o = reinterpret_cast<Eight>(load_pairs(even + stride));
        const Eight low = __builtin_shufflevector(e, o, 0, 8, 1, 9, 2, 10, 3, 11);
        const Eight high = __builtin_shufflevector(e, o, 4, 12, 5, 13, 6, 14, 7, 15);
        stream_pairs(line, reinterpret_cast<Pairs>(low));
        stream_pairs(line + 8, reinterpret_cast<Pairs>(high));
      }
    }
  }
}

// Any part, any strides.
template <class T>
void pack_part(const T* from, const WeightPiece& p, const Part& part, PackedMatrix* m) {
  for (int64_t n0 = part.n0, n1 = n0; n0 < part.n1; n0 = n1) {
    n1 = std::min(part.n1, (n0 / kTileN + 1) * kTileN);
    T* column = column_of<T>(m, n0);
    const T* first = from + (n0 - part.n0) * p.stride_n;
    for (int64_t k = part.k0; k < part.k1; ++k, first += p.stride_k) {
      T* to = column + place(T{}, n0 % kTileN, k);
      for (int64_t i = 0; i < n1 - n0; ++i) to[place(T{}, i, 0)] = first[i * p.stride_n];
    }
  }
}

void pack_bf16(const uint16_t* from, const WeightPiece& p, const Part& part, PackedMatrix* m) {
  const int64_t lanes = part.n1 - part.n0;
  const bool whole = part.n0 % kTileN == 0 && lanes % kTileN == 0 && part.k0 % kTileK == 0 &&
                     part.k1 - part.k0 == kTileK;
  uint16_t* tile = column_of<uint16_t>(m, part.n0) + place(bf16{}, 0, part.k0);
  if (whole && p.stride_n == 1) {
    pack_columns(from, p.stride_k, lanes / kTileN, m->column_bytes / 2, tile);
  } else if (whole && p.stride_k == 1 && lanes == kTileN) {
    pack_rows(from, p.stride_n, tile);
  } else {
    pack_part(from, p, part, m);
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
  const int64_t step = piece.stride_n == 1 ? 2 * kTileN : kTileN;
  Part part = {};
  for (part.n0 = piece.n0; part.n0 < n_end; part.n0 = part.n1) {
    part.n1 = std::min(n_end, (part.n0 / kTileN * kTileN) + step);
    for (part.k0 = piece.k0; part.k0 < k_end; part.k0 = part.k1) {
      part.k1 = std::min(k_end, (part.k0 / kTileK + 1) * kTileK);
      const int64_t from = (part.n0 - piece.n0) * piece.stride_n +
                           (part.k0 - piece.k0) * piece.stride_k;
      if (m->format == WeightFormat::kBf16) {
        pack_bf16(piece.bf16_data + from, piece, part, m);
      } else {
        pack_part(piece.fp32_data + from, piece, part, m);
      }
    }
  }
  finish_streams();
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
