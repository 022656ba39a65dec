// select.cu: what is left of rows of logits after the head: whole rows kept where they are wanted,
// listed tokens taken out, sums of exponentials over blocks of 1,024 tokens, and the 64 best of the
// rest. keep: grid (blocks of 1,024, rows). take: grid ceil(listed / 256). blocks: grid (blocks of
// 1,024, rows), 256 threads, 8.2 KiB shared.
// merge: grid (groups of 16 lists, rows), until 16 lists are left, which finish merges: grid rows,
// 256 threads.
// Trap: candidates are ordered by one 64-bit key (logit, then lower id), all different, so that any
// way of sorting gives the same list; sums are fixed trees over 256 threads.
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

constexpr int kThreads = 256;
constexpr int kBest = 64;
constexpr int kBlockTokens = 1024;
constexpr int kListsPerBlock = kBlockTokens / kBest;
static_assert(kListsPerBlock == kMergeLists);

// Larger is better: the logit's bits in an order that unsigned numbers share, then the lower id.
// Zero is "nothing": a listed token or one whose logit is -inf.
__device__ __forceinline__ uint64_t key_of(float logit, int32_t id) {
  if (logit == -INFINITY || isnan(logit)) return 0;
  const uint32_t bits = __float_as_uint(logit + 0.0F);  // -0 becomes 0: they are equal
  const uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffU - static_cast<uint32_t>(id));
}
__device__ __forceinline__ float logit_of(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((ordered & 0x80000000U) != 0 ? ordered & 0x7fffffffU : ~ordered);
}
__device__ __forceinline__ int32_t id_of(uint64_t key) {
  return static_cast<int32_t>(0xffffffffU - static_cast<uint32_t>(key & 0xffffffffU));
}

__device__ __forceinline__ void order(uint64_t* keys, int i, int j, bool descending) {
  const uint64_t a = keys[i];
  const uint64_t b = keys[j];
  if ((a < b) == descending) {
    keys[i] = b;
    keys[j] = a;
  }
}

// Sorts 16 lists of 64, even ones descending and odd ones ascending.
__device__ void sort_lists(uint64_t* keys) {
  for (int size = 2; size <= kBest; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < kBlockTokens / 2; pair += kThreads) {
        const int i = pair / step * 2 * step + pair % step;
        order(keys, i, i + step, (i & size) == 0);
      }
    }
  }
  __syncthreads();
}

// Leaves the best 64 of 16 lists (even ones descending, odd ones ascending) in front, descending.
__device__ void merge_lists(uint64_t* keys) {
  for (int lists = kListsPerBlock / 2; lists > 0; lists /= 2) {
    uint64_t best[2];
    for (int r = 0; r < 2; ++r) {
      const int i = static_cast<int>(threadIdx.x) + r * kThreads;
      if (i >= lists * kBest) continue;
      const uint64_t a = keys[i / kBest * 2 * kBest + i % kBest];
      const uint64_t b = keys[i / kBest * 2 * kBest + kBest + i % kBest];
      best[r] = a > b ? a : b;
    }
    __syncthreads();
    for (int r = 0; r < 2; ++r) {
      const int i = static_cast<int>(threadIdx.x) + r * kThreads;
      if (i < lists * kBest) keys[i] = best[r];
    }
    for (int step = kBest / 2; step > 0; step /= 2) {
      __syncthreads();
      const int pair = static_cast<int>(threadIdx.x);
      const int i = pair / step * 2 * step + pair % step;
      if (pair < lists * kBest / 2) order(keys, i, i + step, (i & kBest) == 0);
    }
    __syncthreads();
  }
}

