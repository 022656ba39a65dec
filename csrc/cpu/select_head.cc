// select_head.cc: products block by block, then the reductions of one block, then the merge of the
// workers' answers. See select_head.h.
#include "cpu/select_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

constexpr int64_t kRowsAtOnce = 64;     // rows whose block of logits is in cache together
constexpr int64_t kMergeWork = 1024;    // of one row and worker, in multiply-adds
constexpr int64_t kCompactAt = 512;     // candidates kept before the worst are dropped
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

size_t at(int64_t index) { return static_cast<size_t>(index); }

template <class T>
Buffer array_of(int64_t count) {
  return Buffer(checked_mul(count, static_cast<int64_t>(sizeof(T))), "selecting tokens");
}

}  // namespace

struct SelectHead::RowState {
  int64_t count;
  float above;  // the worst candidate that can still matter: only better ones are looked at
  bool finite;
  Candidate candidates[kCompactAt + kSumTokens];
};

struct alignas(64) SelectHead::Scratch {
  float logits[kRowsAtOnce * kSumTokens];
  float found_logits[kSumTokens];
  int32_t found_ids[kSumTokens];
  RowState rows[kRowsAtOnce];
  Candidate merged[ThreadPool::kMaxWorkers * kCandidates];
};

void SelectHead::reserve(const StepLimits& limits, int64_t input_cols) {
  limits_ = limits;
  const int64_t rows = limits.select_rows;
  block_count_ = ceil_div(limits.vocab, kSumTokens);
  x_stride_ = act_stride(input_cols);
  x_ = array_of<float>(checked_mul(rows, x_stride_));
  scratch_ = array_of<Scratch>(context_.workers);
  sums_ = array_of<BlockSums>(checked_mul(rows, block_count_));
  tops_ = array_of<Candidate>(checked_mul(context_.workers * kCandidates, rows));
  top_counts_ = array_of<int32_t>(context_.workers * rows);
  listed_ = array_of<Listed>(limits.listed);
  listed_begin_ = array_of<int64_t>(rows + 1);
  listed_logits_ = array_of<float>(limits.listed);
  candidate_ids_ = array_of<int32_t>(rows * kCandidates);
  candidate_logits_ = array_of<float>(rows * kCandidates);
  full_ = array_of<float>(checked_mul(limits.full_rows, limits.vocab));
  full_index_ = array_of<int32_t>(rows);
  results_.reserve(at(rows));
}

int64_t SelectHead::size_bytes() const {
  int64_t sum = 0;
  for (const Buffer* b : {&x_, &scratch_, &sums_, &tops_, &top_counts_, &listed_, &listed_begin_,
                          &listed_logits_, &candidate_ids_, &candidate_logits_, &full_,
                          &full_index_}) {
    sum += b->size_bytes();
  }
  return sum;
}

SelectHead::Scratch* SelectHead::scratch_of(int64_t worker) const {
  return scratch_.as<Scratch>() + worker;
}

const float* SelectHead::full_row(int64_t index) const {
  POLYLM_CHECK_LT(index, static_cast<int64_t>(results_.size()));
  const int32_t kept = full_index_.as<int32_t>()[index];
  POLYLM_CHECK_LE(0, kept);
  return full_.as<float>() + kept * limits_.vocab;
}

void SelectHead::run(const SelectRow* rows, int64_t row_count, const PackedMatrix& w,
                     const char* h, int64_t h_stride) {
  results_.resize(at(row_count));
  if (row_count == 0) return;
  gather_rows(rows, row_count, w, h, h_stride);
  prepare_rows(rows, row_count);
  const int64_t work = row_count * w.n * w.k;
  const int64_t workers = context_.workers_for(work);
  for (int64_t first = 0; first < row_count; first += kRowsAtOnce) {
    const Group group = {first, std::min(kRowsAtOnce, row_count - first)};
    for (int64_t i = 0; i < workers; ++i) {  // of workers that come too late
      std::fill_n(top_counts_.as<int32_t>() + i * limits_.select_rows + first, group.rows, 0);
    }
    SharedWork blocks(block_count_, 1, workers);
    ThreadPool::shared().run_helped(
        workers, [&](int64_t worker) { reduce_group(rows, group, w, &blocks, worker); });
  }
  context_.for_each(row_count, 1, row_count * workers * kMergeWork, [&](Range one, int64_t worker) {
    merge_row(rows[one.begin], one.begin, workers, scratch_of(worker));
  });
}

