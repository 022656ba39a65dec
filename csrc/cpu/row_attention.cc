// row_attention.cc: one head of one row over one segment, and the fold. See row_attention.h.
#include "cpu/row_attention.h"

#include <algorithm>

#include "platform/checked.h"

namespace polylm {
namespace {

constexpr int64_t kSegmentBlocks = kSegmentKeys / kCpuBlockTokens;

}  // namespace

struct alignas(64) RowAttention::Partial {
  float out[kMaxHeadSize];
  float highest;
  float sum;
};

void RowAttention::reserve(const StepLimits& limits, int64_t heads) {
  const auto array = [](int64_t count, size_t size_bytes) {
    return Buffer(checked_mul(count, static_cast<int64_t>(size_bytes)), "the step's attention");
  };
  const int64_t segments = checked_mul(limits.sequences, ceil_div(limits.context, kSegmentKeys));
  rows_ = array(limits.sequences, sizeof(Row));
  segment_rows_ = array(segments, sizeof(int32_t));
  partials_ = array(checked_mul(segments, heads), sizeof(Partial));
  pending_ = array(checked_mul(limits.sequences, heads), sizeof(std::atomic<int32_t>));
}

int64_t RowAttention::size_bytes() const {
  return rows_.size_bytes() + segment_rows_.size_bytes() + partials_.size_bytes() +
         pending_.size_bytes();
}

void RowAttention::add(int64_t row, int64_t position, const int32_t* blocks) {
  const int64_t keys = position + 1;
  const int64_t segments = ceil_div(keys, kSegmentKeys);
  rows_.as<Row>()[row_count_] = {row, keys, blocks, segment_count_, segments};
  std::fill_n(segment_rows_.as<int32_t>() + segment_count_, segments,
              static_cast<int32_t>(row_count_));
  ++row_count_;
  segment_count_ += segments;
  step_keys_ += keys;
}

void RowAttention::run(const AttentionArgs& a) {
  if (row_count_ == 0) return;
  const int64_t heads = a.cache->shape.heads;
  const auto* rows = rows_.as<Row>();
  auto* pending = pending_.as<std::atomic<int32_t>>();
  for (int64_t i = 0; i < row_count_; ++i) {
    for (int64_t head = 0; head < heads; ++head) {
      pending[i * heads + head].store(static_cast<int32_t>(rows[i].segments),
                                      std::memory_order_relaxed);
    }
  }
  const int64_t work = step_keys_ * heads * a.cache->padded_head * 2;
  context_.for_each(segment_count_ * heads, 1, work, [&](Range one, int64_t) {
    const int64_t task = one.begin;
    const int64_t index = segment_rows_.as<int32_t>()[task / heads];
    const int64_t head = task % heads;
    const Row& r = rows[index];
    auto* partials = partials_.as<Partial>() + r.first_segment * heads + head;
    const int64_t number = task / heads - r.first_segment;
    segment(a, r, number, head, first_block(a, task + 1), partials + number * heads);
    if (pending[index * heads + head].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    finish(a, r, head, partials);
  });
}

// Where a task begins to read; of the one that is none, where the one before began.
const char* RowAttention::first_block(const AttentionArgs& a, int64_t task) const {
  const int64_t heads = a.cache->shape.heads;
  if (task == segment_count_ * heads) --task;
  const Row& r = rows_.as<Row>()[segment_rows_.as<int32_t>()[task / heads]];
  const int64_t block = (task / heads - r.first_segment) * kSegmentBlocks;
  return a.cache->k_of(a.cache->block(a.layer, r.blocks[block]), task % heads);
}

void RowAttention::segment(const AttentionArgs& a, const Row& r, int64_t segment, int64_t head,
                           const char* next, Partial* to) const {
  const KvCache& cache = *a.cache;
  const KernelTable& kernels = *context_.kernels;
  const int64_t keys = std::min(kSegmentKeys, r.keys - segment * kSegmentKeys);
  const int64_t blocks = ceil_div(keys, kCpuBlockTokens);
  const char* k[kSegmentBlocks + 2];
  const char* v[kSegmentBlocks + 2];
  for (int64_t b = 0; b < blocks; ++b) {
    char* block = cache.block(a.layer, r.blocks[segment * kSegmentBlocks + b]);
    k[b] = cache.k_of(block, head);
    v[b] = cache.v_of(block, head);
  }
  k[blocks] = v[0];
  k[blocks + 1] = v[blocks > 1 ? 1 : 0];
  v[blocks] = v[blocks + 1] = next;
  alignas(64) float scores[kSegmentKeys];
  alignas(64) float p[kSegmentKeys];  // bf16 in the first half where inputs are bf16

  RowListArgs list;
  list.x = a.q + (r.row * a.stride + head * cache.shape.head_size) * context_.element_bytes();
  list.w = k;
  list.count = blocks;
  list.k_tiles = cache.padded_head / kTileK;
  list.n_tiles = kCpuBlockTokens / kTileN;
  list.out = scores;
  context_.row_scores(cache.is_bf16)(list);

  SoftmaxArgs softmax;
  softmax.scores = scores;
  softmax.rows = 1;
  softmax.first_keys = keys;
  softmax.width = blocks * kCpuBlockTokens;
  softmax.kind = context_.kind;
  softmax.p = p;
  softmax.highest = &to->highest;
  softmax.sum = &to->sum;
  kernels.softmax(softmax);

  list.x = p;
  list.w = v;
  list.k_tiles = 1;
  list.n_tiles = cache.padded_head / kTileN;
  list.out = to->out;
  context_.row_sums(cache.is_bf16)(list);
}

void RowAttention::finish(const AttentionArgs& a, const Row& r, int64_t head,
                          Partial* partials) const {
  const int64_t heads = a.cache->shape.heads;
  for (int64_t i = 1; i < r.segments; ++i) {
    const Partial& fresh = partials[i * heads];
    FoldArgs fold;
    fold.highest = &partials->highest;
    fold.sum = &partials->sum;
    fold.out = partials->out;
    fold.segment_highest = fresh.highest;
    fold.segment_sum = fresh.sum;
    fold.segment_out = fresh.out;
    fold.size = a.cache->padded_head;
    context_.kernels->fold(fold);
  }
  const int64_t size = a.cache->shape.head_size;
  char* out = a.out + (r.row * a.stride + head * size) * context_.element_bytes();
  context_.kernels->store_inputs(context_.kind, partials->out, 1.0F / partials->sum, out, size);
}

}  // namespace polylm