template <class Number, class Combine>
__device__ __forceinline__ Number over_block(Number x, Number* shared, Combine combine) {
  const int tid = static_cast<int>(threadIdx.x);
  __syncthreads();  // what was there has been read
  shared[tid] = x;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) shared[tid] = combine(shared[tid], shared[tid + half]);
  }
  __syncthreads();
  return shared[0];
}
struct Larger {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Plus {
  template <class Number>
  __device__ Number operator()(Number a, Number b) const {
    return a + b;
  }
};

__device__ __forceinline__ bool is_broken(float logit) {
  return isnan(logit) || logit == INFINITY;
}

__global__ void __launch_bounds__(kThreads) keep_rows_kernel(const HeadCall p) {
  let_next_begin();
  wait_for_previous();
  const int32_t kept = p.kept[blockIdx.y];
  if (kept < 0) return;
  const float* from = p.logits + blockIdx.y * p.stride;
  float* to = p.full + kept * p.stride;
  const int first = static_cast<int>(blockIdx.x) * kBlockTokens + static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < kBlockTokens / kThreads; ++i) {
    const int token = first + i * kThreads;
    if (token < p.vocab) to[token] = from[token];
  }
}

__global__ void __launch_bounds__(kThreads) take_listed_kernel(const HeadCall p) {
  let_next_begin();
  wait_for_previous();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= p.listed_count) return;
  const ListedToken listed = p.listed[i];
  const int row = listed.row - p.first_row;
  if (row < 0 || row >= p.rows) return;  // another 128 rows' turn, or no token at all
  float* logit = p.logits + row * p.stride + listed.token;
  const float v = *logit;
  p.listed_logits[i] = v;
  if (is_broken(v)) p.broken[row] = 1;  // everyone who writes writes this
  *logit = -INFINITY;
}

__global__ void __launch_bounds__(kThreads) reduce_blocks_kernel(const HeadCall p) {
  let_next_begin();
  wait_for_previous();
  auto* keys = reinterpret_cast<uint64_t*>(block_shared());
  auto* shared = reinterpret_cast<float*>(block_shared());
  const int tid = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  const float* logits = p.logits + row * p.stride;
  const float temperature = p.wanted[row].temperature;
  float mine[kBlockTokens / kThreads];
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kBlockTokens / kThreads; ++i) {
    const int token = block * kBlockTokens + tid + i * kThreads;
    mine[i] = token < p.vocab ? logits[token] : -INFINITY;
    if (is_broken(mine[i])) p.broken[row] = 1;
    most = fmaxf(most, mine[i]);
  }
  most = over_block(most, shared, Larger());
  float sum = 0.0F;
  float tempered = 0.0F;
#pragma unroll
  for (int i = 0; i < kBlockTokens / kThreads; ++i) {
    if (mine[i] == -INFINITY) continue;
    sum += expf(mine[i] - most);
    tempered += expf((mine[i] - most) / temperature);
  }
  sum = over_block(sum, shared, Plus());
  tempered = over_block(tempered, shared, Plus());
  const int64_t at = static_cast<int64_t>(row) * p.blocks + block;
  if (tid == 0) p.sums[at] = {most, sum, tempered};
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kBlockTokens / kThreads; ++i) {
    keys[tid + i * kThreads] = key_of(mine[i], block * kBlockTokens + tid + i * kThreads);
  }
  sort_lists(keys);
  merge_lists(keys);
  if (tid < kBest) p.lists[at * kBest + tid] = keys[tid];
}

// Lists of 64 that are to be merged, [rows, lists, 64].
struct Lists {
  const uint64_t* from = nullptr;
  int32_t count = 0;
};
// 16 of a row's lists from list 16 * group on, as merge_lists wants them.
__device__ __forceinline__ void load_lists(const Lists& lists, int row, int group,
                                           uint64_t* keys) {
  for (int i = static_cast<int>(threadIdx.x); i < kBlockTokens; i += kThreads) {
    const int list = i / kBest;
    const int source = group * kMergeLists + list;
    const int place = list % 2 == 0 ? i % kBest : kBest - 1 - i % kBest;
    const int64_t at = static_cast<int64_t>(row) * lists.count + source;
    keys[i] = source < lists.count ? lists.from[at * kBest + place] : 0;
  }
  __syncthreads();
}

struct MergeCall {
  Lists lists;
  uint64_t* to = nullptr;  // [rows, ceil(lists / 16), 64]
};
__global__ void __launch_bounds__(kThreads) merge_kernel(const MergeCall p) {
  let_next_begin();
  wait_for_previous();
  auto* keys = reinterpret_cast<uint64_t*>(block_shared());
  load_lists(p.lists, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x), keys);
  merge_lists(keys);
  const int64_t at = (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * kBest;
  if (threadIdx.x < kBest) p.to[at + threadIdx.x] = keys[threadIdx.x];
}

