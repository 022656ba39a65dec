// kernels.h: what each kernel file offers to cuda_ops.cu: an argument struct with device pointers
// and a function that starts the kernel on a stream and returns how starting went. Not here: device
// code. Trap: all pointers are device memory, and nothing is checked: ops.cc has done that.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace polylm {

// What a launch needs to know of the card. None of it may change an order of additions.
struct Card {
  cudaStream_t stream = nullptr;
  int64_t processors = 1;
  bool overlaps = false;  // kernels may begin early: the code in use knows how to wait
};

// One row of the step. `table` is where its sequence's block table begins. Position -1: no row at
// all, it fills a step up to its bucket; it reads zeros and leaves the cache alone. Source not -1:
// its token is the best candidate of this select of the step before.
struct RowInfo {
  int32_t token = 0;
  int32_t position = -1;
  int32_t table = 0;
  int32_t source = -1;
};

// Up to 64 neighbouring prompt rows of one sequence.
struct QueryTile {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_position = 0;
  int32_t table = 0;
};

// ---------------------------------------------------------------------------------- products

enum class SinkKind : int32_t { kStore, kGeluTanh, kGeluErf, kAdd, kQkv };

// What happens to an element of a product once its sum is complete (sink.h).
struct Sink {
  SinkKind kind = SinkKind::kStore;
  bool is_bf16 = false;  // type of out (not for kAdd, which is fp32), and of the cache
  const float* bias = nullptr;  // [N] or null
  void* out = nullptr;          // [rows, stride]
  int64_t stride = 0;
  int32_t n = 0;  // N
  // kQkv: columns [0, C) go to out times q_scale, the rest into the cache at the rows' positions.
  int32_t channels = 0;
  int32_t head_size = 0;
  int32_t padded = 0;
  float q_scale = 1.0F;
  const RowInfo* rows = nullptr;
  const int32_t* tables = nullptr;
  void* layer = nullptr;  // this layer's blocks
};

struct NormCall {
  const float* x = nullptr;
  int64_t x_stride = 0;
  void* h = nullptr;
  int64_t h_stride = 0;
  bool h_is_bf16 = false;
  const float* weight = nullptr;
  const float* bias = nullptr;
  int32_t cols = 0;
  float epsilon = 0.0F;
  int32_t row_count = 0;
};
cudaError_t norm_rows(const Card& card, const NormCall& call);

// y[rows,N] = x · wᵀ, bf16 by packed bf16. Row i of the product is row first_row + i of x and sink,
// or, with `gather`, row gather[i] of x and row i of sink.
struct ProductCall {
  const uint16_t* w = nullptr;
  int32_t n_tiles = 0;
  int32_t k_blocks = 0;
  const uint16_t* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* gather = nullptr;
  int32_t first_row = 0;
  int32_t rows = 0;
  Sink sink;
  NormCall norm;  // norm.x not null: x is norm's h, which the product computes first (decode only)
};
cudaError_t decode_product(const Card& card, const ProductCall& call);
cudaError_t prefill_product(const Card& card, const ProductCall& call);

// The same in fp32 arithmetic, for every other pair of types.
struct FmaCall {
  const void* w = nullptr;  // packed bf16, or fp32 [N][K]
  bool w_is_bf16 = false;
  const void* x = nullptr;
  bool x_is_bf16 = false;
  int64_t x_stride = 0;
  int64_t k = 0;
  const int32_t* gather = nullptr;
  int32_t rows = 0;
  Sink sink;
};
cudaError_t fma_product(const Card& card, const FmaCall& call);

// --------------------------------------------------------------------------------- attention

