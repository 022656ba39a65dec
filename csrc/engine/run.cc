// run.cc: results, timings and events of one request.
#include "engine/run.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/scoring.h"
#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

Event make_event(uint64_t request, EventKind kind) {
  Event event;
  event.request = request;
  event.kind = kind;
  return event;
}

}  // namespace

Run::Run(Arrival arrival)
    : result_(std::make_shared<RequestResult>()),  // first: it may throw
      id_(arrival.id),
      work_(std::move(arrival.work)),
      submitted_(arrival.submitted),
      fill_end_(work_.prompt_rows) {
  result_->usage.prompt_tokens = static_cast<int64_t>(work_.ids.size());
  result_->usage.truncated_tokens = work_.truncated;
  result_->seed = static_cast<uint64_t>(work_.request.params.seed);
}

std::optional<Clock::time_point> Run::deadline() const {
  if (work_.request.queue_timeout_ms < 0 || started()) return std::nullopt;
  return submitted_ + std::chrono::milliseconds(work_.request.queue_timeout_ms);
}

// Rows before this one give nothing that is wanted of them but their place in the cache.
int64_t Run::first_needed_row() const {
  switch (work_.request.kind) {
    case RequestKind::kGenerate:
      if (!first_token_) return work_.prompt_rows - 1;
      return set_->size() == 1 ? set()[0].size() - 1 : fill_end_;
    case RequestKind::kScore:
      return std::min(work_.prompt_rows, score_begin());
    case RequestKind::kLogits:
      return work_.kept.empty() ? 0 : work_.kept.front();
  }
  return 0;
}

void Run::catch_up(PrefixCache* cache, int64_t block_tokens) {
  Sequence& sequence = (*set_)[0];
  if (sequence.computed() != kept_blocks_ * block_tokens) return;
  const int64_t blocks = cache->adopt(work_.request.cache_salt, first_needed_row(), &sequence);
  count_cached(kept_blocks_ * block_tokens, blocks * block_tokens);
  kept_blocks_ = blocks;
  caught_up();
}

// What the run has computed itself was not saved.
void Run::count_cached(int64_t from, int64_t to) {
  result_->usage.cached_tokens += std::max<int64_t>(0, to - std::max(from, filled_before_));
}

int64_t Run::score_begin() const {
  return std::max(work_.request.score_from - 1, filled_before_);
}

int64_t Run::lost() const {
  if (!started()) return 0;
  return first_token_ ? set_->behind() : filled_before_;
}

bool Run::is_behind() const {
  return first_token_ ? back_ : (*set_)[0].computed() < filled_before_;
}

void Run::preempt(PrefixCache* cache) {
  if (cache != nullptr && set_->size() == 1) {
    try {
      keep_prefix(cache);
    } catch (...) {  // then it is not kept
    }
  }
  if (first_token_) {
    back_ = true;
    filled_before_ = kUnlimited;
  } else {
    filled_before_ = std::max(filled_before_, (*set_)[0].computed());
  }
  kept_blocks_ = 0;
  set_->preempt();
}

void Run::come_back(PrefixCache* cache, int64_t block_tokens, bool roles_matter) {
  if (first_token_ && set_->size() == 1 && !roles_matter) fill_end_ = (*set_)[0].size() - 1;
  if (cache != nullptr) catch_up(cache, block_tokens);
}

void Run::caught_up() {
  if (!back_ || filling()) return;
  if (set_->size() > 1 && (*set_)[1].blocks().empty()) set_->share_first();
  if (set_->behind() == 0) back_ = false;
}

bool Run::follows(const Run& other, int64_t block_tokens) const {
  const int64_t begin = kept_blocks_ * block_tokens;
  const int64_t end = begin + block_tokens;
  const Sequence& leader = other.set()[0];
  const std::vector<int32_t>& tokens = set()[0].tokens();
  if (set()[0].computed() != begin || end > first_needed_row()) return false;
  if (end > other.fill_end_ || leader.computed() >= end) return false;
  if (work_.request.cache_salt != other.work_.request.cache_salt) return false;
  // Equal beginnings that are kept are the same blocks.
  const auto last = static_cast<size_t>(kept_blocks_) - 1;
  if (kept_blocks_ > 0 && (other.kept_blocks_ < kept_blocks_ ||
                           leader.blocks()[last] != set()[0].blocks()[last])) {
    return false;
  }
  return std::equal(tokens.begin() + begin, tokens.begin() + end,
                    leader.tokens().begin() + begin);
}

void Run::keep_prefix(PrefixCache* cache) {
  kept_blocks_ = cache->keep(work_.request.cache_salt, kept_blocks_, &(*set_)[0]);
}

void Run::keep_answer(PrefixCache* cache) {
  if (first_token_ && work_.demand.rows == 1) keep_prefix(cache);
}

