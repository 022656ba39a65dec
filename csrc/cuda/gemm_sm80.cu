// gemm_sm80.cu: the products of prompt rows, y[M,N] = x[M,K] · w[N,K]ᵀ, on every card from sm_80
// on: m16n8k16 products fed from a ring of four stages of 32 k that cp.async fills.
// Grid: (ceil(M / 64 or 128), ceil(N / 128)). Block: 8 warps, 2 by rows and 4 by columns, each 32
// or 64 rows by 32 columns. Shared memory: 4 stages x (rows x 64 B of x + 8 KiB of w) = 48 or 64
// KiB. A fragment is one 16-byte load: x has its rows of 64 bytes side by side, w comes packed.
// Trap: the order of additions is chunk by chunk of 128 k over all of K, whatever M and the tile.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 256;
constexpr int kColWarps = 4;
constexpr int kWarpColTiles = 2;  // tiles of 16 columns
constexpr int kWeightStageBytes = kPrefillCols / kTileN * kTileBytes;
constexpr int kInputRowBytes = kTileK * 2;
static_assert(kPrefillStages * kTileK * 2 * (128 + kPrefillCols) >= 128 * kPrefillCols * 4);

template <int kRowTiles>  // tiles of 16 rows of a warp
struct Shape {
  static constexpr int kRows = 2 * kRowTiles * 16;
  static constexpr int kInputBytes = kRows * kInputRowBytes;
  static constexpr int kStageBytes = kInputBytes + kWeightStageBytes;
};

// What a thread copies for every stage: addresses are found once and then only advance, because
// with two warps on a scheduler their arithmetic would otherwise cost more than the products.
template <int kRowTiles>
class StageCopies {
 public:
  __device__ __forceinline__ explicit StageCopies(const ProductCall& p) {
    const int thread = static_cast<int>(threadIdx.x);
    const int first_row = static_cast<int>(blockIdx.x) * S::kRows;
    const int first_tile = static_cast<int>(blockIdx.y) * (kPrefillCols / kTileN);
#pragma unroll
    for (int j = 0; j < kInputs; ++j) {
      const int at = thread + j * kThreads;
      const int row = first_row + at / kInputPieces;
      row_exists_[j] = row < p.rows;
      const int64_t source = p.first_row + (row_exists_[j] ? row : 0);
      inputs_[j] = p.x + source * p.x_stride + at % kInputPieces * 8;
    }
#pragma unroll
    for (int j = 0; j < kWeights; ++j) {
      const int at = thread + j * kThreads;
      const int tile = first_tile + at / kTilePieces;
      tile_exists_[j] = tile < p.n_tiles;
      const int64_t source = tile_exists_[j] ? tile : 0;
      weights_[j] = p.w + source * p.k_blocks * kTileElements + at % kTilePieces * 8;
    }
  }

  // Starts filling a stage with the next block of K.
  __device__ __forceinline__ void fill(unsigned char* stage) {
    unsigned char* to = stage + threadIdx.x * 16;
#pragma unroll
    for (int j = 0; j < kInputs; ++j) {
      copy16_async(to + j * kThreads * 16, inputs_[j], row_exists_[j]);
      inputs_[j] += kTileK;
    }
#pragma unroll
    for (int j = 0; j < kWeights; ++j) {
      copy16_async(to + S::kInputBytes + j * kThreads * 16, weights_[j], tile_exists_[j]);
      weights_[j] += kTileElements;
    }
  }

 private:
  using S = Shape<kRowTiles>;
  static constexpr int kInputPieces = kInputRowBytes / 16;
  static constexpr int kTilePieces = kTileBytes / 16;
  static constexpr int kInputs = S::kInputBytes / 16 / kThreads;
  static constexpr int kWeights = kWeightStageBytes / 16 / kThreads;
  static_assert(kInputs * kThreads * 16 == S::kInputBytes);
  static_assert(kWeights * kThreads * 16 == kWeightStageBytes);
  const uint16_t* inputs_[kInputs];
  const uint16_t* weights_[kWeights];
  bool row_exists_[kInputs];
  bool tile_exists_[kWeights];
};

__device__ __forceinline__ Quad quad_at(const unsigned char* at) {
  return *reinterpret_cast<const Quad*>(at);
}

// sum += the products over the 32 k of one stage.
template <int kRowTiles>
__device__ __forceinline__ void add_stage(const unsigned char* stage, int warp, int lane,
                                          float (&sum)[kRowTiles][2 * kWarpColTiles][4]) {
  const int g = lane / 4;
  const int t = lane % 4;
  const unsigned char* rows =
      stage + (warp / kColWarps * kRowTiles * 16 + g) * kInputRowBytes + t * 16;
  const unsigned char* weights = stage + Shape<kRowTiles>::kInputBytes +
                                 warp % kColWarps * kWarpColTiles * kTileBytes + lane * 16;
  Quad upper[kRowTiles];
  Quad lower[kRowTiles];
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
    upper[i] = quad_at(rows + i * 16 * kInputRowBytes);
    lower[i] = quad_at(rows + (i * 16 + 8) * kInputRowBytes);
  }
