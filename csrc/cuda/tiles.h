// tiles.h: every number that decides where an element lies and how work is cut: the packed weight,
// the blocks of the cache, tile sizes, the parts of a sum. Plain constexpr functions that host,
// device and tests share (test/native/cuda_plan_test.cc). Not here: anything that runs.
// Trap: what changes the order of additions (kChunkK, kDecodeWarps, kSegmentKeys) may depend on
// N, K and the row alone, never on how many rows there are or which card it is.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define POLYLM_BOTH __host__ __device__ __forceinline__
#else
#define POLYLM_BOTH inline
#endif

namespace polylm {

inline constexpr int kCudaBlockTokens = 32;  // B; K and V of 32 tokens are one step of the kernels
inline constexpr int kWarp = 32;

// --------------------------------------------------------------------------------- products
// A packed matrix is [N/16][K/32] blocks of 16 rows by 32 k, 1,024 bytes each. A block holds what
// the two m16n8k16 products over its 32 k want, lane by lane, so that a lane gets its fragment in
// one 16-byte load: as operand A the whole, as operand B the halves for 8 columns each.
// Lane 4g+t owns k = 8t .. 8t+7 of the block: the sum over k does not care which k an instruction
// calls its third, as long as both operands agree, and an activation's fragment is then 16
// contiguous bytes as well.
inline constexpr int kTileN = 16;
inline constexpr int kTileK = 32;
inline constexpr int kTileElements = kTileN * kTileK;
inline constexpr int kTileBytes = 2 * kTileElements;
// Tensor cores round sums towards zero: every 128 k are summed from zero, then added in fp32.
inline constexpr int kChunkK = 128;
inline constexpr int kChunkBlocks = kChunkK / kTileK;

constexpr int64_t ceil_parts(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Element (n, k) of a packed matrix of `k_blocks` blocks per row of blocks.
POLYLM_BOTH constexpr int64_t packed_element(int64_t n, int64_t k, int64_t k_blocks) {
  const int64_t block = n / kTileN * k_blocks + k / kTileK;
  const int row = static_cast<int>(n % kTileN);
  const int in = static_cast<int>(k % kTileK);
  const int lane = row % 8 * 4 + in / 8;
  const int product = in % 8 / 4;
  const int reg = in % 4 / 2 * 2 + row / 8;
  return block * kTileElements + product * 256 + lane * 8 + reg * 2 + in % 2;
}

// The (n, k) inside a block of its element `index`: the inverse of packed_element.
struct TilePlace {
  int n;
  int k;
};
POLYLM_BOTH constexpr TilePlace packed_place(int index) {
  const int product = index / 256;
  const int lane = index % 256 / 8;
  const int reg = index % 8 / 2;
  return {reg % 2 * 8 + lane / 4, lane % 4 * 8 + product * 4 + reg / 2 * 2 + index % 2};
}

constexpr int64_t packed_bytes(int64_t n, int64_t k) {
  return ceil_parts(n, kTileN) * ceil_parts(k, kTileK) * kTileBytes;
}

// Elements from one row of activations to the next: the last columns of a row are zeros, so that
// whole blocks of 32 k can be read.
constexpr int64_t cuda_act_stride(int64_t cols) { return ceil_parts(cols, 64) * 64; }

// The decode family: a block of 8 warps owns 16 or 32 columns of the result; each warp sums its
// part of the chunks, and the 8 parts are added in order. So the order depends on K alone.
inline constexpr int kDecodeWarps = 8;
struct ChunkRange {
  int begin;
  int end;
};
POLYLM_BOTH constexpr ChunkRange decode_part(int k_blocks, int warp) {
  const int chunks = (k_blocks + kChunkBlocks - 1) / kChunkBlocks;
  return {chunks * warp / kDecodeWarps, chunks * (warp + 1) / kDecodeWarps};
}
// Floats between the rows of a part in shared memory: 4 more than the columns, so that a warp's
// stores of a fragment fall into 32 different banks.
POLYLM_BOTH constexpr int decode_pitch(int n_tiles) { return n_tiles * kTileN + 4; }

// Tiles of the decode family: 16-column tiles and 8-row tiles of a block. Bits do not depend on it.
struct DecodeTiles {
  int n_tiles;
  int row_tiles;
};
constexpr DecodeTiles decode_tiles(int64_t rows, int64_t n, int64_t processors) {
  // One column tile leaves registers for two blocks on a processor, so that one loads while the
  // other adds up its parts; up to 16 rows stay in the L1 that both share.
  if (rows <= 16) return {1, rows <= 8 ? 1 : 2};
  // Two column tiles halve the reads of activations but also the number of blocks.
  return {ceil_parts(n, kTileN) >= 4 * processors ? 2 : 1, 4};
}

// The decode product normalises its own input for so few rows and columns: every block does all of
// it, and more would cost more than the launch that it saves.
inline constexpr int kNormedRows = 2;
inline constexpr int kNormedCols = 8192;  // 32 KiB of shared memory

// The prefill family: a block owns 64 or 128 rows by 128 columns and walks over all of K.
inline constexpr int kPrefillCols = 128;
inline constexpr int kPrefillStages = 4;
constexpr int prefill_rows(int64_t rows, int64_t n, int64_t processors) {
  const int64_t large = ceil_parts(rows, 128) * ceil_parts(n, kPrefillCols);
  return rows <= 64 || large < processors ? 64 : 128;
}

// -------------------------------------------------------------------------------- the cache
// [layers][blocks][heads][K | V]: K of a head is [32 tokens][D], V is [D][32 tokens], both with D
// rounded up to 32. What pads D is zero and stays zero.
constexpr int64_t padded_head(int64_t head_size) { return ceil_parts(head_size, 32) * 32; }
POLYLM_BOTH constexpr int64_t k_element(int slot, int d, int padded) {
  return static_cast<int64_t>(slot) * padded + d;
}
POLYLM_BOTH constexpr int64_t v_element(int slot, int d) {
  return static_cast<int64_t>(d) * kCudaBlockTokens + slot;
}
constexpr int64_t half_elements(int64_t padded) { return kCudaBlockTokens * padded; }

// The key of a block of 32 that column c of the i-th product of scores (8 columns each) belongs to:
// lane 4g+t then holds the scores of keys 8t .. 8t+7, which is how it reads V.
POLYLM_BOTH constexpr int key_of_column(int i, int c) { return c / 2 * 8 + 2 * i + c % 2; }

// Where the 16-byte piece `piece` of row `slot` of K lies in shared memory, in pieces: two
// neighbouring rows must not meet in the same banks.
POLYLM_BOTH constexpr int k_piece(int slot, int piece, int padded) {
  const int pieces = padded / 8;
  const int flip = pieces % 8 == 0 ? (slot & 1) * 4 : 0;
  return slot * pieces + (piece ^ flip);
}

inline constexpr int kPrefillQueries = 64;  // rows of a block of prefill attention, 16 per warp
inline constexpr int kSegmentKeys = 256;    // keys of a block of decode attention
// A warp has one block of 32 keys of its segment: K, then V, and no second trip to memory.
inline constexpr int kDecodeAttendWarps = 8;
inline constexpr int kWarpKeys = kSegmentKeys / kDecodeAttendWarps;
inline constexpr int kDecodeAttendRows = 256;  // rows of one launch; bounds the workspace
constexpr int64_t segments_of(int64_t keys) { return ceil_parts(keys, kSegmentKeys); }
// Stages of prefill attention's ring of K and V: as many as fit 64 KiB.
POLYLM_BOTH constexpr int attend_stages(int padded) { return padded <= 128 ? 3 : 2; }

// ------------------------------------------------------------------------------ graphs of steps
// A step of generated rows is filled up to a bucket, so that few graphs serve all steps.
constexpr int64_t next_power(int64_t n) {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}
constexpr int64_t row_bucket(int64_t n) {
  if (n <= 8) return n == 0 ? 0 : next_power(n);
  const int64_t step = n <= 32 ? 8 : n <= 64 ? 16 : n <= 256 ? 32 : 128;
  return ceil_parts(n, step) * step;
}
constexpr int64_t listed_bucket(int64_t n) { return n == 0 ? 0 : n <= 256 ? 256 : next_power(n); }

// --------------------------------------------------------------------------------- the head
inline constexpr int kHeadRows = 128;  // rows whose logits are in memory at once
inline constexpr int kMergeLists = 16;  // sorted lists of 64 that a block merges
constexpr int64_t logit_stride(int64_t vocab) { return ceil_parts(vocab, 64) * 64; }

}  // namespace polylm
