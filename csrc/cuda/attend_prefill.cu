// attend_prefill.cu: causal attention of prompt rows. 64 neighbouring rows of one sequence and one
// head walk over the keys from 0 to their own positions, 32 at a time, with a running softmax.
// Grid: (tiles of 64 rows, heads). Block: 4 warps of 16 rows. Shared memory: 2 or 3 stages of one
// block's K and V of the head, 128 bytes x D each: 48 KiB for D = 128, 64 KiB for D = 256.
// Trap: key tiles are anchored at key 0 and a tile that a row does not see changes nothing of it,
// so bits depend neither on how a prompt was cut nor on which rows share a block.
#include "cuda/attend.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 128;

// Starts copying K and V of one head of a key block, K with its pieces where k_piece says. The
// count of copies is a constant, so that the compiler computes addresses once.
template <int kD32>
__device__ __forceinline__ void fill_stage(const AttendCall& p, int64_t block,
                                           unsigned char* stage) {
  constexpr int kPadded = 32 * kD32;
  constexpr int kPieces = kCudaBlockTokens * kPadded / 8;  // 16 bytes each, of K; V has as many
  static_assert(kPieces % kThreads == 0);
  const int64_t head = block * p.heads + blockIdx.y;
  const int thread = static_cast<int>(threadIdx.x);
  const uint16_t* from =
      static_cast<const uint16_t*>(p.layer) + head * 2 * kPieces * 8 + thread * 8;
#pragma unroll
  for (int j = 0; j < kPieces / kThreads; ++j) {
    const int i = thread + j * kThreads;
    const int to = k_piece(i / (kPadded / 8), i % (kPadded / 8), kPadded);
    copy16_async(stage + to * 16, from + j * kThreads * 8, true);
  }
#pragma unroll
  for (int j = 0; j < kPieces / kThreads; ++j) {
    copy16_async(stage + (kPieces + thread + j * kThreads) * 16,
                 from + (kPieces + j * kThreads) * 8, true);
  }
}

template <int kD32>
__device__ __forceinline__ void store_rows(const AttendCall& p, const QueryTile& tile, int first,
                                           const AttendState<kD32>& state) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane / 4 + 8 * half;
    if (row >= tile.rows) continue;
    const float scale = 1.0F / state.sum[half];
    uint16_t* out = static_cast<uint16_t*>(p.out) + (tile.first_row + row) * p.stride +
                    static_cast<int64_t>(blockIdx.y) * p.head_size;
#pragma unroll
    for (int i = 0; i < 4 * kD32; ++i) {
      const int d = i * 8 + lane % 4 * 2;
      if (d >= p.head_size) continue;
      *reinterpret_cast<uint32_t*>(out + d) =
          pack_bf16(state.out[i][2 * half] * scale, state.out[i][2 * half + 1] * scale);
    }
  }
}

template <int kD32>
__global__ void __launch_bounds__(kThreads) prefill_attend_kernel(const AttendCall p) {
  constexpr int kPadded = 32 * kD32;
  constexpr int kStages = attend_stages(kPadded);
  constexpr int kStageBytes = 2 * kCudaBlockTokens * kPadded * 2;
  let_next_begin();
  wait_for_previous();
  unsigned char* ring = block_shared();
  const QueryTile tile = p.tiles[blockIdx.x];
  const int first = static_cast<int>(threadIdx.x) / kWarp * 16;  // of this warp's rows
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4;
  const int t = lane % 4;

  const uint16_t* q = static_cast<const uint16_t*>(p.q) + tile.first_row * p.stride +
                      static_cast<int64_t>(blockIdx.y) * p.head_size;
  const int row = first + g;
  QueryFragments<kD32> queries;
  load_queries(row < tile.rows ? q + row * p.stride : nullptr,
               row + 8 < tile.rows ? q + (row + 8) * p.stride : nullptr, p.head_size, t, &queries);
  const int sees[2] = {row < tile.rows ? tile.first_position + row + 1 : 0,
                       row + 8 < tile.rows ? tile.first_position + row + 9 : 0};
  const int warp_rows = min(16, tile.rows - first);
  const int warp_end = warp_rows > 0 ? tile.first_position + first + warp_rows : 0;
  const int length = tile.first_position + tile.rows;
  const int blocks = (length + kCudaBlockTokens - 1) / kCudaBlockTokens;

  AttendState<kD32> state;
  clear(&state);
  const int32_t* table = p.tables + tile.table;
  int32_t soon = kStages - 1 < blocks ? table[kStages - 1] : 0;  // of the stage to be filled next
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < blocks) fill_stage<kD32>(p, table[s], ring + s * kStageBytes);
    copies_commit();
  }
  for (int block = 0; block < blocks; ++block) {
    copies_wait<kStages - 2>();
    __syncthreads();  // the stage is full, and everyone is done with the one to be filled next
    const int next = block + kStages - 1;
    if (next < blocks) fill_stage<kD32>(p, soon, ring + next % kStages * kStageBytes);
    if (next + 1 < blocks) soon = table[next + 1];
    copies_commit();
    const int first_key = block * kCudaBlockTokens;
    if (first_key >= warp_end) continue;
    const unsigned char* k = ring + block % kStages * kStageBytes;
    const unsigned char* v = k + kCudaBlockTokens * kPadded * 2;
    attend_keys<kD32>(
        queries, first_key, sees, length,
        [&](int i, int b) {
          const int piece = k_piece(key_of_column(i, g), b * 4 + t, kPadded);
          return *reinterpret_cast<const Quad*>(k + piece * 16);
        },
        [&](int i) { return *reinterpret_cast<const Quad*>(v + v_element(8 * t, i * 8 + g) * 2); },
        &state);
  }
  finish_sums(&state);
  store_rows<kD32>(p, tile, first, state);
}

template <int kD32>
cudaError_t start(const Card& card, const AttendCall& call) {
  LaunchShape shape;
  shape.grid = grid_of(call.tile_count, call.heads);
  shape.threads = kThreads;
  shape.shared_bytes = static_cast<size_t>(attend_stages(32 * kD32)) * 2 * kCudaBlockTokens *
                       (32 * kD32) * 2;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  return launch(&prefill_attend_kernel<kD32>, shape, call);
}

}  // namespace

cudaError_t attend_prefill(const Card& card, const AttendCall& call) {
  switch (call.padded / 32) {
    case 1: return start<1>(card, call);
    case 2: return start<2>(card, call);
    case 3: return start<3>(card, call);
    case 4: return start<4>(card, call);
    case 5: return start<5>(card, call);
    case 6: return start<6>(card, call);
    case 7: return start<7>(card, call);
    default: return start<8>(card, call);
  }
}

}  // namespace polylm