// The chosen rows of h side by side; as fp32 where the matrix is.
void SelectHead::gather_rows(const SelectRow* rows, int64_t row_count, const PackedMatrix& w,
                             const char* h, int64_t h_stride) {
  const int64_t bytes = context_.element_bytes();
  const int64_t cols = w.k_tiles * kTileK;
  const bool widen = w.format == WeightFormat::kFp32;
  for (int64_t i = 0; i < row_count; ++i) {
    const char* from = h + rows[i].row * h_stride * bytes;
    if (widen) {
      context_.kernels->load_inputs(context_.kind, from, x_.as<float>() + i * x_stride_, cols);
    } else {
      std::memcpy(x_.as<char>() + i * x_stride_ * bytes, from, at(cols * bytes));
    }
  }
}

// Sorts each row's listed tokens and gives out the full rows.
void SelectHead::prepare_rows(const SelectRow* rows, int64_t row_count) {
  auto* listed = listed_.as<Listed>();
  auto* begin = listed_begin_.as<int64_t>();
  int32_t kept = 0;
  begin[0] = 0;
  for (int64_t i = 0; i < row_count; ++i) {
    full_index_.as<int32_t>()[i] = rows[i].keep_full ? kept++ : -1;
    int64_t place = begin[i];
    for (int64_t j = 0; j < rows[i].listed_count; ++j, ++place) {
      listed[place] = {rows[i].listed[j], static_cast<int32_t>(place)};
    }
    std::sort(listed + begin[i], listed + place,
              [](const Listed& a, const Listed& b) { return a.token < b.token; });
    begin[i + 1] = place;
  }
}

void SelectHead::reduce_group(const SelectRow* rows, Group g, const PackedMatrix& w,
                              SharedWork* blocks, int64_t worker) {
  Scratch* s = scratch_of(worker);
  for (int64_t r = 0; r < g.rows; ++r) {
    s->rows[r].count = 0;
    s->rows[r].above = kMinusInfinity;
    s->rows[r].finite = true;
  }
  const bool wide = w.format == WeightFormat::kFp32;
  const int64_t x_bytes = wide ? 4 : context_.element_bytes();
  ProductArgs product;
  product.x = x_.as<char>() + g.first_row * x_stride_ * x_bytes;
  product.x_stride = x_stride_;
  product.rows = g.rows;
  product.w_stride_bytes = w.column_bytes;
  product.k_tiles = w.k_tiles;
  product.out = s->logits;
  product.out_stride = kSumTokens;
  product.streamed = true;
  int64_t helped = 0;
  for (Range one; blocks->take(worker, &helped, &one);) {
    const int64_t block = one.begin;
    const int64_t first_tile = block * (kSumTokens / kTileN);
    product.w = w.column(first_tile);
    product.n_tiles = std::min(kSumTokens / kTileN, w.n_tiles - first_tile);
    context_.product(!wide)(product);
    const int64_t count = std::min(kSumTokens, w.n - block * kSumTokens);
    for (int64_t r = 0; r < g.rows; ++r) {
      const int64_t index = g.first_row + r;
      reduce_block(rows[index], index, block, s->logits + r * kSumTokens, count, &s->rows[r], s);
    }
  }
  context_.rest();
  for (int64_t r = 0; r < g.rows; ++r) {
    RowState& state = s->rows[r];
    keep_best(&state);
    const int64_t slot = worker * limits_.select_rows + g.first_row + r;
    std::copy_n(state.candidates, state.count, tops_.as<Candidate>() + slot * kCandidates);
    top_counts_.as<int32_t>()[slot] = state.finite ? static_cast<int32_t>(state.count) : -1;
  }
}

