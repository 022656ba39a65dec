// runner.cc: arrival, start and end of requests, and preemption. The step is in step.cc.
#include "engine/runner.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/events.h"
#include "engine/prompt_lookup.h"
#include "platform/error.h"

namespace polylm {
namespace {

// What Turns has to know of a request.
Place place_of(uint64_t id, const Work& work) {
  Place place;
  place.id = id;
  place.batch = work.request.batch;
  place.demand = work.demand;
  place.steps = work.max_tokens + work.prompt_rows / kShortRows;
  return place;
}

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
      batch_(step_limits(options, vocab_), options.max_sequences),
      turns_({options.kv_blocks, options.max_sequences}) {
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
  yielding_.reserve(most);
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
  const uint64_t id = arrival.id;
  const bool cancelled = arrival.cancelled;
  auto run = std::make_unique<Run>(std::move(arrival));
  if (cancelled) {
    end_cancelled(run.get(), now);
    return;
  }
  const auto added = runs_.emplace(id, std::move(run)).first;
  Run* const kept = added->second.get();
  try {
    kept->place = place_of(id, kept->work());
    turns_.add(&kept->place, kept->caller(), counters_.steps);
  } catch (...) {
    runs_.erase(added);
    throw;
  }
  const std::optional<Clock::time_point> deadline = kept->deadline();
  if (deadline.has_value()) deadline_ = std::min(deadline_.value_or(*deadline), *deadline);
}

void Runner::cancel(uint64_t id, Clock::time_point now) {
  const auto found = runs_.find(id);
  if (found == runs_.end()) return;
  Run* const run = found->second.get();
  if (run->ended) return;  // with a row in flight it is still here
  end_cancelled(run, now);
  if (run->place.running) {
    sweep();
    return;
  }
  turns_.remove(&run->place, counters_.steps);
  runs_.erase(found);
}

void Runner::expire(Clock::time_point now) {
  if (!deadline_.has_value() || now < *deadline_) return;
  deadline_.reset();
  for (auto it = runs_.begin(); it != runs_.end();) {
    const std::optional<Clock::time_point> deadline = it->second->deadline();
    if (deadline.has_value() && now >= *deadline) {
      const int64_t waiting = turns_.waiting();
      const Error error(
          Code::kQueueTimeout,
          "the request waited queueTimeoutMs " +
              std::to_string(it->second->request().queue_timeout_ms) + " without starting",
          "retry later, or raise queueTimeoutMs",
          {{"waiting", waiting}, {"retryAfterMs", retry_after_ms(counters_.busy_ms, ended_)}});
      events_.push_back(failed_event(it->second->id(), error));
      ++counters_.rejected;
      turns_.remove(&it->second->place, counters_.steps);
      it = runs_.erase(it);
      continue;
    }
    if (deadline.has_value()) deadline_ = std::min(deadline_.value_or(*deadline), *deadline);
    ++it;
  }
}

std::optional<Clock::time_point> Runner::deadline() const { return deadline_; }

void Runner::tick(Clock::time_point now) {
  expire(now);
  wants_room_ = false;
  while (start_next(now)) sweep();  // those that end at once make room for more
  POLYLM_CHECK(runs_.empty() || !running_.empty());  // what can never fit was refused before
}

bool Runner::start_next(Clock::time_point now) {
  const Demand room{pool_.size() - reserved_blocks_, options_.max_sequences - reserved_rows_};
  const Place* const place = turns_.next(room, counters_.steps, &yielding_);
  if (place == nullptr) return false;
  if (!yielding_.empty() && model_->ops().in_flight() > 0) {
    wants_room_ = true;
    return false;
  }
  for (const Place* const other : yielding_) preempt(runs_.at(other->id).get());
  start(runs_.at(place->id).get(), now);
  return true;
}

void Runner::preempt(Run* run) {
  POLYLM_CHECK(!run->ended);
  turns_.preempt(&run->place, counters_.steps);
  running_.erase(std::find(running_.begin(), running_.end(), run));
  reserved_blocks_ -= run->work().demand.blocks;
  reserved_rows_ -= run->work().demand.rows;
  run->preempt(cache_ ? &*cache_ : nullptr);
  ++counters_.preempted;
}

void Runner::start(Run* run, Clock::time_point now) {
  PrefixCache* const cache = cache_ ? &*cache_ : nullptr;
  running_.push_back(run);
  reserved_blocks_ += run->work().demand.blocks;
  reserved_rows_ += run->work().demand.rows;
  turns_.start(&run->place, run->lost(), counters_.steps);
  try {
    if (run->started()) {
      run->come_back(cache, block_tokens_, model_->ops().info().roles_matter);
      return;
    }
    run->start(&pool_, cache, block_tokens_, vocab_, tokenizer_, now);
    if (run->work().prompt_rows == 0) finish(run, false, now);
  } catch (...) {
    end_failed(run, caught_error());
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
  for (Run*& run : running_) {
    if (!run->ended) continue;
    reserved_blocks_ -= run->work().demand.blocks;
    reserved_rows_ -= run->work().demand.rows;
    turns_.remove(&run->place, counters_.steps);
    runs_.erase(run->id());
    run = nullptr;
    ++ended_;
  }
  running_.erase(std::remove(running_.begin(), running_.end(), nullptr), running_.end());
}

void Runner::fail_all(const Error& error) {
  while (model_->ops().in_flight() > 0) {
    try {
      model_->ops().collect();
    } catch (...) {  // it is over all the same
    }
  }
  for (Run* const run : running_) {
    if (!run->ended) end_failed(run, error);
  }
  sweep();
  while (!runs_.empty()) {
    Run* const run = runs_.begin()->second.get();
    end_failed(run, error);
    turns_.remove(&run->place, counters_.steps);
    runs_.erase(runs_.begin());
  }
  deadline_.reset();
}

const EngineStats& Runner::counters() {
  counters_.running = std::count_if(running_.begin(), running_.end(),
                                    [](const auto& run) { return !run->ended; });
  counters_.waiting = turns_.waiting();
  counters_.kv_tokens_used = pool_.used() * block_tokens_;
  counters_.kv_tokens_total = pool_.size() * block_tokens_;
  return counters_;
}

}  // namespace polylm