struct FinishCall {
  HeadCall head;
  Lists lists;  // at most 16
};
__global__ void __launch_bounds__(kThreads) finish_kernel(const FinishCall call) {
  let_next_begin();
  wait_for_previous();
  const HeadCall& p = call.head;
  auto* keys = reinterpret_cast<uint64_t*>(block_shared());
  auto* shared = reinterpret_cast<double*>(block_shared());  // once the keys have been taken
  const int tid = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);
  load_lists(call.lists, row, 0, keys);
  merge_lists(keys);
  const uint64_t mine = tid < kBest ? keys[tid] : 0;
  const BlockSum* sums = p.sums + static_cast<int64_t>(row) * p.blocks;
  const auto temperature = static_cast<double>(p.wanted[row].temperature);
  float most = -INFINITY;
  for (int b = tid; b < p.blocks; b += kThreads) most = fmaxf(most, sums[b].highest);
  most = over_block(most, reinterpret_cast<float*>(shared), Larger());
  double sum = 0.0;
  double tempered = 0.0;
  for (int b = tid; b < p.blocks; b += kThreads) {
    if (sums[b].highest == -INFINITY) continue;
    const double below = static_cast<double>(sums[b].highest) - static_cast<double>(most);
    sum += static_cast<double>(sums[b].sum) * exp(below);
    tempered += static_cast<double>(sums[b].tempered) * exp(below / temperature);
  }
  sum = over_block(sum, shared, Plus());
  tempered = over_block(tempered, shared, Plus());
  const bool finite = p.broken[row] == 0;
  HeadResult* r = p.results + row;
  const uint64_t key = finite ? mine : 0;
  const float count = over_block(key != 0 ? 1.0F : 0.0F, reinterpret_cast<float*>(shared), Plus());
  if (tid < kBest) {
    r->ids[tid] = key != 0 ? id_of(key) : -1;
    r->logits[tid] = key != 0 ? logit_of(key) : -INFINITY;
  }
  if (tid != 0) return;
  r->finite = finite ? 1 : 0;
  r->count = static_cast<int32_t>(count);
  r->highest = most;
  r->sum = finite && most != -INFINITY ? sum : 0.0;
  r->tempered = finite && most != -INFINITY ? tempered : 0.0;
}

}  // namespace

cudaError_t reduce_head(const Card& card, const HeadCall& call) {
  LaunchShape shape;
  shape.threads = kThreads;
  shape.stream = card.stream;
  shape.may_overlap = card.overlaps;
  if (call.full != nullptr) {
    shape.grid = grid_of(call.blocks, call.rows);
    const cudaError_t e = launch(&keep_rows_kernel, shape, call);
    if (e != cudaSuccess) return e;
  }
  if (call.listed_count > 0) {
    shape.grid = grid_of(ceil_parts(call.listed_count, kThreads));
    const cudaError_t e = launch(&take_listed_kernel, shape, call);
    if (e != cudaSuccess) return e;
  }
  shape.shared_bytes = sizeof(uint64_t) * kBlockTokens;
  shape.grid = grid_of(call.blocks, call.rows);
  cudaError_t e = launch(&reduce_blocks_kernel, shape, call);
  Lists lists{call.lists, call.blocks};
  uint64_t* to = call.merged;
  while (e == cudaSuccess && lists.count > kMergeLists) {
    const auto groups = static_cast<int32_t>(ceil_parts(lists.count, kMergeLists));
    shape.grid = grid_of(groups, call.rows);
    e = launch(&merge_kernel, shape, MergeCall{lists, to});
    lists = {to, groups};
    to = to == call.merged ? call.lists : call.merged;
  }
  if (e != cudaSuccess) return e;
  shape.grid = grid_of(call.rows);
  return launch(&finish_kernel, shape, FinishCall{call, lists});
}

}  // namespace polylm