void SelectHead::reduce_block(const SelectRow& wanted, int64_t index, int64_t block,
                              float* logits, int64_t count, RowState* state, Scratch* s) {
  const KernelTable& k = *context_.kernels;
  const int64_t first_token = block * kSumTokens;
  if (k.has_nonfinite(logits, count)) state->finite = false;
  if (wanted.keep_full) {
    float* full = full_.as<float>() + full_index_.as<int32_t>()[index] * limits_.vocab;
    std::memcpy(full + first_token, logits, at(count) * sizeof(float));
  }
  const auto* begin = listed_.as<Listed>() + listed_begin_.as<int64_t>()[index];
  const auto* end = listed_.as<Listed>() + listed_begin_.as<int64_t>()[index + 1];
  const auto* hit = std::lower_bound(begin, end, first_token, [](const Listed& l, int64_t token) {
    return l.token < token;
  });
  const auto* past = hit;
  for (; past != end && past->token < first_token + count; ++past) {
    listed_logits_.as<float>()[past->place] = logits[past->token - first_token];
  }
  for (; hit != past; ++hit) logits[hit->token - first_token] = kMinusInfinity;
  sums_.as<BlockSums>()[index * block_count_ + block] =
      k.block_sums(logits, count, wanted.temperature);
  const int64_t found = k.filter(logits, count, state->above, static_cast<int32_t>(first_token),
                                 s->found_logits, s->found_ids);
  for (int64_t i = 0; i < found; ++i) {
    state->candidates[state->count++] = {s->found_logits[i], s->found_ids[i]};
  }
  if (state->count > kCompactAt) keep_best(state);
}

// Leaves the best 64. From then on logits matter that are at least the worst of them: an equal one
// may still win by its id, because blocks do not come in order.
void SelectHead::keep_best(RowState* state) {
  if (state->count < kCandidates) return;
  Candidate* c = state->candidates;
  std::nth_element(c, c + kCandidates - 1, c + state->count, better);
  state->count = kCandidates;
  state->above = std::nextafter(c[kCandidates - 1].logit, kMinusInfinity);
}

void SelectHead::merge_row(const SelectRow& wanted, int64_t index, int64_t workers, Scratch* s) {
  SelectResult& r = results_[at(index)];
  r = SelectResult{};
  r.listed_logits = listed_logits_.as<float>() + listed_begin_.as<int64_t>()[index];
  r.candidate_ids = candidate_ids_.as<int32_t>() + index * kCandidates;
  r.candidate_logits = candidate_logits_.as<float>() + index * kCandidates;
  int64_t count = 0;
  for (int64_t worker = 0; worker < workers; ++worker) {
    const int64_t slot = worker * limits_.select_rows + index;
    const int32_t found = top_counts_.as<int32_t>()[slot];
    if (found < 0) r.finite = false;
    for (int32_t i = 0; i < found; ++i) {
      s->merged[count++] = tops_.as<Candidate>()[slot * kCandidates + i];
    }
  }
  const BlockSums* sums = sums_.as<BlockSums>() + index * block_count_;
  r.rest_max = kMinusInfinity;
  for (int64_t b = 0; b < block_count_; ++b) r.rest_max = std::max(r.rest_max, sums[b].highest);
  if (!r.finite || r.rest_max == kMinusInfinity) return;
  for (int64_t b = 0; b < block_count_; ++b) {
    if (sums[b].highest == kMinusInfinity) continue;
    const auto below = static_cast<double>(sums[b].highest) - static_cast<double>(r.rest_max);
    r.rest_sum_exp += static_cast<double>(sums[b].sum) * std::exp(below);
    r.rest_sum_exp_tempered += static_cast<double>(sums[b].tempered) *
                               std::exp(below / static_cast<double>(wanted.temperature));
  }
  r.candidate_count = std::min(count, kCandidates);
  std::partial_sort(s->merged, s->merged + r.candidate_count, s->merged + count, better);
  for (int64_t i = 0; i < r.candidate_count; ++i) {
    candidate_ids_.as<int32_t>()[index * kCandidates + i] = s->merged[i].id;
    candidate_logits_.as<float>()[index * kCandidates + i] = s->merged[i].logit;
  }
}

}  // namespace polylm
