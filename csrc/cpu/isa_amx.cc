// isa_amx.cc: products of bf16 by bf16 on the AMX tile unit; everything else comes from
// isa_avx512.cc. Packed weights are AMX's own B tiles, so nothing is rearranged.
// A single row takes the tile unit too: reading memory as one stream, fetched ahead into both
// caches, is what counts there, and the tile unit leaves the core the most room for it; so all
// numbers of rows have the same bits by construction. Trap: GCC 12 declares _tile_loadconfig's
// operand as one byte and gives the tile loads no memory clobber; the instructions are therefore
// wrapped here by hand.
#include "cpu/isa_lanes_avx512.h"

#include "cpu/isa_product.h"
#include "platform/thread_storage.h"

namespace polylm {
namespace {

inline constexpr int64_t kTileRows = 16;
// Rows by k tiles of x that stay in the L2 cache while columns of tiles pass by: 1 MB of 2, or half
// of that where the next k tiles of x come in meanwhile.
inline constexpr int64_t kCutRows = 256;
inline constexpr int64_t kCutWhole = 64;
inline constexpr int64_t kCutDepth = 32;
inline constexpr int64_t kCutTiles = 8;
inline constexpr int64_t kCutStrip = 16;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// What this thread's tile unit is set up for, 0 for nothing: setting it up takes as long as a dozen
// tiles, and attention multiplies few at a time.
int64_t& set_up() { return thread_storage().tile_set_up; }

inline void load_config(const TileConfig& config) {
  asm volatile("ldtilecfg %0" ::"m"(config));
}
void release() {
  int64_t& set_up_for = set_up();
  if (set_up_for == 0) return;
  asm volatile("tilerelease");
  set_up_for = 0;
}
template <int Tile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
template <int Tile>
inline void load_tile(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(Tile), "r"(from), "r"(stride_bytes)
               : "memory");
}
// The same for tiles that are not needed again soon: leaves the L1 cache to the others.
template <int Tile>
inline void load_passing(const void* from, int64_t stride_bytes) {
  asm volatile("tileloaddt1 (%1,%2,1), %%tmm%c0" ::"i"(Tile), "r"(from), "r"(stride_bytes)
               : "memory");
}
template <int Tile>
inline void store_tile(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(Tile), "r"(to), "r"(stride_bytes)
               : "memory");
}
// Into the L2 cache. Not __builtin_prefetch: GCC 12 deletes loops that do nothing else.
inline void fetch(const char* line) { asm volatile("prefetcht1 %0" ::"m"(*line)); }
// C += A · B.
template <int C, int A, int B>
inline void multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

// Sums 0..3 of two row tiles by two column tiles; inputs 4, 5; weights 6, 7. Rows of the row tiles.
void configure_block(int64_t rows0, int64_t rows1) {
  const int64_t key = 256 + (rows1 > 0 ? rows1 : 0) * 16 + rows0;
  int64_t& set_up_for = set_up();
  if (set_up_for == key) return;
  set_up_for = key;
  TileConfig c;
  for (int i = 0; i < 8; ++i) c.column_bytes[i] = 64;
  const auto top = static_cast<uint8_t>(rows0);
  const auto bottom = static_cast<uint8_t>(rows1 > 0 ? rows1 : 1);
  c.rows[0] = c.rows[1] = c.rows[4] = top;
  c.rows[2] = c.rows[3] = c.rows[5] = bottom;
  c.rows[6] = c.rows[7] = 16;
  load_config(c);
}

// Sums 0..3 of one row tile by four column tiles; inputs 4 (and 3); weights 5, 6, 7.
void configure_few(int64_t rows) {
  int64_t& set_up_for = set_up();
  if (set_up_for == rows) return;
  set_up_for = rows;
  TileConfig c;
  for (int i = 0; i < 8; ++i) c.column_bytes[i] = 64;
  for (int i = 0; i < 5; ++i) c.rows[i] = static_cast<uint8_t>(rows);
  for (int i = 5; i < 8; ++i) c.rows[i] = 16;
  load_config(c);
}

// ------------------------------------------------------------------------------ 1 to 16 rows

