// attention.cc: scores, softmax and weighted sums as products over packed blocks. See attention.h.
#include "cpu/attention.h"

#include <algorithm>
#include <cstring>

namespace polylm {

// What one worker needs for one task. Everything is overwritten before it is read.
struct alignas(64) Attention::Scratch {
  float scores[kGroupRows * kSegmentKeys];
  float p[kGroupRows * kSegmentKeys];  // bf16 in the first half where inputs are bf16
  float segment_out[kGroupRows * kMaxHeadSize];
  float out[kGroupRows * kMaxHeadSize];
  float segment_highest[kGroupRows];
  float segment_sum[kGroupRows];
  float highest[kGroupRows];
  float sum[kGroupRows];
};

namespace {

// The lines of the next block on their way while this one is being used: blocks are scattered, so
// the hardware cannot guess.
void prefetch_lines(const char* from, int64_t size_bytes) {
  for (int64_t i = 0; i < size_bytes; i += 64) __builtin_prefetch(from + i);
}

}  // namespace

void Attention::reserve(const StepLimits& limits, int64_t heads) {
  alone_.reserve(limits, heads);
  groups_ = Buffer(limits.rows * static_cast<int64_t>(sizeof(RowGroup)), "the step's tables");
  scratch_ = Buffer(context_.workers * static_cast<int64_t>(sizeof(Scratch)), "attention");
}

void Attention::begin(const StepInputs& in) {
  auto* groups = groups_.as<RowGroup>();
  group_count_ = 0;
  step_keys_ = 0;
  alone_.clear();
  for (int64_t i = 0; i < in.sequence_count; ++i) {
    const SequenceRows& s = in.sequences[i];
    for (int64_t row = 0; row < s.row_count; row += kGroupRows) {
      const int64_t rows = std::min(kGroupRows, s.row_count - row);
      if (rows == 1) {
        alone_.add(s.first_row + row, s.first_position + row, s.blocks);
        continue;
      }
      groups[group_count_++] = {s.first_row + row, rows, s.first_position + row, s.blocks};
      step_keys_ += rows * (s.first_position + row + rows);
    }
  }
}

void Attention::run(const AttentionArgs& a) {
  alone_.run(a);
  if (group_count_ == 0) return;
  const int64_t heads = a.cache->shape.heads;
  const int64_t tasks = group_count_ * heads;
  const auto* groups = groups_.as<RowGroup>();
  auto* scratch = scratch_.as<Scratch>();
  const int64_t work = step_keys_ * heads * a.cache->padded_head * 2;
  context_.for_each(tasks, 1, work, [&](Range one, int64_t worker) {
    // A part of the tasks is some heads of all groups, so that parts are alike; within a part the
    // last groups of a prompt, which see the most keys, come first.
    const int64_t group = group_count_ - 1 - one.begin % group_count_;
    attend(a, groups[group], one.begin / group_count_, scratch + worker);
    context_.rest();
  });
}

void Attention::attend(const AttentionArgs& a, const RowGroup& g, int64_t head, Scratch* s) const {
  const int64_t width = a.cache->padded_head;
  const int64_t keys = g.first_position + g.rows;
  for (int64_t first_key = 0; first_key < keys; first_key += kSegmentKeys) {
    segment(a, g, head, first_key, s);
    // Rows before the segment see none of it.
    const int64_t skipped = std::max<int64_t>(0, first_key - g.first_position);
    for (int64_t r = skipped; r < g.rows; ++r) {
      const float* fresh = s->segment_out + (r - skipped) * kMaxHeadSize;
      float* total = s->out + r * kMaxHeadSize;
      if (first_key == 0) {
        s->highest[r] = s->segment_highest[r];
        s->sum[r] = s->segment_sum[r];
        std::memcpy(total, fresh, static_cast<size_t>(width) * sizeof(float));
        continue;
      }
      FoldArgs fold;
      fold.highest = s->highest + r;
      fold.sum = s->sum + r;
      fold.out = total;
      fold.segment_highest = s->segment_highest[r - skipped];
      fold.segment_sum = s->segment_sum[r - skipped];
      fold.segment_out = fresh;
      fold.size = width;
      context_.kernels->fold(fold);
    }
  }
  const int64_t size = a.cache->shape.head_size;
  for (int64_t r = 0; r < g.rows; ++r) {
    char* out = a.out + ((g.first_row + r) * a.stride + head * size) * context_.element_bytes();
    context_.kernels->store_inputs(context_.kind, s->out + r * kMaxHeadSize, 1.0F / s->sum[r], out,
                                   size);
  }
}

// Rows of the group that see keys from first_key on, over [first_key, first_key + 256).
void Attention::segment(const AttentionArgs& a, const RowGroup& g, int64_t head,
                        int64_t first_key, Scratch* s) const {
  const KvCache& cache = *a.cache;
  const int64_t skipped = std::max<int64_t>(0, first_key - g.first_position);
  const int64_t keys = std::min(kSegmentKeys, g.first_position + g.rows - first_key);
  const int64_t blocks = (keys + kCpuBlockTokens - 1) / kCpuBlockTokens;
  const int32_t* table = g.blocks + first_key / kCpuBlockTokens;
  const auto product = context_.product(cache.is_bf16);
  const auto block_at = [&](int64_t b) { return cache.block(a.layer, table[b]); };

  ProductArgs scores;
  scores.x = a.q + ((g.first_row + skipped) * a.stride + head * cache.shape.head_size) *
                       context_.element_bytes();
  scores.x_stride = a.stride;
  scores.rows = g.rows - skipped;
  scores.w_stride_bytes = cache.k_column_bytes();
  scores.k_tiles = cache.padded_head / kTileK;
  scores.n_tiles = kCpuBlockTokens / kTileN;
  scores.out_stride = kSegmentKeys;
  for (int64_t b = 0; b < blocks; ++b) {
    if (b + 1 < blocks) prefetch_lines(cache.k_of(block_at(b + 1), head), cache.half_bytes);
    scores.w = cache.k_of(block_at(b), head);
    scores.out = s->scores + b * kCpuBlockTokens;
    product(scores);
  }

  SoftmaxArgs softmax;
  softmax.scores = s->scores;
  softmax.rows = scores.rows;
  softmax.first_keys = g.first_position + skipped - first_key + 1;
  softmax.width = blocks * kCpuBlockTokens;
  softmax.kind = context_.kind;
  softmax.p = s->p;
  softmax.highest = s->segment_highest;
  softmax.sum = s->segment_sum;
  context_.kernels->softmax(softmax);

  ProductArgs sums;
  sums.x_stride = kSegmentKeys;
  sums.rows = scores.rows;
  sums.w_stride_bytes = cache.v_column_bytes();
  sums.k_tiles = 1;
  sums.n_tiles = cache.padded_head / kTileN;
  sums.out = s->segment_out;
  sums.out_stride = kMaxHeadSize;
  const auto product_list = context_.product_list(cache.is_bf16);
  if (product_list != nullptr) {
    const char* list[kSegmentKeys / kCpuBlockTokens];
    for (int64_t b = 0; b < blocks; ++b) list[b] = cache.v_of(block_at(b), head);
    sums.x = s->p;
    sums.k_tiles = blocks;
    product_list(sums, list);
    return;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    if (b + 1 < blocks) prefetch_lines(cache.v_of(block_at(b + 1), head), cache.half_bytes);
    sums.x = reinterpret_cast<const char*>(s->p) + b * kCpuBlockTokens * context_.element_bytes();
    sums.w = cache.v_of(block_at(b), head);
    sums.continued = b > 0;
    product(sums);
  }
}

}  // namespace polylm
