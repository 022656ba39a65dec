// sample_decoder.cc: greedy decoding and sampling, one or n outputs. The prompt's row serves all
// outputs; from then on each has a row of its own and drops out when it is finished.
// Not here: beams (beam_decoder.cc). Trap: the k-th output's noise depends on (seed, k, step)
// alone, so it must never be keyed by its place among the running ones.
#include <algorithm>
#include <cmath>

#include "engine/decode_context.h"
#include "engine/draw.h"
#include "engine/logprobs.h"
#include "engine/output_text.h"
#include "engine/processors.h"
#include "engine/prompt_lookup.h"
#include "engine/warpers.h"
#include "platform/error.h"
#include "platform/philox.h"

namespace polylm {
namespace {

// Greedy and nothing else: no processor, no stop string, no second output.
bool takes_the_best(const SamplingParams& p) {
  return p.temperature == 0.0 && p.n == 1 && p.stop.empty() && !p.speculate_lookup &&
         explain(p).processors.empty();
}

// Whether scores can be so large that the logarithm of a number of tokens rounds away beside them.
// Then they are taken relative to the best one, which changes no probability.
bool scores_get_huge(const SamplingParams& p) {
  constexpr double kHuge = 1e6;
  const auto is_huge = [](const auto& rule) {
    return std::isfinite(rule.value) && std::fabs(rule.value) > static_cast<float>(kHuge);
  };
  const bool has_huge = std::any_of(p.bias.begin(), p.bias.end(), is_huge) ||
                        std::any_of(p.token_bias.begin(), p.token_bias.end(), is_huge);
  return has_huge || (p.temperature > 0.0 && p.temperature < 1.0 / kHuge);
}

struct Output {
  explicit Output(OutputTrack start) : track(std::move(start)) {}
  std::vector<int32_t> row;  // pads + prompt + tokens
  OutputTrack track;
  FinishReason reason = FinishReason::kAbort;
  int32_t stopped_by_token = -1;
};

class SampleDecoder final : public Decoder {
 public:
  explicit SampleDecoder(DecodeContext context)
      : context_(std::move(context)),
        params_(context_.params),
        processors_(params_, context_.prefix_width(), context_.max_tokens, context_.vocab),
        warpers_(params_, 1),
        logprobs_(params_),
        feeds_back_(takes_the_best(params_)),
        relative_(scores_get_huge(params_)),
        plans_(static_cast<size_t>(params_.speculate_lookup ? 1 + kMostDraft : params_.n)) {
    const OutputText start(params_, context_.prompt, context_.tokenizer);
    for (int64_t k = 0; k < params_.n; ++k) {
      Output& output =
          outputs_.emplace_back(OutputTrack(start, context_.max_tokens, params_.logprobs));
      output.row.reserve(context_.prefix.size() + static_cast<size_t>(context_.max_tokens));
      output.row = context_.prefix;
    }
    for (RowPlan& plan : plans_) processors_.reserve(&plan);
    const bool full = processors_.needs_full() ||
                      (context_.sampling() && warpers_.may_need_full());
    scores_.reserve(processors_.most_edits(), full ? context_.vocab : 0);
    if (full) warpers_.reserve(context_.vocab);
    draft_.reserve(static_cast<size_t>(kMostDraft));
    running_.reserve(outputs_.size());
    still_running_.reserve(outputs_.size());
  }

  int64_t width_max() const override { return params_.n; }
  int64_t width() const override {
    return started_ ? static_cast<int64_t>(running_.size()) : 1;
  }
  SelectNeeds needs(int64_t h, std::vector<int32_t>* listed) override;
  void advance(const SelectResult* rows, const std::vector<int32_t>* listed, FullRows& full,
               std::vector<Transition>* next) override;
  void drain(std::vector<OutputDelta>* out) override;
  void draft(int64_t most, std::vector<int32_t>* out) override;
  bool feeds_back() const override { return feeds_back_; }
  int64_t accepted() const override { return accepted_; }
  std::vector<OutputResult> finish(bool aborted) override;

