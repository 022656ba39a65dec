// runner.cc: arrival, start and end of requests, and the step: plan, copies, forward, results.
#include "engine/runner.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/events.h"
#include "engine/prompt_lookup.h"
#include "platform/error.h"

namespace polylm {
namespace {

class StepFullRows final : public FullRows {
 public:
  StepFullRows(Ops* ops, int64_t first) : ops_(ops), first_(first) {}
  const float* row(int64_t index) override { return ops_->full_row(first_ + index); }

 private:
  Ops* ops_;
  int64_t first_;
};

PlanLimits plan_limits(const EngineOptions& options) {
  PlanLimits limits;
  limits.budget_mixed = options.budget_mixed;
  limits.budget_prefill = options.budget_prefill;
  limits.full_rows = options.max_sequences;
  return limits;
}

}  // namespace

Runner::Runner(Model* model, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineOptions& options)
    : model_(model),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      vocab_(model->config().vocab_size),
      block_tokens_(model->ops().info().block_tokens),
      limits_(plan_limits(options)),
      pace_(options.step_ms),
      pool_(options.kv_blocks),
      batch_(step_limits(options, vocab_), options.max_sequences) {
  if (options.prefix_cache) {
    cache_.emplace(&pool_, block_tokens_, ~uint64_t{0}, model->ops().info().roles_matter);
  }
  if (model->ops().info().feeds_back) {
    ahead_.emplace(step_limits(options, vocab_), options.max_sequences);
  }
  const auto most = static_cast<size_t>(options.max_sequences);
  views_.reserve(most);
  entries_.reserve(most);
  plan_.decode.reserve(most);
  plan_.prefill.reserve(most);
  next_.reserve(most);
  drafts_.reserve(static_cast<size_t>(kMostDraft));
  demands_.reserve(most);
  running_.reserve(most);
}

Runner::~Runner() = default;

// ------------------------------------------------------------------------- arrival and end

void Runner::arrive(Arrival arrival, Clock::time_point now) {
  const uint64_t id = arrival.id;
  try {
    add(std::move(arrival), now);
  } catch (...) {
    events_.push_back(failed_event(id, caught_error()));
    ++counters_.failed;
  }
}

// Throws before anything of the request is kept.
void Runner::add(Arrival arrival, Clock::time_point now) {
  const Order order = order_of(arrival.id, arrival.work.request.batch, counters_.steps);
  const bool cancelled = arrival.cancelled;
  auto run = std::make_unique<Run>(std::move(arrival), order);
  if (cancelled) {
    end_cancelled(run.get(), now);
    return;
  }
  const std::optional<Clock::time_point> deadline = run->deadline();
  waiting_.emplace(order, std::move(run));
  if (deadline.has_value()) deadline_ = std::min(deadline_.value_or(*deadline), *deadline);
}

void Runner::cancel(uint64_t id, Clock::time_point now) {
  for (const auto& run : running_) {
    if (run->id() != id) continue;
    if (run->ended) return;  // with a row in flight it is still here
    end_cancelled(run.get(), now);
    sweep();
    return;
  }
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if (it->second->id() != id) continue;
    end_cancelled(it->second.get(), now);
    waiting_.erase(it);
    return;
  }
}

void Runner::expire(Clock::time_point now) {
  if (!deadline_.has_value() || now < *deadline_) return;
  deadline_.reset();
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const std::optional<Clock::time_point> deadline = it->second->deadline();
    if (deadline.has_value() && now >= *deadline) {
      const auto waiting = static_cast<int64_t>(waiting_.size());
      const Error error(
          Code::kQueueTimeout,
          "the request waited queueTimeoutMs " +
              std::to_string(it->second->request().queue_timeout_ms) + " without starting",
          "retry later, or raise queueTimeoutMs",
          {{"waiting", waiting}, {"retryAfterMs", retry_after_ms(counters_.busy_ms, ended_)}});
      events_.push_back(failed_event(it->second->id(), error));
      ++counters_.rejected;
      it = waiting_.erase(it);
      continue;
    }
    if (deadline.has_value()) deadline_ = std::min(deadline_.value_or(*deadline), *deadline);
    ++it;
  }
}

std::optional<Clock::time_point> Runner::deadline() const { return deadline_; }