#pragma unroll
  for (int tile = 0; tile < kWarpColTiles; ++tile) {
    const Quad first = quad_at(weights + tile * kTileBytes);
    const Quad second = quad_at(weights + tile * kTileBytes + 512);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      const uint32_t a[4] = {upper[i].x, lower[i].x, upper[i].y, lower[i].y};
      mma_bf16(sum[i][2 * tile], a, first.x, first.z);
      mma_bf16(sum[i][2 * tile + 1], a, first.y, first.w);
    }
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {  // apart from the first: no product waits for the last
      const uint32_t b[4] = {upper[i].z, lower[i].z, upper[i].w, lower[i].w};
      mma_bf16(sum[i][2 * tile], b, second.x, second.z);
      mma_bf16(sum[i][2 * tile + 1], b, second.y, second.w);
    }
  }
}

// Where (row, col) of a block's tile lies among its floats: eight rows' stores of a fragment, and a
// row's loads, fall into different banks.
__device__ __forceinline__ int tile_place(int row, int col) {
  return row * kPrefillCols + (col ^ (row % 8 * 8));
}

// The sums go through the ring's memory, so that a row is stored by neighbouring threads, and the
// epilogue is compiled once rather than for each register.
template <int kRowTiles>
__device__ __forceinline__ void finish_tile(const ProductCall& p, int warp, int lane, float* tile,
                                            const float (&total)[kRowTiles][2 * kWarpColTiles][4]) {
  const int warp_row = warp / kColWarps * kRowTiles * 16 + lane / 4;
  const int warp_col = warp % kColWarps * kWarpColTiles * kTileN + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 2 * kWarpColTiles; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = tile_place(warp_row + i * 16 + half * 8, warp_col + j * 8);
        *reinterpret_cast<float2*>(tile + at) =
            make_float2(total[i][j][2 * half], total[i][j][2 * half + 1]);
      }
    }
  }
  __syncthreads();
  const int first_row = static_cast<int>(blockIdx.x) * Shape<kRowTiles>::kRows;
  const int rows = min(Shape<kRowTiles>::kRows, p.rows - first_row);
  const int first_col = static_cast<int>(blockIdx.y) * kPrefillCols;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < rows * (kPrefillCols / 2); i += kThreads) {
    const int row = i / (kPrefillCols / 2);
    const int col = i % (kPrefillCols / 2) * 2;
    const float2 sums = *reinterpret_cast<const float2*>(tile + tile_place(row, col));
    sink_two(p.sink, p.first_row + first_row + row, first_col + col, sums.x, sums.y);
  }
}

template <int kRowTiles>
__global__ void __launch_bounds__(kThreads) prefill_kernel(const ProductCall p) {
  constexpr int kStageBytes = Shape<kRowTiles>::kStageBytes;
  unsigned char* ring = block_shared();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float total[kRowTiles][2 * kWarpColTiles][4] = {};
  float sum[kRowTiles][2 * kWarpColTiles][4] = {};
  let_next_begin();
  StageCopies<kRowTiles> copies(p);
  wait_for_previous();
#pragma unroll
  for (int s = 0; s < kPrefillStages - 1; ++s) {
    if (s < p.k_blocks) copies.fill(ring + s * kStageBytes);
    copies_commit();
  }
  for (int block = 0; block < p.k_blocks; ++block) {
    copies_wait<kPrefillStages - 2>();
    __syncthreads();  // the stage is full, and everyone is done with the one to be filled next
    const int next = block + kPrefillStages - 1;
    if (next < p.k_blocks) copies.fill(ring + next % kPrefillStages * kStageBytes);
    copies_commit();
    add_stage<kRowTiles>(ring + block % kPrefillStages * kStageBytes, warp, lane, sum);
    if (block % kChunkBlocks != kChunkBlocks - 1 && block + 1 != p.k_blocks) continue;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 2 * kWarpColTiles; ++j) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          total[i][j][c] += sum[i][j][c];
          sum[i][j][c] = 0.0F;
        }
      }
    }
  }
  copies_wait<0>();
  __syncthreads();  // everyone is done with the ring
  finish_tile<kRowTiles>(p, warp, lane, reinterpret_cast<float*>(ring), total);
}

template <int kRowTiles>
cudaError_t start(const Card& card, const ProductCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(ceil_parts(call.rows, Shape<kRowTiles>::kRows),
                       ceil_parts(call.sink.n, kPrefillCols));
  shape.threads = kThreads;
  shape.shared_bytes = static_cast<size_t>(kPrefillStages) * Shape<kRowTiles>::kStageBytes;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&prefill_kernel<kRowTiles>, shape, call);
}

}  // namespace

cudaError_t prefill_product(const Card& card, const ProductCall& call) {
  const int rows = prefill_rows(call.rows, call.sink.n, card.processors);
  return rows == 64 ? start<2>(card, call) : start<4>(card, call);
}

}  // namespace polylm
