// kernels.h: what an instruction set must provide: a table of plain functions on raw memory. Each
// isa_*.cc fills one table; a null entry falls back to the next lower one (dispatch.cc). Not here:
// threads, allocation, Ops types; ISA files include this header and no STL, so that no inline
// function compiled with wide instructions can end up in code that every machine runs.
// Trap: an output's order of additions may depend on its K and on nothing else: not on the number
// of rows, not on which tile or lane it is in. The bitwise tests hold every table to that.
//
// Packed matrices: tiles of 16 n x 32 k, column of tiles after column: tile (n/16, k/32).
//   bf16 tile, 1 KB: line p holds k = 2p and 2p+1 of 16 n:  [16 p][16 n][2]
//   fp32 tile, 2 KB: line k holds 16 n:                     [32 k][16 n]
// n and k are padded with zeros. K and V blocks of the cache are such matrices too (kv_cache.h).
#pragma once

#include <cstdint>

namespace polylm {

inline constexpr int64_t kTileN = 16;
inline constexpr int64_t kTileK = 32;
inline constexpr int64_t kTileBytesBf16 = 1024;
inline constexpr int64_t kTileBytesFp32 = 2048;
inline constexpr int64_t kPartialTiles = 16;   // products are summed over 512 k, then these sums
inline constexpr int64_t kSegmentKeys = 256;   // attention is folded over segments of this

// How numbers that feed products are stored: bf16, fp32 that holds bf16-rounded values, or fp32.
enum class InputKind : uint8_t { kBf16, kRounded, kExact };

// What a product brings into the L2 cache while it multiplies, besides its own weights, for the
// next call: the first columns of tiles of w, and `rows` rows of x where those are others; of both
// as many k tiles as the call has. Strides are the call's. own_x: its own rows are not there
// either.
// Only AMX is fast enough to need it.
struct Ahead {
  const void* x = nullptr;
  int64_t rows = 0;
  const void* w = nullptr;
  int64_t n_tiles = 0;
  bool own_x = false;
};

// How a product of more than 16 rows is cut into jobs, `strip` columns of tiles by `chunk_rows`,
// and those into calls, `rows` by `tiles` columns by `k_tiles`, or by all k tiles if those are at
// most `whole_k_tiles`.
struct Cut {
  int64_t rows = 60;  // whole register blocks of 2, 4, 5, 6
  int64_t tiles = 4;
  int64_t k_tiles = INT64_MAX;
  int64_t whole_k_tiles = INT64_MAX;
  int64_t chunk_rows = INT64_MAX;
  int64_t strip = 4;
};
inline constexpr int64_t kMostCutTiles = 16;

// out[rows, n_tiles*16] = x[rows, k_tiles*32] · tilesᵀ, or out continued as the start of the sum.
struct ProductArgs {
  const void* x = nullptr;  // bf16 or fp32
  int64_t x_stride = 0;     // elements
  int64_t rows = 0;
  const void* w = nullptr;
  int64_t w_stride_bytes = 0;  // from one column of tiles to the next
  int64_t k_tiles = 0;
  int64_t n_tiles = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  bool continued = false;  // accumulators start from out; k_tiles <= kPartialTiles but for AMX
  bool streamed = false;   // weights come from memory: prefetch them
  Ahead ahead;
};

// One row against a list of equal matrices that lie anywhere: the cached keys, or values, of one
// head. Sums are those of ProductArgs. w has two pointers more than the list is long: what will be
// read after it, for it is prefetched as the last two matrices are used.
struct RowListArgs {
  const void* x = nullptr;
  const char* const* w = nullptr;  // [count + 2]
  int64_t count = 0;
  int64_t k_tiles = 0;  // of one matrix, <= kPartialTiles
  int64_t n_tiles = 0;  // of one matrix, even
  float* out = nullptr;
};

enum class Finish : uint8_t { kPlain, kStore, kGeluTanh, kGeluErf, kAdd };

// From sums to results, rows x cols, cols a multiple of 16 (padding included). kPlain: fp32 out =
// acc + bias; kAdd: fp32 out += acc + bias; else inputs out = f(acc + bias).
struct FinishArgs {
  const float* acc = nullptr;
  int64_t acc_stride = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  const float* bias = nullptr;  // padded, or null
  Finish finish = Finish::kStore;
  InputKind kind = InputKind::kBf16;
  void* out = nullptr;
  int64_t out_stride = 0;  // elements
};

// One row of layer norm. x, weight, bias and out are padded to 16 with zeros.
struct NormRowArgs {
  const float* x = nullptr;
  int64_t cols = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 0.0F;
  InputKind kind = InputKind::kBf16;
  void* out = nullptr;
};

// Softmax of rows inside one segment: row r sees min(first_keys + r, width) keys; P of the others
// is zero. highest and sum are per row; the sum is over P as stored.
struct SoftmaxArgs {
  const float* scores = nullptr;  // [rows, kSegmentKeys]
  int64_t rows = 0;
  int64_t first_keys = 0;  // >= 1
  int64_t width = 0;       // multiple of 32, <= kSegmentKeys
  InputKind kind = InputKind::kBf16;
  void* p = nullptr;  // inputs [rows, kSegmentKeys]
  float* highest = nullptr;
  float* sum = nullptr;
};

// (highest, sum, out[size]) becomes the softmax-weighted sum over its keys and the segment's.
struct FoldArgs {
  float* highest = nullptr;
  float* sum = nullptr;
  float* out = nullptr;
  float segment_highest = 0.0F;
  float segment_sum = 0.0F;
  const float* segment_out = nullptr;
  int64_t size = 0;  // multiple of 16
};

struct BlockSums {
  float highest = 0.0F;   // -inf when all are
  float sum = 0.0F;       // of exp(x - highest)
  float tempered = 0.0F;  // of exp((x - highest) / temperature)
};

struct KernelTable {
  const char* name = nullptr;
  void (*product_bf16)(const ProductArgs&) = nullptr;   // x bf16, w bf16; null: use product_mixed
  Cut cut_bf16;                                         // of product_bf16
  // product_bf16 with k tile i of all columns at w[i]; null: one call for each, continued.
  void (*product_list_bf16)(const ProductArgs&, const char* const* w) = nullptr;
  // After the last of some products: gives back what they hold of the processor. May be null.
  void (*rest)() = nullptr;
  void (*product_mixed)(const ProductArgs&) = nullptr;  // x fp32, w bf16
  void (*product_fp32)(const ProductArgs&) = nullptr;   // x fp32, w fp32
  // out[i, n_tiles*16] = x · w[i]ᵀ. By kind of x and w, as the products.
  void (*row_scores_bf16)(const RowListArgs&) = nullptr;
  void (*row_scores_mixed)(const RowListArgs&) = nullptr;
  void (*row_scores_fp32)(const RowListArgs&) = nullptr;
  // out[n_tiles*16] = sum over i of x[i*32 ...] · w[i]ᵀ, k_tiles == 1.
  void (*row_sums_bf16)(const RowListArgs&) = nullptr;
  void (*row_sums_mixed)(const RowListArgs&) = nullptr;
  void (*row_sums_fp32)(const RowListArgs&) = nullptr;
  void (*finish)(const FinishArgs&) = nullptr;
  void (*norm)(const NormRowArgs&) = nullptr;
  // to[i] = from[i] * scale, any count, nothing written beyond it.
  void (*store_inputs)(InputKind kind, const float* from, float scale, void* to,
                       int64_t count) = nullptr;
  void (*load_inputs)(InputKind kind, const void* from, float* to, int64_t count) = nullptr;
  void (*softmax)(const SoftmaxArgs&) = nullptr;
  void (*fold)(const FoldArgs&) = nullptr;
  // Whether any of count numbers is NaN or +inf.
  bool (*has_nonfinite)(const float* x, int64_t count) = nullptr;
  BlockSums (*block_sums)(const float* x, int64_t count, float temperature) = nullptr;
  // Appends (x[i], first_id + i) for x[i] > above, i ascending; returns how many.
  int64_t (*filter)(const float* x, int64_t count, float above, int32_t first_id, float* to_x,
                    int32_t* to_id) = nullptr;
  // Reads size_bytes (a multiple of 4096) and returns something that depends on them all.
  uint64_t (*stream)(const void* from, int64_t size_bytes) = nullptr;
  // Runs `rounds` rounds of independent multiply-adds of the products' kind; floating operations.
  double (*busy)(int64_t rounds) = nullptr;
};

// One per isa_*.cc; which exist is decided by cmake/isa.cmake.
const KernelTable& scalar_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512bf16_kernels();
const KernelTable& amx_kernels();
const KernelTable& neon_kernels();
const KernelTable& neonbf16_kernels();

}  // namespace polylm