void Runner::tick(Clock::time_point now) {
  expire(now);
  for (;;) {  // requests that end at once make room for more
    const Demand room{pool_.size() - reserved_blocks_, options_.max_sequences - reserved_rows_};
    demands_.clear();
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if (static_cast<int64_t>(demands_.size()) >= room.rows) break;
      demands_.push_back(it->second->work().demand);
    }
    const int64_t count = admissible(demands_, room);
    if (count == 0) break;
    for (int64_t i = 0; i < count; ++i) {
      auto first = waiting_.extract(waiting_.begin());
      start(std::move(first.mapped()), now);
    }
    sweep();
  }
  POLYLM_CHECK(waiting_.empty() || !running_.empty());  // what can never fit was refused before
}

void Runner::start(std::unique_ptr<Run> run, Clock::time_point now) {
  Run* const started = run.get();
  const auto before = [](const std::unique_ptr<Run>& a, const std::unique_ptr<Run>& b) {
    return a->order() < b->order();
  };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), run, before),
                  std::move(run));
  reserved_blocks_ += started->work().demand.blocks;
  reserved_rows_ += started->work().demand.rows;
  try {
    started->start(&pool_, cache_ ? &*cache_ : nullptr, block_tokens_, vocab_, tokenizer_, now);
    if (started->work().prompt_rows == 0) finish(started, false, now);
  } catch (...) {
    end_failed(started, caught_error());
  }
}

void Runner::finish(Run* run, bool aborted, Clock::time_point now) {
  try {
    run->add_finished(aborted, now, &events_);
    counters_.completion_tokens += run->usage().completion_tokens;
  } catch (...) {
    end_failed(run, caught_error());
    return;
  }
  run->ended = true;
}

void Runner::end_failed(Run* run, const Error& error) {
  events_.push_back(failed_event(run->id(), error));
  ++counters_.failed;
  run->ended = true;
}

void Runner::end_cancelled(Run* run, Clock::time_point now) {
  ++counters_.aborted;
  try {
    if (cache_) run->keep_answer(&*cache_);
  } catch (...) {  // then it is not kept
  }
  if (run->request().return_on_abort && run->is_generate()) {
    finish(run, true, now);
    return;
  }
  events_.push_back(failed_event(run->id(), {Code::kAborted, "the request was cancelled"}));
  run->ended = true;
}

// Forgets running requests that have ended, with their blocks, once no step can touch those.
void Runner::sweep() {
  if (model_->ops().in_flight() > 0) return;
  const auto dead = [this](const std::unique_ptr<Run>& run) {
    if (!run->ended) return false;
    reserved_blocks_ -= run->work().demand.blocks;
    reserved_rows_ -= run->work().demand.rows;
    ++ended_;
    return true;
  };
  running_.erase(std::remove_if(running_.begin(), running_.end(), dead), running_.end());
}

void Runner::fail_all(const Error& error) {
  while (model_->ops().in_flight() > 0) {
    try {
      model_->ops().collect();
    } catch (...) {  // it is over all the same
    }
  }
  for (const auto& run : running_) {
    if (!run->ended) end_failed(run.get(), error);
  }
  sweep();
  while (!waiting_.empty()) {
    end_failed(waiting_.begin()->second.get(), error);
    waiting_.erase(waiting_.begin());
  }
  deadline_.reset();
}

const EngineStats& Runner::counters() {
  counters_.running = std::count_if(running_.begin(), running_.end(),
                                    [](const auto& run) { return !run->ended; });
  counters_.waiting = static_cast<int64_t>(waiting_.size());
  counters_.kv_tokens_used = pool_.used() * block_tokens_;
  counters_.kv_tokens_total = pool_.size() * block_tokens_;
  return counters_;
}

// ------------------------------------------------------------------------------------- a step

bool Runner::step(const std::atomic<bool>& stop) {
  const Clock::time_point begin = Clock::now();
  Ops& ops = model_->ops();
  if (ops.in_flight() == 0) {
    fill_batch();
    if (batch_.rows() > 0 && !submit(batch_, stop)) return false;
  }
  const bool goes_ahead = may_go_ahead();
  if (goes_ahead) {
    fill_ahead();
    if (!submit(*ahead_, stop)) return false;
  }
  if (ops.in_flight() > 0) {
    take_results(ops.collect());
    ++counters_.steps;
  }
  sweep();
  POLYLM_CHECK_LE(pool_.used(), reserved_blocks_);
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  counters_.busy_ms += ms;
  pace_.observe(batch_.inputs().generated_rows, batch_.rows() - batch_.inputs().generated_rows, ms);
  if (goes_ahead) std::swap(batch_, *ahead_);
  return true;
}

