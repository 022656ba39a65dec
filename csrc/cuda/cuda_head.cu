// cuda_head.cu: see cuda_head.h.
#include "cuda/cuda_head.h"

#include <algorithm>

#include "cuda/tiles.h"
#include "platform/checked.h"

namespace polylm {
namespace {

static_assert(kCandidates == 64 && kSumTokens == 1024, "select.cu is written for these");

template <class T>
int64_t bytes_of(int64_t count) {
  return checked_mul(count, static_cast<int64_t>(sizeof(T)));
}

}  // namespace

void CudaHead::reserve(const StepLimits& limits) {
  limits_ = limits;
  at_once_ = std::min<int64_t>(limits.select_rows, kHeadRows);
  stride_ = logit_stride(limits.vocab);
  blocks_ = ceil_div(limits.vocab, kSumTokens);
  places_.gather = round_up(bytes_of<HeadRow>(limits.select_rows), 256);
  places_.listed = places_.gather + round_up(bytes_of<int32_t>(limits.select_rows), 256);
  places_.end = places_.listed + bytes_of<ListedToken>(limits.listed);
  constexpr const char* kPurpose = "selecting tokens";
  upload_host_ = PinnedBuffer(places_.end, kPurpose);
  upload_card_ = DeviceBuffer(places_.end, kPurpose);
  logits_ = DeviceBuffer(bytes_of<float>(checked_mul(at_once_, stride_)), kPurpose);
  sums_ = DeviceBuffer(bytes_of<BlockSum>(checked_mul(at_once_, blocks_)), kPurpose);
  lists_ = DeviceBuffer(bytes_of<uint64_t>(checked_mul(at_once_, blocks_ * kCandidates)), kPurpose);
  const int64_t merged = ceil_div(blocks_, kMergeLists) * kCandidates;
  merged_ = DeviceBuffer(bytes_of<uint64_t>(checked_mul(at_once_, merged)), kPurpose);
  broken_ = DeviceBuffer(bytes_of<int32_t>(limits.select_rows), kPurpose);
  const int64_t answer =
      bytes_of<HeadResult>(limits.select_rows) + bytes_of<float>(limits.listed);
  answer_ = DeviceBuffer(answer, kPurpose);
  answer_host_ = PinnedBuffer(answer, kPurpose);
  full_ = DeviceBuffer(bytes_of<float>(checked_mul(limits.full_rows, stride_)), kPurpose);
  full_host_ = Buffer(bytes_of<float>(checked_mul(limits.full_rows, limits.vocab)), kPurpose);
  listed_begin_.assign(static_cast<size_t>(limits.select_rows) + 1, 0);
  full_index_.assign(static_cast<size_t>(limits.select_rows), -1);
  results_.reserve(static_cast<size_t>(limits.select_rows));
}

int64_t CudaHead::size_bytes() const {
  int64_t sum = 0;
  for (const DeviceBuffer* b :
       {&upload_card_, &logits_, &sums_, &lists_, &merged_, &broken_, &answer_, &full_}) {
    sum += b->size_bytes();
  }
  return sum;
}

void CudaHead::clear() {
  row_count_ = 0;
  listed_count_ = 0;
  results_.clear();
}

// The rows' tables in page-locked memory; `row` of a listed token counts from its group's first.
void CudaHead::fill_tables(const SelectRow* rows, int64_t count) {
  auto* wanted = upload_host_.as<HeadRow>();
  auto* gather = reinterpret_cast<int32_t*>(upload_host_.as<char>() + places_.gather);
  auto* listed = reinterpret_cast<ListedToken*>(upload_host_.as<char>() + places_.listed);
  int32_t kept = 0;
  listed_count_ = 0;
  for (int64_t i = 0; i < count; ++i) {
    wanted[i].temperature = rows[i].temperature;
    gather[i] = static_cast<int32_t>(rows[i].row);
    full_index_[static_cast<size_t>(i)] = rows[i].keep_full ? kept++ : -1;
    for (int64_t j = 0; j < rows[i].listed_count; ++j) {
      listed[listed_count_++] = {static_cast<int32_t>(i % kHeadRows), rows[i].listed[j]};
    }
    listed_begin_[static_cast<size_t>(i) + 1] = listed_count_;
  }
}

cudaError_t CudaHead::run(const Card& card, const SelectRow* rows, int64_t count,
                          const Product& product) {
  row_count_ = count;
  if (count == 0) return cudaSuccess;
  fill_tables(rows, count);
  const int64_t used = places_.listed + listed_count_ * static_cast<int64_t>(sizeof(ListedToken));
  cudaError_t e = cudaMemcpyAsync(upload_card_.as<void>(), upload_host_.as<void>(),
                                  static_cast<size_t>(used), cudaMemcpyHostToDevice, card.stream);
  if (e == cudaSuccess) {
    e = cudaMemsetAsync(broken_.as<void>(), 0, static_cast<size_t>(count) * sizeof(int32_t),
                        card.stream);
  }
  const char* upload = upload_card_.as<char>();
  for (int64_t first = 0; e == cudaSuccess && first < count; first += kHeadRows) {
    const int64_t some = std::min<int64_t>(kHeadRows, count - first);
    const int64_t listed = listed_begin_[static_cast<size_t>(first)];
    HeadCall call;
    call.logits = logits_.as<float>();
    call.stride = stride_;
    call.vocab = static_cast<int32_t>(limits_.vocab);
    call.rows = static_cast<int32_t>(some);
    call.blocks = static_cast<int32_t>(blocks_);
    call.wanted = reinterpret_cast<const HeadRow*>(upload) + first;
    call.listed = reinterpret_cast<const ListedToken*>(upload + places_.listed) + listed;
    call.listed_count =
        static_cast<int32_t>(listed_begin_[static_cast<size_t>(first + some)] - listed);
    call.listed_logits =
        reinterpret_cast<float*>(answer_.as<HeadResult>() + limits_.select_rows) + listed;
    call.broken = broken_.as<int32_t>() + first;
    call.sums = sums_.as<BlockSum>();
    call.lists = lists_.as<uint64_t>();
    call.merged = merged_.as<uint64_t>();
    call.results = answer_.as<HeadResult>() + first;
    const auto* gather = reinterpret_cast<const int32_t*>(upload + places_.gather) + first;
    e = product(gather, some, call.logits, stride_);
    if (e == cudaSuccess) e = keep_full(card, rows, first, some);
    if (e == cudaSuccess) e = reduce_head(card, call);
  }
  return e;
}

cudaError_t CudaHead::keep_full(const Card& card, const SelectRow* rows, int64_t first,
                                int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!rows[first + i].keep_full) continue;
    const int64_t kept = full_index_[static_cast<size_t>(first + i)];
    const cudaError_t e = cudaMemcpyAsync(
        full_.as<float>() + kept * stride_, logits_.as<float>() + i * stride_,
        static_cast<size_t>(limits_.vocab) * sizeof(float), cudaMemcpyDeviceToDevice, card.stream);
    if (e != cudaSuccess) return e;
  }
  return cudaSuccess;
}