 private:
  bool warp();
  bool prepare(const SelectResult& row, int64_t h, FullRows& full);
  [[noreturn]] void fail_row(const SelectResult& row, int64_t h);
  void follow_draft(const SelectResult* rows, FullRows& full, std::vector<Transition>* next);
  void take(int64_t k, int64_t h, FullRows& full, std::vector<Transition>* next);
  int64_t step(const Output& output) const {
    return static_cast<int64_t>(output.row.size()) - context_.prefix_width();
  }
  Output& output_of(int64_t h) {
    if (!draft_.empty()) h = 0;  // rows of one output
    return outputs_[started_ ? static_cast<size_t>(running_[static_cast<size_t>(h)]) : 0];
  }

  DecodeContext context_;
  const SamplingParams& params_;
  Processors processors_;
  Warpers warpers_;
  RowLogprobs logprobs_;
  bool feeds_back_;
  bool relative_;
  ScoreRow scores_;
  std::vector<RowPlan> plans_;  // of the rows of a step, from needs to advance
  std::vector<Output> outputs_;
  std::vector<int32_t> running_;  // indices of outputs
  std::vector<int32_t> still_running_;
  std::vector<int32_t> draft_;  // from draft to advance
  DraftLength draft_length_;
  int64_t accepted_ = 0;
  bool started_ = false;
};

SelectNeeds SampleDecoder::needs(int64_t h, std::vector<int32_t>* listed) {
  RowPlan& plan = plans_[static_cast<size_t>(h)];
  std::vector<int32_t>& row = output_of(h).row;
  const size_t size = row.size();
  if (!draft_.empty()) row.insert(row.end(), draft_.begin(), draft_.begin() + h);
  processors_.plan(row, &plan);
  row.resize(size);
  for (int64_t i = 0; i < plan.listed(); ++i) {
    listed->push_back(plan.edits[static_cast<size_t>(i)].id);
  }
  const bool rest_matters = plan.rest == RestTokens::kKeep && context_.sampling();
  SelectNeeds needs;
  needs.temperature = row_temperature(params_);
  needs.keep_full = plan.needs_row() || (rest_matters && warpers_.may_need_full());
  plan.temperature = static_cast<double>(needs.temperature);
  return needs;
}

// What follows the processors. False: it takes a full row.
bool SampleDecoder::warp() {
  if (relative_ && !scores_.entries().empty()) scores_.add(-scores_.best().score);
  return !context_.sampling() || warpers_.run(&scores_);
}

// False when no token can be chosen from the row.
bool SampleDecoder::prepare(const SelectResult& row, int64_t h, FullRows& full) {
  const RowPlan& plan = plans_[static_cast<size_t>(h)];
  if (!row.finite) return false;
  bool complete = !plan.needs_row();
  if (complete) {
    scores_.build(row, plan, processors_, 0.0);
    complete = warp();
  }
  if (!complete) {
    scores_.build_full(full.row(h), context_.vocab, plan, processors_, 0.0);
    POLYLM_CHECK(warp());
  }
  if (scores_.entries().empty()) return false;
  logprobs_.start(row, plan, raw_log_sum(row, plan.listed()), &scores_);
  return true;
}

void SampleDecoder::fail_row(const SelectResult& row, int64_t h) {
  if (!row.finite) fail_not_finite(step(output_of(h)));
  fail_no_token(processors_.restricting_option(), step(output_of(h)));
}

void SampleDecoder::take(int64_t k, int64_t h, FullRows& full, std::vector<Transition>* next) {
  Output& output = outputs_[static_cast<size_t>(k)];
  const int64_t at = step(output);
  Entry entry;
  if (context_.sampling()) {
    const double u =
        philox_uniform(static_cast<uint64_t>(params_.seed), static_cast<uint32_t>(k),
                       static_cast<uint32_t>(at), 0);
    entry = draw(&scores_, u, context_.vocab, full, h);
  } else {
    entry = scores_.best();
  }
  const bool stop_id = processors_.is_stop(entry.id);
  const bool choice = processors_.completes_choice(output.row, entry.id);
  output.row.push_back(entry.id);
  const bool stop_string = output.track.push(
      entry.id, reported_logprob(logprobs_.of(entry)), logprobs_.top(), stop_id);
  if (stop_id || stop_string || choice || at + 1 == context_.max_tokens) {
    output.reason = stop_id || stop_string || choice ? FinishReason::kStop : FinishReason::kLength;
    output.stopped_by_token = stop_id ? entry.id : -1;
    output.track.close();
    if (output.track.text().stop() >= 0) output.reason = FinishReason::kStop;
    return;
  }
  still_running_.push_back(static_cast<int32_t>(k));
  next->push_back({static_cast<int32_t>(h), entry.id});
}

void SampleDecoder::advance(const SelectResult* rows, const std::vector<int32_t>*, FullRows& full,
                            std::vector<Transition>* next) {
  next->clear();
  still_running_.clear();
  accepted_ = 0;
  if (!draft_.empty()) return follow_draft(rows, full, next);
  const int64_t count = width();
  for (int64_t h = 0; h < count; ++h) {
    if (!prepare(rows[h], h, full)) fail_row(rows[h], h);
    if (started_) {
      take(running_[static_cast<size_t>(h)], h, full, next);
    } else {
      for (int64_t k = 0; k < params_.n; ++k) take(k, h, full, next);
    }
  }
  running_.swap(still_running_);
  started_ = true;
}

void SampleDecoder::draft(int64_t most, std::vector<int32_t>* out) {
  draft_.clear();
  if (params_.speculate_lookup && started_ && !running_.empty()) {
    const Output& output = outputs_.front();
    const auto pads = static_cast<int64_t>(context_.prefix.size() - context_.prompt.size());
    const int64_t left = context_.max_tokens - 1 - step(output);  // behind the token that is sure
    look_up(output.row, pads, std::min({most, left, draft_length_.tokens()}), &draft_);
  }
  out->assign(draft_.begin(), draft_.end());
}

// What goes wrong with a row behind the first is left to the next step, where it is the first: so
// the tokens before it come out as they would have.
void SampleDecoder::follow_draft(const SelectResult* rows, FullRows& full,
                                 std::vector<Transition>* next) {
  const auto drafted = static_cast<int64_t>(draft_.size());
  if (!prepare(rows[0], 0, full)) fail_row(rows[0], 0);
  for (;;) {
    next->clear();
    still_running_.clear();
    take(0, accepted_, full, next);
    if (next->empty()) break;
    next->front().parent = 0;
    const bool right = accepted_ < drafted &&
                       next->front().token == draft_[static_cast<size_t>(accepted_)];
    if (!right || !prepare(rows[accepted_ + 1], accepted_ + 1, full)) break;
    ++accepted_;
  }
  draft_length_.learn(drafted, accepted_);
  draft_.clear();
  running_.swap(still_running_);
}

void SampleDecoder::drain(std::vector<OutputDelta>* out) {
  OutputDelta delta;
  for (size_t k = 0; k < outputs_.size(); ++k) {
    if (!outputs_[k].track.drain(&delta)) continue;
    delta.output = static_cast<int32_t>(k);
    out->push_back(std::move(delta));
    delta = OutputDelta{};
  }
}

std::vector<OutputResult> SampleDecoder::finish(bool aborted) {
  POLYLM_CHECK(aborted || width() == 0);
  std::vector<OutputResult> results(outputs_.size());
  for (size_t k = 0; k < outputs_.size(); ++k) {
    Output& output = outputs_[k];
    output.track.close();
    output.track.result(params_.logprobs >= 0, &results[k]);
    results[k].finish_reason = output.reason;
    results[k].stopped_by_token = output.stopped_by_token;
  }
  running_.clear();
  started_ = true;
  return results;
}

}  // namespace

std::unique_ptr<Decoder> make_sample_decoder(DecodeContext context) {
  return std::make_unique<SampleDecoder>(std::move(context));
}

}  // namespace polylm