bool Runner::submit(const StepBatch& batch, const std::atomic<bool>& stop) {
  model_->ops().copy_blocks(model_->kv(), batch.copies().data(),
                            static_cast<int64_t>(batch.copies().size()));
  return model_->forward(batch.inputs(), batch.selects(), stop);
}

// Whether the rows of the step in flight, and no others, can go on before its results are known.
bool Runner::may_go_ahead() const {
  if (!ahead_.has_value() || model_->ops().in_flight() == 0) return false;
  return std::all_of(running_.begin(), running_.end(), [](const auto& run) {
    return !run->ended && run->decoding() && run->decoder().feeds_back() && !run->ends_next();
  });
}

void Runner::fill_ahead() {
  POLYLM_CHECK_EQ(entries_.size(), running_.size());
  ahead_->clear();
  for (const Entry& entry : entries_) {
    ahead_->ask(entry.run->decoder(), 1);
    ahead_->add_next(entry.run->set()[0], entry.first_select);
    ahead_->add_select(0);
  }
}

// Whether an earlier prompt is about to leave the next block of this one in the cache.
bool Runner::held(const Run& run) const {
  for (const auto& other : running_) {
    if (other.get() == &run) return false;
    if (!other->decoding() && run.follows(*other, block_tokens_)) return true;
  }
  return false;
}

// What the plan must know of a request. What fails here ends it: it gets no rows.
RunView Runner::view_of(Run* run) {
  RunView view;
  view.held = true;
  try {
    if (cache_ && !run->decoding()) run->catch_up(&*cache_, block_tokens_);
    if (run->decoding()) run->decoder().draft(kMostDraft, &drafts_);
    view = run->view();
    if (run->decoding()) {
      view.draft_rows = static_cast<int64_t>(drafts_.size());
    } else {
      view.held = cache_.has_value() && held(*run);
    }
  } catch (...) {
    end_failed(run, caught_error());
  }
  return view;
}

void Runner::fill_batch() {
  views_.clear();
  for (const auto& run : running_) views_.push_back(view_of(run.get()));
  pace_.limit(&limits_);
  plan(views_, limits_, &plan_);
  batch_.clear();
  entries_.clear();
  for (const PlanItem& item : plan_.decode) {
    add_decode(running_[static_cast<size_t>(item.run)].get(), item.rows);
  }
  for (const PlanItem& item : plan_.prefill) {
    add_chunk(running_[static_cast<size_t>(item.run)].get(), item.rows);
  }
}

// rows: its hypotheses, and as much of the draft as the plan found room for.
void Runner::add_decode(Run* run, int64_t rows) {
  SequenceSet& set = run->set();
  try {
    POLYLM_CHECK_EQ(run->decoder().width(), set.size());
    run->decoder().draft(rows - set.size(), &drafts_);
    POLYLM_CHECK_EQ(static_cast<int64_t>(drafts_.size()), rows - set.size());
    batch_.ask(run->decoder(), rows);
  } catch (...) {
    end_failed(run, caught_error());
    return;
  }
  Entry entry;
  entry.run = run;
  entry.decode = true;
  entry.first_select = batch_.select_count();
  entry.select_count = rows;
  entry.drafts = rows - set.size();
  entry.first_asked = batch_.asked_first();
  for (const int32_t token : drafts_) set[0].push(token, Role::kGenerated);
  for (int64_t h = 0; h < set.size(); ++h) {
    batch_.add_rows(set[h], set[h].size(), Role::kGenerated);
    for (int64_t d = 0; d <= entry.drafts; ++d) batch_.add_select(h + d, entry.drafts - d);
  }
  entries_.push_back(entry);
}

