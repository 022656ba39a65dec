// decode_gemm.cu: the products of generated rows and of the head, y[M,N] = x[M,K] · w[N,K]ᵀ, for
// any M: the weights are operand A of the tensor cores and go from memory straight into registers,
// 16 bytes a lane, each read once; so one kernel is bound by memory for every M of a decode step.
// Grid: (ceil(M / rows), N tiles). Block: 8 warps; all own the same 16 or 32 columns, each sums an
// eighth of K, and the eight parts are added in order. Shared memory: 8 parts x rows x (columns +
// 4) floats: 5 KiB for M <= 8, 36 KiB at most. In flight: two chunks of 128 k, 8 KiB a warp; both
// are asked for before the kernel waits for the one that makes its input, so that memory is busy
// while that one ends. For one or two rows the kernel also normalises its input itself, each block
// all of it: a launch less, and the weights are on their way meanwhile. It leaves norm's h as the
// kernel of norm.cu would, in every bit.
// Trap: the order of additions is chunk by chunk, then part by part, and may depend on K alone.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/norm.h"
#include "cuda/ptx.h"
#include "cuda/sink.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

// What a lane needs of one chunk of 128 k.
template <int kColTiles>
struct WeightChunk {
  Quad w[kColTiles][2 * kChunkBlocks];
};
template <int kRowTiles>
struct InputChunk {
  Quad x[kRowTiles][kChunkBlocks];
};

__device__ __forceinline__ Quad no_bits() { return make_uint4(0, 0, 0, 0); }

template <int kColTiles>
__device__ __forceinline__ void load_weights(const ProductCall& p, int first_tile, int chunk,
                                             int lane, WeightChunk<kColTiles>* to) {
#pragma unroll
  for (int tile = 0; tile < kColTiles; ++tile) {
    const int64_t column = static_cast<int64_t>(first_tile + tile) * p.k_blocks;
#pragma unroll
    for (int b = 0; b < kChunkBlocks; ++b) {
      const int block = chunk * kChunkBlocks + b;
      const bool inside = block < p.k_blocks && first_tile + tile < p.n_tiles;
      const uint16_t* from = p.w + (column + block) * kTileElements + lane * 8;
      to->w[tile][2 * b] = inside ? load_constant(from) : no_bits();
      to->w[tile][2 * b + 1] = inside ? load_constant(from + 256) : no_bits();
    }
  }
}

// rows[i] is the row of x that lane group g reads for row tile i, or null beyond the last row. It
// lies in global memory, or with kNormed in shared memory.
template <int kRowTiles, bool kNormed>
__device__ __forceinline__ void load_inputs(const ProductCall& p, const uint16_t* const* rows,
                                            int chunk, int t, InputChunk<kRowTiles>* to) {
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
    for (int b = 0; b < kChunkBlocks; ++b) {
      const int block = chunk * kChunkBlocks + b;
      const bool inside = rows[i] != nullptr && block < p.k_blocks;
      const uint16_t* from = rows[i] + block * kTileK + t * 8;
      to->x[i][b] = !inside   ? no_bits()
                    : kNormed ? *reinterpret_cast<const Quad*>(from)
                              : load_shared_read(from);
    }
  }
}

template <int kColTiles, int kRowTiles>
__device__ __forceinline__ void add_chunk(const WeightChunk<kColTiles>& w,
                                          const InputChunk<kRowTiles>& in,
                                          float (&total)[kColTiles][kRowTiles][4]) {
#pragma unroll
  for (int tile = 0; tile < kColTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      float sum[4] = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
      for (int b = 0; b < kChunkBlocks; ++b) {
        const Quad& first = w.w[tile][2 * b];
        const Quad& second = w.w[tile][2 * b + 1];
        const Quad& x = in.x[i][b];
        mma_bf16(sum, {first.x, first.y, first.z, first.w}, x.x, x.y);
        mma_bf16(sum, {second.x, second.y, second.z, second.w}, x.z, x.w);
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) total[tile][i][c] += sum[c];
    }
  }
}

// Leaves this warp's part where the fold finds it: [warp][row][pitch] floats.
template <int kColTiles, int kRowTiles>
__device__ __forceinline__ void leave_part(const float (&total)[kColTiles][kRowTiles][4], int warp,
                                           int lane, float* parts) {
  constexpr int kPitch = decode_pitch(kColTiles);
  float* part = parts + warp * kRowTiles * 8 * kPitch;
  const int g = lane / 4;
  const int t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < kColTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      float* at = part + (i * 8 + 2 * t) * kPitch + tile * kTileN + g;
      at[0] = total[tile][i][0];
      at[kPitch] = total[tile][i][1];
      at[8] = total[tile][i][2];
      at[kPitch + 8] = total[tile][i][3];
    }
  }
}

