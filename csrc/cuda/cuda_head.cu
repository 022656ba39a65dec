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

int64_t listed_place(const StepShape& shape) { return bytes_of<HeadResult>(shape.selects); }

}  // namespace

void CudaHead::reserve(const StepLimits& limits) {
  limits_ = limits;
  at_once_ = std::min<int64_t>(limits.select_rows, kHeadRows);
  stride_ = logit_stride(limits.vocab);
  blocks_ = ceil_div(limits.vocab, kSumTokens);
  constexpr const char* kPurpose = "selecting tokens";
  logits_ = DeviceBuffer(bytes_of<float>(checked_mul(at_once_, stride_)), kPurpose);
  sums_ = DeviceBuffer(bytes_of<BlockSum>(checked_mul(at_once_, blocks_)), kPurpose);
  lists_ = DeviceBuffer(bytes_of<uint64_t>(checked_mul(at_once_, blocks_ * kCandidates)), kPurpose);
  const int64_t merged = ceil_div(blocks_, kMergeLists) * kCandidates;
  merged_ = DeviceBuffer(bytes_of<uint64_t>(checked_mul(at_once_, merged)), kPurpose);
  const int64_t answer =
      bytes_of<HeadResult>(limits.select_rows) + bytes_of<float>(limits.listed);
  answer_ = DeviceBuffer(answer, kPurpose);
  full_ = DeviceBuffer(bytes_of<float>(checked_mul(limits.full_rows, stride_)), kPurpose);
  full_host_ = Buffer(bytes_of<float>(checked_mul(limits.full_rows, limits.vocab)), kPurpose);
  for (Asked& a : asked_) {
    a.answer = PinnedBuffer(answer, kPurpose);
    a.listed_begin.assign(static_cast<size_t>(limits.select_rows), 0);
    a.full_index.assign(static_cast<size_t>(limits.select_rows), -1);
  }
  results_.reserve(static_cast<size_t>(limits.select_rows));
}

int64_t CudaHead::size_bytes() const {
  int64_t sum = 0;
  for (const DeviceBuffer* b : {&logits_, &sums_, &lists_, &merged_, &answer_, &full_}) {
    sum += b->size_bytes();
  }
  return sum;
}

void CudaHead::remember(const SelectRow* rows, int64_t count, const StepShape& shape) {
  Asked& a = asked(shape.slot);
  a.row_count = count;
  a.listed_place = listed_place(shape);
  int32_t kept = 0;
  int64_t listed = 0;
  for (int64_t i = 0; i < count; ++i) {
    a.full_index[static_cast<size_t>(i)] = rows[i].keep_full ? kept++ : -1;
    a.listed_begin[static_cast<size_t>(i)] = listed;
    listed += rows[i].listed_count;
  }
}

cudaError_t CudaHead::run(const Card& card, const StepShape& shape, const char* upload,
                          const Product& product) {
  const TablePlaces places = places_of(shape);
  cudaError_t e = cudaSuccess;
  for (int64_t first = 0; e == cudaSuccess && first < shape.selects; first += kHeadRows) {
    HeadCall call;
    call.logits = logits_.as<float>();
    call.stride = stride_;
    call.vocab = static_cast<int32_t>(limits_.vocab);
    call.first_row = static_cast<int32_t>(first);
    call.rows = static_cast<int32_t>(std::min<int64_t>(kHeadRows, shape.selects - first));
    call.blocks = static_cast<int32_t>(blocks_);
    call.wanted = reinterpret_cast<const HeadRow*>(upload + places.wanted) + first;
    call.listed = reinterpret_cast<const ListedToken*>(upload + places.listed);
    call.listed_count = shape.listed;
    call.listed_logits = reinterpret_cast<float*>(answer_.as<char>() + listed_place(shape));
    // The step's own upload has set it to zero.
    call.broken = reinterpret_cast<int32_t*>(const_cast<char*>(upload) + places.broken) + first;
    call.kept = reinterpret_cast<const int32_t*>(upload + places.kept) + first;
    call.full = shape.keeps ? full_.as<float>() : nullptr;
    call.sums = sums_.as<BlockSum>();
    call.lists = lists_.as<uint64_t>();
    call.merged = merged_.as<uint64_t>();
    call.results = answer_.as<HeadResult>() + first;
    const auto* gather = reinterpret_cast<const int32_t*>(upload + places.gather) + first;
    e = product(gather, call.rows, call.logits, stride_);
    if (e == cudaSuccess) e = reduce_head(card, call);
  }
  return e;
}

cudaError_t CudaHead::send_back(const Card& card, const StepShape& shape) {
  if (shape.selects == 0) return cudaSuccess;
  return cudaMemcpyAsync(asked(shape.slot).answer.as<void>(), answer_.as<void>(),
                         static_cast<size_t>(listed_place(shape) + bytes_of<float>(shape.listed)),
                         cudaMemcpyDeviceToHost, card.stream);
}

const std::vector<SelectResult>& CudaHead::read_results(int64_t slot) {
  const Asked& a = asked(slot);
  results_.resize(static_cast<size_t>(a.row_count));
  const auto* answers = a.answer.as<HeadResult>();
  const auto* listed = reinterpret_cast<const float*>(a.answer.as<char>() + a.listed_place);
  for (size_t i = 0; i < results_.size(); ++i) {
    const HeadResult& from = answers[i];
    SelectResult& to = results_[i];
    to = SelectResult{};
    to.listed_logits = listed + a.listed_begin[i];
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

const float* CudaHead::full_row(const Card& card, int64_t slot, int64_t index) {
  POLYLM_CHECK_LT(index, asked(slot).row_count);
  const int64_t kept = asked(slot).full_index[static_cast<size_t>(index)];
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