void Runner::add_chunk(Run* run, int64_t rows) {
  Sequence& sequence = run->set()[0];
  const Work& work = run->work();
  Entry entry;
  entry.run = run;
  const int64_t begin = sequence.computed();
  entry.end = begin + rows;
  const bool sampled = run->is_generate() && entry.end == work.prompt_rows;
  if (sampled) {
    try {
      batch_.ask(run->decoder(), 1);
    } catch (...) {
      end_failed(run, caught_error());
      return;
    }
    entry.first_asked = batch_.asked_first();
  }
  entry.first_select = batch_.select_count();
  entry.shift = batch_.rows() - begin;
  batch_.add_rows(sequence, entry.end, Role::kPrompt);
  if (sampled) batch_.add_select(0);
  if (run->request().kind == RequestKind::kScore) {
    const int64_t from = std::max(begin, run->request().score_from - 1);
    for (int64_t row = from; row < entry.end; ++row) {
      batch_.add_score(row + entry.shift, work.ids[static_cast<size_t>(row + 1)]);
    }
  }
  for (const int64_t row : work.kept) {
    if (row >= begin && row < entry.end) batch_.add_kept(row + entry.shift);
  }
  entry.select_count = batch_.select_count() - entry.first_select;
  entries_.push_back(entry);
}

// Commits all rows first: what fails there is the engine's fault and ends everything; what fails
// afterwards ends its request, unless the device is gone.
void Runner::take_results(const std::vector<SelectResult>& results) {
  POLYLM_CHECK_LE(batch_.select_count(), static_cast<int64_t>(results.size()));
  for (const Entry& entry : entries_) {
    if (entry.run->ended) continue;
    SequenceSet& set = entry.run->set();
    if (!entry.decode) set[0].committed(entry.end);
    for (int64_t h = 0; entry.decode && h < set.size(); ++h) set[h].committed(set[h].size());
  }
  const Clock::time_point now = Clock::now();
  for (const Entry& entry : entries_) {
    if (entry.run->ended) continue;  // while the step was in flight
    const SelectResult* rows = results.data() + entry.first_select;
    try {
      if (entry.decode) {
        advance(entry, rows, now);
      } else {
        take_chunk(entry, rows, now);
      }
    } catch (...) {
      const Error error = caught_error();
      if (error.code() == Code::kDevice) throw;
      end_failed(entry.run, error);
    }
  }
}

void Runner::take_chunk(const Entry& entry, const SelectResult* rows, Clock::time_point now) {
  Run* const run = entry.run;
  if (cache_) run->keep_prefix(&*cache_);
  run->add_prefill(&events_);
  const bool complete = entry.end == run->work().prompt_rows;
  if (complete) {
    run->prompt_computed(now);
    counters_.prompt_tokens += run->usage().prompt_tokens;
    counters_.cached_tokens += run->usage().cached_tokens;
  }
  if (run->is_generate()) {
    if (complete) advance(entry, rows, now);
    return;
  }
  StepFullRows full(&model_->ops(), entry.first_select);
  const bool score = run->request().kind == RequestKind::kScore;
  for (int64_t i = 0; i < entry.select_count; ++i) {
    const int64_t row = batch_.selects().rows[entry.first_select + i].row - entry.shift;
    if (score) {
      run->take_score(row, rows[i]);
      continue;
    }
    if (!rows[i].finite) fail(Code::kNumeric, "the logits are not finite");
    run->take_logits(row, full.row(i), vocab_);
  }
  if (complete) finish(run, false, now);
}

// Lets the decoder choose, and follows.
void Runner::advance(const Entry& entry, const SelectResult* rows, Clock::time_point now) {
  Run* const run = entry.run;
  Decoder& decoder = run->decoder();
  for (int64_t i = 0; i < entry.select_count - entry.drafts; ++i) {
    if (!rows[i].finite) {
      fail(Code::kNumeric, "the model's output is not finite: the weights or the activations "
                           "overflow");
    }
  }
  StepFullRows full(&model_->ops(), entry.first_select);
  decoder.advance(rows, batch_.listed(entry.first_asked), full, &next_);
  POLYLM_CHECK_EQ(static_cast<int64_t>(next_.size()), decoder.width());
  POLYLM_CHECK_LE(decoder.width(), run->work().demand.rows);
  for (const Transition& t : next_) POLYLM_CHECK(t.token >= 0 && t.token < vocab_);
  if (entry.drafts > 0) {
    Sequence& sequence = run->set()[0];
    sequence.truncate(sequence.size() - entry.drafts + decoder.accepted());
  }
  if (decoder.width() == 0) {
    if (cache_) run->keep_answer(&*cache_);
    run->advanced(now);
    finish(run, false, now);
    return;
  }
  run->set().advance(next_);
  run->advanced(now);
  run->add_deltas(&events_);
}

}  // namespace polylm