cudaError_t CudaHead::send_back(const Card& card) {
  if (row_count_ == 0) return cudaSuccess;
  cudaError_t e = cudaMemcpyAsync(answer_host_.as<void>(), answer_.as<void>(),
                                  static_cast<size_t>(row_count_) * sizeof(HeadResult),
                                  cudaMemcpyDeviceToHost, card.stream);
  if (e != cudaSuccess || listed_count_ == 0) return e;
  return cudaMemcpyAsync(answer_host_.as<HeadResult>() + limits_.select_rows,
                         answer_.as<HeadResult>() + limits_.select_rows,
                         static_cast<size_t>(listed_count_) * sizeof(float),
                         cudaMemcpyDeviceToHost, card.stream);
}

const std::vector<SelectResult>& CudaHead::read_results() {
  results_.resize(static_cast<size_t>(row_count_));
  const auto* answers = answer_host_.as<HeadResult>();
  const auto* listed = reinterpret_cast<const float*>(answers + limits_.select_rows);
  for (size_t i = 0; i < results_.size(); ++i) {
    const HeadResult& from = answers[i];
    SelectResult& to = results_[i];
    to = SelectResult{};
    to.listed_logits = listed + listed_begin_[i];
    to.candidate_count = from.count;
    to.candidate_ids = from.ids;
    to.candidate_logits = from.logits;
    to.rest_max = from.highest;
    to.rest_sum_exp = from.sum;
    to.rest_sum_exp_tempered = from.tempered;
    to.finite = from.finite != 0;
  }
  return results_;
}

const float* CudaHead::full_row(const Card& card, int64_t index) {
  POLYLM_CHECK_LT(index, static_cast<int64_t>(results_.size()));
  const int64_t kept = full_index_[static_cast<size_t>(index)];
  POLYLM_CHECK_LE(0, kept);
  float* to = full_host_.as<float>() + kept * limits_.vocab;
  check_cuda(cudaMemcpyAsync(to, full_.as<float>() + kept * stride_,
                             static_cast<size_t>(limits_.vocab) * sizeof(float),
                             cudaMemcpyDeviceToHost, card.stream),
             "reading logits");
  check_cuda(cudaStreamSynchronize(card.stream), "reading logits");
  return to;
}

}  // namespace polylm
