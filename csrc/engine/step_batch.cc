// step_batch.cc: filling the buffers of a step. Nothing here allocates after the constructor: a
// full buffer is a broken promise of the scheduler.
#include "engine/step_batch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "engine/engine.h"
#include "engine/scheduler.h"
#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

template <class T>
void append(std::vector<T>* to, const T& value) {
  POLYLM_CHECK_LT(to->size(), to->capacity());
  to->push_back(value);
}

int64_t listed_per_row(int64_t context, int64_t vocab) {
  return std::min(vocab, context + kExtraListed);
}

}  // namespace

StepLimits step_limits(const EngineOptions& options, int64_t vocab) {
  PlanLimits plan_limits;
  plan_limits.budget_mixed = options.budget_mixed;
  plan_limits.budget_prefill = options.budget_prefill;
  StepLimits limits;
  limits.rows = step_rows(plan_limits, options.max_sequences);
  limits.sequences = options.max_sequences;
  limits.select_rows = options.max_sequences + kScoreRows;
  limits.full_rows = options.max_sequences;
  limits.listed = checked_add(
      checked_mul(options.max_sequences, listed_per_row(options.context_size, vocab)), kScoreRows);
  limits.vocab = vocab;
  limits.context = options.context_size;
  return limits;
}

StepBatch::StepBatch(const StepLimits& limits, int64_t max_sequences)
    : vocab_(limits.vocab), listed_per_row_(listed_per_row(limits.context, limits.vocab)) {
  tokens_.reserve(static_cast<size_t>(limits.rows));
  sources_.reserve(static_cast<size_t>(max_sequences));
  sequences_.reserve(static_cast<size_t>(limits.sequences));
  selects_.reserve(static_cast<size_t>(limits.select_rows));
  copies_.reserve(static_cast<size_t>(limits.sequences));
  needs_.resize(static_cast<size_t>(max_sequences));
  listed_.resize(static_cast<size_t>(max_sequences));
  for (auto& listed : listed_) listed.reserve(static_cast<size_t>(listed_per_row_));
  scored_.reserve(static_cast<size_t>(kScoreRows));
}

void StepBatch::clear() {
  generated_rows_ = 0;
  asked_first_ = 0;
  asked_count_ = 0;
  tokens_.clear();
  sources_.clear();
  sequences_.clear();
  selects_.clear();
  copies_.clear();
  scored_.clear();
}

void StepBatch::ask(Decoder& decoder, int64_t width) {
  POLYLM_CHECK_LE(asked_count_ + width, static_cast<int64_t>(needs_.size()));
  for (int64_t h = 0; h < width; ++h) {
    const auto at = static_cast<size_t>(asked_count_ + h);
    listed_[at].clear();
    needs_[at] = decoder.needs(h, &listed_[at]);
    const auto count = static_cast<int64_t>(listed_[at].size());
    // What the device would refuse, and the whole step with it, is found here and ends its request.
    POLYLM_CHECK(needs_[at].temperature > 0.0F && std::isfinite(needs_[at].temperature));
    for (const int32_t id : listed_[at]) POLYLM_CHECK(id >= 0 && id < vocab_);
    if (count > listed_per_row_) {
      fail(Code::kLimit, "the options name " + std::to_string(count) +
                             " tokens in one step, at most " + std::to_string(listed_per_row_) +
                             " are possible",
           "use fewer tokens in bias, allow and stopTokenIds");
    }
  }
  asked_first_ = asked_count_;
  asked_count_ += width;
}

void StepBatch::add_sequence(Sequence& sequence, int64_t begin, int64_t end) {
  sequence.own(end, &copies_);
  SequenceRows rows;
  rows.first_row = this->rows();
  rows.row_count = end - begin;
  rows.first_position = begin;
  rows.blocks = sequence.blocks().data();
  rows.block_count = static_cast<int64_t>(sequence.blocks().size());
  append(&sequences_, rows);
}

void StepBatch::add_rows(Sequence& sequence, int64_t end, Role role) {
  const int64_t first_row = rows();
  const int64_t begin = sequence.computed();
  add_sequence(sequence, begin, end);
  for (int64_t position = begin; position < end; ++position) {
    append(&tokens_, sequence.token(position));
  }
  if (role == Role::kGenerated) {
    POLYLM_CHECK_EQ(generated_rows_, first_row);
    generated_rows_ = rows();
  }
}

void StepBatch::add_next(Sequence& sequence, int64_t source) {
  POLYLM_CHECK(tokens_.empty());
  add_sequence(sequence, sequence.size(), sequence.size() + 1);
  append(&sources_, static_cast<int32_t>(source));
  generated_rows_ = rows();
}

void StepBatch::add_select(int64_t h, int64_t back) {
  const auto at = static_cast<size_t>(asked_first_ + h);
  SelectRow row;
  row.row = rows() - 1 - back;
  row.listed = listed_[at].data();
  row.listed_count = static_cast<int64_t>(listed_[at].size());
  row.temperature = needs_[at].temperature;
  row.keep_full = needs_[at].keep_full;
  append(&selects_, row);
}

void StepBatch::add_score(int64_t row, int32_t listed) {
  append(&scored_, listed);
  SelectRow select;
  select.row = row;
  select.listed = &scored_.back();
  select.listed_count = 1;
  append(&selects_, select);
}

void StepBatch::add_kept(int64_t row) {
  SelectRow select;
  select.row = row;
  select.keep_full = true;
  append(&selects_, select);
}

StepInputs StepBatch::inputs() const {
  StepInputs in;
  in.rows = rows();
  in.generated_rows = generated_rows_;
  in.tokens = sources_.empty() ? tokens_.data() : nullptr;
  in.sources = sources_.empty() ? nullptr : sources_.data();
  in.sequences = sequences_.data();
  in.sequence_count = static_cast<int64_t>(sequences_.size());
  return in;
}

SelectRows StepBatch::selects() const {
  return {selects_.data(), static_cast<int64_t>(selects_.size())};
}

}  // namespace polylm