void Run::start(BlockPool* pool, PrefixCache* cache, int64_t block_tokens, int64_t vocab,
                const std::shared_ptr<const Tokenizer>& tokenizer, Clock::time_point now) {
  admitted_ = now;
  const int64_t tokens = static_cast<int64_t>(work_.ids.size()) + work_.max_tokens;
  set_.emplace(pool, block_tokens, work_.ids, tokens, work_.demand.rows);
  if (cache != nullptr) {
    kept_blocks_ = cache->adopt(work_.request.cache_salt, first_needed_row(), &(*set_)[0]);
    result_->usage.cached_tokens = kept_blocks_ * block_tokens;
  }
  switch (work_.request.kind) {
    case RequestKind::kGenerate:
      decoder_ = make_decoder(work_.request.params, work_.ids, work_.max_tokens, vocab, tokenizer);
      POLYLM_CHECK_LE(decoder_->width_max(), work_.demand.rows);
      sent_.resize(static_cast<size_t>(work_.request.params.n));
      deltas_.reserve(sent_.size());
      break;
    case RequestKind::kScore:
      result_->scored.reserve(work_.ids.size() - static_cast<size_t>(work_.request.score_from));
      break;
    case RequestKind::kLogits:
      result_->logits_rows = static_cast<int64_t>(work_.positions.size());
      result_->logits.resize(static_cast<size_t>(checked_mul(result_->logits_rows, vocab)));
      break;
  }
}

RunView Run::view() const {
  RunView view;
  view.generate = is_generate();
  view.batch = work_.request.batch;
  view.decode_rows = filling() ? 0 : set_->size();
  view.computed = filling() ? (*set_)[0].computed() : fill_end_;
  view.prompt_rows = fill_end_;
  view.score_from = fill_end_;
  if (back_ && !filling()) view.draft_rows = std::max<int64_t>(0, set_->behind() - set_->size());
  if (work_.request.kind == RequestKind::kScore) view.score_from = score_begin();
  if (work_.request.kind == RequestKind::kLogits) view.kept = &work_.kept;
  return view;
}

void Run::take_score(int64_t row, const SelectResult& result) {
  const int32_t token = work_.ids[static_cast<size_t>(row + 1)];
  result_->scored.push_back(score_row(result, token, work_.request.score_top));
}

void Run::take_logits(int64_t row, const float* logits, int64_t vocab) {
  for (size_t i = 0; i < work_.positions.size(); ++i) {
    if (work_.positions[i] != row) continue;
    std::memcpy(&result_->logits[i * static_cast<size_t>(vocab)], logits,
                static_cast<size_t>(vocab) * sizeof(float));
  }
}

void Run::advanced(Clock::time_point now) {
  if (!first_token_.has_value()) first_token_ = now;
}

void Run::add_prefill(std::vector<Event>* out) const {
  if (!work_.request.stream || (*set_)[0].computed() <= filled_before_) return;
  Event event = make_event(id_, EventKind::kPrefill);
  event.done = (*set_)[0].computed();
  event.total = work_.prompt_rows;
  out->push_back(std::move(event));
}

void Run::add_deltas(std::vector<Event>* out) {
  if (!work_.request.stream) return;
  deltas_.clear();
  decoder_->drain(&deltas_);
  for (OutputDelta& delta : deltas_) {
    POLYLM_CHECK(delta.output >= 0 && delta.output < static_cast<int32_t>(sent_.size()));
    Sent& sent = sent_[static_cast<size_t>(delta.output)];
    sent.text += delta.text;
    sent.tokens += static_cast<int64_t>(delta.tokens.size());
    Event event = make_event(id_, EventKind::kDelta);
    event.output = delta.output;
    event.text = std::move(delta.text);
    event.tokens = std::move(delta.tokens);
    out->push_back(std::move(event));
  }
}

// Streamed outputs: everything was sent and nothing else. Of beams only the best is streamed.
void Run::check_sent() const {
  const size_t streamed = work_.request.params.num_beams > 1 ? 1 : sent_.size();
  for (size_t i = 0; i < std::min(streamed, result_->outputs.size()); ++i) {
    POLYLM_CHECK(result_->outputs[i].text == sent_[i].text);
    POLYLM_CHECK_EQ(static_cast<int64_t>(result_->outputs[i].tokens.size()), sent_[i].tokens);
  }
}

void Run::take_outputs(bool aborted, std::vector<Event>* out) {
  if (first_token_) {
    result_->outputs = decoder_->finish(aborted);
    POLYLM_CHECK_LE(result_->outputs.size(), sent_.size());
    add_deltas(out);
    if (work_.request.stream) check_sent();
  } else {  // cancelled before the first token
    result_->outputs.resize(static_cast<size_t>(work_.request.params.n));
    for (OutputResult& output : result_->outputs) output.finish_reason = FinishReason::kAbort;
  }
  for (const OutputResult& output : result_->outputs) {
    result_->usage.completion_tokens += static_cast<int64_t>(output.tokens.size());
  }
}

Timings Run::timings(Clock::time_point now) const {
  Timings timings;
  timings.queue_ms = ms_between(submitted_, admitted_.value_or(now));
  if (admitted_) timings.prefill_ms = ms_between(*admitted_, prompt_done_.value_or(now));
  if (first_token_) {
    timings.time_to_first_token_ms = ms_between(submitted_, *first_token_);
    timings.decode_ms = ms_between(*first_token_, now);
  }
  return timings;
}

void Run::add_finished(bool aborted, Clock::time_point now, std::vector<Event>* out) {
  if (is_generate()) take_outputs(aborted, out);
  if (work_.request.kind == RequestKind::kScore) result_->prompt_ids = work_.ids;
  result_->timings = timings(now);
  Event event = make_event(id_, EventKind::kFinished);
  event.result = result_;
  out->push_back(std::move(event));
}

bool Run::ends_next() const {
  const auto prompt = static_cast<int64_t>(work_.ids.size());
  return set()[0].size() + 1 >= prompt + work_.max_tokens;
}

}  // namespace polylm