// Four columns of tiles at a time, for weights that are in cache.
void few_columns(const ProductArgs& a, int64_t tile) {
  const auto* x = static_cast<const char*>(a.x);
  const int64_t x_bytes = a.x_stride * 2;
  const int64_t s = a.w_stride_bytes;
  const char* w = static_cast<const char*>(a.w) + tile * s;
  float* out = a.out + tile * kTileN;
  const int64_t out_bytes = a.out_stride * 4;
  if (a.continued) {
    load_tile<0>(out, out_bytes);
    load_tile<1>(out + 16, out_bytes);
    load_tile<2>(out + 32, out_bytes);
    load_tile<3>(out + 48, out_bytes);
  } else {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
  }
  for (int64_t k = 0; k < a.k_tiles; ++k, w += kTileBytesBf16) {
    load_tile<4>(x + k * 64, x_bytes);
    load_tile<5>(w, 64);
    multiply<0, 4, 5>();
    load_tile<6>(w + s, 64);
    multiply<1, 4, 6>();
    load_tile<7>(w + 2 * s, 64);
    multiply<2, 4, 7>();
    load_tile<5>(w + 3 * s, 64);
    multiply<3, 4, 5>();
  }
  store_tile<0>(out, out_bytes);
  store_tile<1>(out + 16, out_bytes);
  store_tile<2>(out + 32, out_bytes);
  store_tile<3>(out + 48, out_bytes);
}

// Tiles k and k + 1 of the inputs are loaded into different registers, so that the second load
// need not wait for the first product.
template <int Input, int Weights, bool Streamed>
inline void few_step(const char* x, int64_t x_bytes, const char* w) {
  if (Streamed) {
    const TileLines lines = {w, 0, kNearBytes, kFarBytes};
    POLYLM_UNROLL
    for (int64_t p = 0; p < 16; ++p) fetch_ahead<Prefetch::kBoth>(w + p * 64, lines);
  }
  load_tile<Input>(x, x_bytes);
  load_tile<Weights>(w, 64);
  multiply<0, Input, Weights>();
}

// One column of tiles: memory is read as it lies.
template <bool Streamed>
void few_single(const ProductArgs& a, int64_t tile) {
  const auto* x = static_cast<const char*>(a.x);
  const char* w = static_cast<const char*>(a.w) + tile * a.w_stride_bytes;
  const int64_t x_bytes = a.x_stride * 2;
  float* out = a.out + tile * kTileN;
  if (a.continued) {
    load_tile<0>(out, a.out_stride * 4);
  } else {
    zero_tile<0>();
  }
  int64_t k = 0;
  for (; k + 2 <= a.k_tiles; k += 2) {
    few_step<3, 5, Streamed>(x + k * 64, x_bytes, w + k * kTileBytesBf16);
    few_step<4, 6, Streamed>(x + k * 64 + 64, x_bytes, w + (k + 1) * kTileBytesBf16);
  }
  if (k < a.k_tiles) few_step<3, 5, Streamed>(x + k * 64, x_bytes, w + k * kTileBytesBf16);
  store_tile<0>(out, a.out_stride * 4);
}

void few_rows(const ProductArgs& a) {
  configure_few(a.rows);
  int64_t tile = 0;
  if (a.streamed) {
    for (; tile < a.n_tiles; ++tile) few_single<true>(a, tile);
    return;
  }
  for (; tile + 4 <= a.n_tiles; tile += 4) few_columns(a, tile);
  for (; tile < a.n_tiles; ++tile) few_single<false>(a, tile);
}

// ------------------------------------------------------- one row against a list of matrices

inline void fetch_tile(const char* w, const TileLines& l) {
  POLYLM_UNROLL
  for (int64_t p = 0; p < 16; ++p) fetch_ahead<Prefetch::kBoth>(w + p * 64, l);
}

void row_scores_amx(const RowListArgs& a) {
  configure_few(1);
  const auto* x = static_cast<const char*>(a.x);
  const int64_t column_bytes = a.k_tiles * kTileBytesBf16;
  float* out = a.out;
  for (int64_t i = 0; i < a.count; ++i) {
    const TileLines lines = list_lines(a, i);
    const char* w = a.w[i];
    for (int64_t n = 0; n < a.n_tiles; n += 2, w += 2 * column_bytes, out += 2 * kTileN) {
      zero_tile<0>();
      zero_tile<1>();
      for (int64_t k = 0; k < a.k_tiles; ++k) {
        const char* tile = w + k * kTileBytesBf16;
        fetch_tile(tile, lines);
        fetch_tile(tile + column_bytes, lines);
        load_tile<4>(x + k * 64, 64);
        load_tile<5>(tile, 64);
        multiply<0, 4, 5>();
        load_tile<6>(tile + column_bytes, 64);
        multiply<1, 4, 6>();
      }
      store_tile<0>(out, 64);
      store_tile<1>(out + kTileN, 64);
    }
  }
  release();
}