struct AttendCall {
  const void* q = nullptr;  // [T, stride]
  void* out = nullptr;      // [T, stride]
  int64_t stride = 0;
  const void* layer = nullptr;  // this layer's blocks
  int32_t heads = 0;
  int32_t head_size = 0;
  int32_t padded = 0;
  const RowInfo* rows = nullptr;
  const int32_t* tables = nullptr;
  const QueryTile* tiles = nullptr;  // prefill
  int32_t tile_count = 0;
  int32_t first_row = 0;  // decode, fp32
  int32_t row_count = 0;
  int32_t segments = 0;        // most of any of these rows
  float* partial = nullptr;    // decode: [rows, heads, segments, padded + 2]
  int32_t* arrived = nullptr;  // decode: [rows, heads], zero before and after
};
cudaError_t attend_prefill(const Card& card, const AttendCall& call);
cudaError_t attend_decode(const Card& card, const AttendCall& call);
cudaError_t attend_fp32(const Card& card, const AttendCall& call);  // rows of both roles

// ----------------------------------------------------------------------- rows, blocks, weights

struct MatrixView {
  const void* data = nullptr;
  bool is_bf16 = false;  // packed; else fp32 [N][K]
  int64_t k = 0;
};
struct HeadResult;
struct EmbedCall {
  MatrixView wte;
  MatrixView wpe;  // data null: none
  const RowInfo* rows = nullptr;
  const HeadResult* chosen = nullptr;  // [selects] of the step before
  float* x = nullptr;
  int64_t stride = 0;
  int32_t row_count = 0;
};
cudaError_t embed_rows(const Card& card, const EmbedCall& call);

inline constexpr int kCopiesAtOnce = 128;
struct CopyCall {
  unsigned char* base = nullptr;
  int64_t block_bytes = 0;
  int64_t blocks = 0;  // of a layer
  int32_t layers = 0;
  int32_t count = 0;
  int32_t from[kCopiesAtOnce];
  int32_t to[kCopiesAtOnce];
};
cudaError_t copy_blocks(const Card& card, const CopyCall& call);

// A piece of a matrix, from a dense strided source into its place.
struct PackCall {
  const void* source = nullptr;  // element (i, j) at i * stride_n + j * stride_k
  int64_t stride_n = 0;
  int64_t stride_k = 0;
  void* matrix = nullptr;
  bool is_bf16 = false;
  int64_t k = 0;  // of the whole matrix
  int64_t n0 = 0;
  int64_t k0 = 0;
  int64_t n_count = 0;
  int64_t k_count = 0;
};
cudaError_t pack_piece(const Card& card, const PackCall& call);

// ---------------------------------------------------------------------------------- the head

struct ListedToken {
  int32_t row = -1;  // of the select; -1 fills up to the bucket
  int32_t token = 0;
};
// What the reductions need of a row, and what comes back.
struct HeadRow {
  float temperature = 1.0F;
};
struct HeadResult {
  double sum = 0.0;
  double tempered = 0.0;
  float highest = 0.0F;
  int32_t count = 0;
  int32_t finite = 1;
  int32_t unused = 0;
  int32_t ids[64];
  float logits[64];
};
struct BlockSum {
  float highest;
  float sum;
  float tempered;
};
struct HeadCall {
  float* logits = nullptr;  // [rows, stride]; listed tokens become -inf
  int64_t stride = 0;
  int32_t vocab = 0;
  int32_t first_row = 0;  // of the select: which listed tokens are meant
  int32_t rows = 0;
  int32_t blocks = 0;               // of 1,024 tokens
  const HeadRow* wanted = nullptr;  // [rows]
  const ListedToken* listed = nullptr;  // of all rows of the select
  int32_t listed_count = 0;
  float* listed_logits = nullptr;
  int32_t* broken = nullptr;        // [rows], zero before: a logit is NaN or +inf
  const int32_t* kept = nullptr;    // [rows]: where in `full` the row's logits are kept, or -1
  float* full = nullptr;            // [kept rows, stride]; null: no row keeps its logits
  BlockSum* sums = nullptr;         // [rows, blocks]
  uint64_t* lists = nullptr;        // [rows, blocks, 64]
  uint64_t* merged = nullptr;       // [rows, ceil(blocks / 16), 64]
  HeadResult* results = nullptr;    // [rows]
};
cudaError_t reduce_head(const Card& card, const HeadCall& call);

}  // namespace polylm