// Normalises the product's rows into shared memory, [rows][32 k_blocks] with zeros behind the last
// column, and the first block of columns leaves them in norm's h. 256 threads, as norm.cu.
__device__ __forceinline__ void norm_input(const ProductCall& p, uint16_t* to, float* shared) {
  static_assert(kDecodeWarps * kWarp == kNormThreads);
  const int pitch = p.k_blocks * kTileK;
  for (int row = 0; row < p.rows; ++row) {
    norm_row(p.norm, row, shared, [&](int c, float y) {
      const uint16_t bits = bf16_bits(y);
      to[row * pitch + c] = bits;
      if (blockIdx.y == 0) static_cast<uint16_t*>(p.norm.h)[row * p.norm.h_stride + c] = bits;
    });
    const int c = p.norm.cols + static_cast<int>(threadIdx.x);
    if (c < pitch) to[row * pitch + c] = 0;  // at most 31
  }
  __syncthreads();  // the rows are complete, and `shared` is free for the parts
}

template <int kColTiles, int kRowTiles, bool kNormed>
__global__ void __launch_bounds__(kDecodeWarps * kWarp) decode_kernel(const ProductCall p) {
  constexpr int kPitch = decode_pitch(kColTiles);
  constexpr int kPartFloats = kRowTiles * 8 * kPitch;
  auto* parts = reinterpret_cast<float*>(block_shared());
  auto* normed = reinterpret_cast<uint16_t*>(parts + kDecodeWarps * kPartFloats);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_tile = static_cast<int>(blockIdx.y) * kColTiles;
  const int first_row = static_cast<int>(blockIdx.x) * kRowTiles * 8;
  const ChunkRange mine = decode_part(p.k_blocks, warp);
  WeightChunk<kColTiles> even;
  WeightChunk<kColTiles> odd;
  InputChunk<kRowTiles> in;
  let_next_begin();
  if (mine.begin < mine.end) load_weights(p, first_tile, mine.begin, lane, &even);
  if (mine.begin + 1 < mine.end) load_weights(p, first_tile, mine.begin + 1, lane, &odd);
  wait_for_previous();
  if (kNormed) norm_input(p, normed, parts);

  const uint16_t* rows[kRowTiles];
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
    const int row = first_row + i * 8 + lane / 4;
    const bool inside = row < p.rows;
    const int source = !inside ? 0 : p.gather != nullptr ? p.gather[row] : p.first_row + row;
    const uint16_t* x = kNormed ? normed + row * p.k_blocks * kTileK : p.x + source * p.x_stride;
    rows[i] = inside ? x : nullptr;
  }

  float total[kColTiles][kRowTiles][4] = {};
  for (int c = mine.begin; c < mine.end; c += 2) {
    load_inputs<kRowTiles, kNormed>(p, rows, c, lane % 4, &in);
    add_chunk(even, in, total);
    if (c + 1 >= mine.end) break;
    if (c + 2 < mine.end) load_weights(p, first_tile, c + 2, lane, &even);
    load_inputs<kRowTiles, kNormed>(p, rows, c + 1, lane % 4, &in);
    add_chunk(odd, in, total);
    if (c + 3 < mine.end) load_weights(p, first_tile, c + 3, lane, &odd);
  }
  leave_part(total, warp, lane, parts);
  __syncthreads();

  constexpr int kPairs = kColTiles * kTileN / 2;
  for (int i = static_cast<int>(threadIdx.x); i < kRowTiles * 8 * kPairs;
       i += kDecodeWarps * kWarp) {
    const int row = i / kPairs;
    const int pair = i % kPairs;
    if (first_row + row >= p.rows) break;
    const float* at = parts + row * kPitch + 2 * pair;
    float a = at[0];
    float b = at[1];
#pragma unroll
    for (int w = 1; w < kDecodeWarps; ++w) {
      a += at[w * kPartFloats];
      b += at[w * kPartFloats + 1];
    }
    const int to = (p.gather != nullptr ? 0 : p.first_row) + first_row + row;
    const int n = first_tile * kTileN + 2 * pair;
    sink_two(p.sink, to, n, a, b);
  }
}

template <int kColTiles, int kRowTiles, bool kNormed = false>
cudaError_t start(const Card& card, const ProductCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(ceil_parts(call.rows, kRowTiles * 8), ceil_parts(call.n_tiles, kColTiles));
  shape.threads = kDecodeWarps * kWarp;
  shape.shared_bytes = sizeof(float) * kDecodeWarps * kRowTiles * 8 * decode_pitch(kColTiles);
  if (kNormed) shape.shared_bytes += static_cast<size_t>(call.rows) * call.k_blocks * kTileK * 2;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&decode_kernel<kColTiles, kRowTiles, kNormed>, shape, call);
}

}  // namespace

cudaError_t decode_product(const Card& card, const ProductCall& call) {
  if (call.norm.x != nullptr) return start<1, 1, true>(card, call);
  const DecodeTiles tiles = decode_tiles(call.rows, call.sink.n, card.processors);
  if (tiles.row_tiles == 1) return start<1, 1>(card, call);
  if (tiles.row_tiles == 2) return start<1, 2>(card, call);
  return tiles.n_tiles == 1 ? start<1, 4>(card, call) : start<2, 4>(card, call);
}

}  // namespace polylm