// Columns of tiles [tile, tile + 2) of every matrix of the list.
void row_sums_pair(const RowListArgs& a, int64_t tile) {
  const auto* x = static_cast<const char*>(a.x);
  zero_tile<0>();
  zero_tile<1>();
  for (int64_t i = 0; i < a.count; ++i) {
    const TileLines lines = list_lines(a, i);
    const char* w = a.w[i] + tile * kTileBytesBf16;
    fetch_tile(w, lines);
    fetch_tile(w + kTileBytesBf16, lines);
    load_tile<4>(x + i * 64, 64);
    load_tile<5>(w, 64);
    multiply<0, 4, 5>();
    load_tile<6>(w + kTileBytesBf16, 64);
    multiply<1, 4, 6>();
  }
  store_tile<0>(a.out + tile * kTileN, 64);
  store_tile<1>(a.out + (tile + 1) * kTileN, 64);
}

void row_sums_amx(const RowListArgs& a) {
  configure_few(1);
  for (int64_t tile = 0; tile < a.n_tiles; tile += 2) row_sums_pair(a, tile);
  release();
}

// --------------------------------------------------------------------------- more than 16 rows

// What one block fetches at every step: a line of each of some rows of x, and for `steps` steps
// some lines of each of two columns of tiles.
struct Fetch {
  const char* x = nullptr;
  int64_t rows = 0;
  const char* w = nullptr;
  int64_t columns = 0;
  int64_t lines = 0;
  int64_t steps = 0;
};

struct Block {
  const char* x;
  int64_t x_bytes;  // stride
  const char* w;    // of the first column of tiles
  const char* const* list;  // or the k tiles, w_first into each
  int64_t w_first;
  int64_t w_bytes;  // stride
  int64_t k_tiles;
  float* out;
  int64_t out_bytes;  // stride
  bool first;         // sums begin at zero
  Fetch fetch;
};

inline void fetch_step(const Block& b, int64_t k) {
  const char* x = b.fetch.x + k * 64;
  for (int64_t r = 0; r < b.fetch.rows; ++r, x += b.x_bytes) fetch(x);
  if (k >= b.fetch.steps) return;
  const char* w = b.fetch.w + k * b.fetch.lines * 64;
  for (int64_t c = 0; c < b.fetch.columns; ++c, w += b.w_bytes) {
    for (int64_t i = 0; i < b.fetch.lines; ++i) fetch(w + i * 64);
  }
}

// Two row tiles (or one) by two column tiles (or one).
template <bool TwoRows, bool TwoColumns, bool List>
void block(const Block& b) {
  float* low = b.out + kTileRows * (b.out_bytes / 4);
  if (b.first) {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
  } else {
    load_tile<0>(b.out, b.out_bytes);
    if (TwoColumns) load_tile<1>(b.out + 16, b.out_bytes);
    if (TwoRows) load_tile<2>(low, b.out_bytes);
    if (TwoRows && TwoColumns) load_tile<3>(low + 16, b.out_bytes);
  }
  const char* top = b.x;
  const char* bottom = b.x + kTileRows * b.x_bytes;
  for (int64_t k = 0; k < b.k_tiles; ++k) {
    load_tile<4>(top + k * 64, b.x_bytes);
    const char* w = List ? b.list[k] + b.w_first : b.w + k * kTileBytesBf16;
    load_passing<6>(w, 64);
    if (TwoColumns) load_passing<7>(w + b.w_bytes, 64);
    if (TwoRows) load_tile<5>(bottom + k * 64, b.x_bytes);
    multiply<0, 4, 6>();
    if (TwoColumns) multiply<1, 4, 7>();
    if (!List) fetch_step(b, k);
    if (TwoRows) multiply<2, 5, 6>();
    if (TwoRows && TwoColumns) multiply<3, 5, 7>();
  }
  store_tile<0>(b.out, b.out_bytes);
  if (TwoColumns) store_tile<1>(b.out + 16, b.out_bytes);
  if (TwoRows) store_tile<2>(low, b.out_bytes);
  if (TwoRows && TwoColumns) store_tile<3>(low + 16, b.out_bytes);
}

// What falls to the block of rows from `row` on and columns from `tile` on: a part of the next two
// columns, and of x what is wanted next.
Fetch fetch_of(const ProductArgs& a, int64_t row, int64_t tile) {
  constexpr int64_t kBlockRows = 2 * kTileRows;
  Fetch f;
  if (tile + 2 < a.n_tiles) {
    f.w = static_cast<const char*>(a.w) + (tile + 2) * a.w_stride_bytes;
    f.columns = a.n_tiles - tile - 2;
  } else {
    f.w = static_cast<const char*>(a.ahead.w);
    f.columns = a.ahead.n_tiles;
    f.x = static_cast<const char*>(a.ahead.x) + row * a.x_stride * 2;
    f.rows = a.ahead.rows - row;
  }
  if (tile == 0 && a.ahead.own_x) {
    f.x = static_cast<const char*>(a.x) + (row + kBlockRows) * a.x_stride * 2;
    f.rows = a.rows - row - kBlockRows;
  }
  f.rows = f.rows < 0 ? 0 : f.rows < kBlockRows ? f.rows : kBlockRows;
  f.columns = f.columns < 2 ? f.columns : 2;
  const int64_t blocks = a.rows < kBlockRows ? 1 : a.rows / kBlockRows;
  const int64_t all = a.k_tiles * 16;
  const int64_t first = all * (row / kBlockRows) / blocks;
  const int64_t last = all * (row / kBlockRows + 1) / blocks;
  f.lines = (16 + blocks - 1) / blocks;
  f.steps = (last - first + f.lines - 1) / f.lines;
  f.w += first * 64;
  return f;
}

// Rows [row, end) of blocks of 32, or all of less than that, by all columns.
template <bool TwoRows, bool List>
void some_rows(const ProductArgs& a, const char* const* list, int64_t row, int64_t end) {
  Block b;
  b.x_bytes = a.x_stride * 2;
  b.w = static_cast<const char*>(a.w);
  b.list = list;
  b.w_first = 0;
  b.w_bytes = a.w_stride_bytes;
  b.k_tiles = a.k_tiles;
  b.out_bytes = a.out_stride * 4;
  b.first = !a.continued;
  for (int64_t tile = 0; tile < a.n_tiles; tile += 2) {
    for (int64_t r = row; r < end; r += 2 * kTileRows) {
      b.x = static_cast<const char*>(a.x) + r * b.x_bytes;
      b.out = a.out + r * a.out_stride + tile * kTileN;
      if (!List && row == 0) b.fetch = fetch_of(a, r, tile);
      (tile + 2 <= a.n_tiles ? block<TwoRows, true, List> : block<TwoRows, false, List>)(b);
    }
    if (!List) b.w += 2 * a.w_stride_bytes;
    b.w_first += 2 * a.w_stride_bytes;
  }
}

template <bool List>
void many_rows(const ProductArgs& a, const char* const* list) {
  const int64_t whole = a.rows / (2 * kTileRows) * (2 * kTileRows);
  const int64_t rest = a.rows - whole;
  if (whole > 0) {
    configure_block(kTileRows, kTileRows);
    some_rows<true, List>(a, list, 0, whole);
  }
  if (rest == 0) return;
  configure_block(rest < kTileRows ? rest : kTileRows, rest - kTileRows);
  (rest > kTileRows ? some_rows<true, List> : some_rows<false, List>)(a, list, whole, a.rows);
}

void product_amx(const ProductArgs& a) {
  if (a.rows <= kTileRows) {
    few_rows(a);
  } else {
    many_rows<false>(a, nullptr);
  }
}
void product_list_amx(const ProductArgs& a, const char* const* w) { many_rows<true>(a, w); }

double busy_tiles(int64_t rounds) {
  alignas(64) static const char zeros[1024] = {};
  configure_block(kTileRows, kTileRows);
  load_tile<4>(zeros, 64);
  load_tile<5>(zeros, 64);
  load_tile<6>(zeros, 64);
  load_tile<7>(zeros, 64);
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for (int64_t i = 0; i < rounds; ++i) {
    multiply<0, 4, 6>();
    multiply<1, 4, 7>();
    multiply<2, 5, 6>();
    multiply<3, 5, 7>();
  }
  release();
  return static_cast<double>(rounds) * 4 * 2 * 16 * 16 * 32;
}

KernelTable make_table() {
  KernelTable t;
  t.name = "amx";
  t.product_bf16 = product_amx;
  t.product_list_bf16 = product_list_amx;
  t.rest = release;
  t.cut_bf16 = {kCutRows, kCutTiles, kCutDepth, kCutWhole, kCutRows, kCutStrip};
  t.row_scores_bf16 = row_scores_amx;
  t.row_sums_bf16 = row_sums_amx;
  t.busy = busy_tiles;
  return t;
}

}  // namespace

const KernelTable& amx_kernels() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace polylm
