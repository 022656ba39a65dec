// simulation.cc: see simulation.h.
#include "simulation.h"

#include <algorithm>
#include <utility>

#include "alloc_probe.h"
#include "engine/events.h"
#include "harness.h"

namespace polylm::test {

using std::chrono::milliseconds;

Scenario random_scenario(Rng& rng) {
  Scenario s;
  s.sim.seed = rng();
  s.sim.block_tokens = int64_t{1} << pick(rng, 0, 3);
  s.sim.layers = pick(rng, 1, 2);
  s.sim.vocab = chance(rng, 0.5) ? 61 : 130;  // fewer and more than the candidates
  s.sim.context = 96;
  s.sim.nan_every = chance(rng, 0.3) ? 400 : 0;
  s.mix.most_width = 6;
  s.engine.context_size = chance(rng, 0.5) ? 96 : 70;
  s.engine.max_sequences = pick(rng, 6, 40);
  const int64_t least =
      blocks_for_request(s.mix.most_prompt, s.mix.most_tokens, s.mix.most_width,
                         s.sim.block_tokens) +
      s.mix.most_width;  // a shorter prompt may end inside a block
  s.engine.kv_blocks = least + pick(rng, 0, 3 * least);
  s.engine.budget_mixed = chance(rng, 0.3) ? pick(rng, 1, 8) : pick(rng, 8, 80);
  s.engine.budget_prefill = chance(rng, 0.3) ? pick(rng, 1, 8) : pick(rng, 8, 200);
  s.engine.prefix_cache = s.mix.alike = chance(rng, 0.6);
  s.with_text = chance(rng, 0.5);
  s.mix.text = s.with_text;
  s.arrivals = 0.05 * static_cast<double>(pick(rng, 1, 12));
  s.cancels = chance(rng, 0.5) ? 0.02 : 0.0;
  s.sim.roles_matter = chance(rng, 0.5);
  s.sim.fault_every = chance(rng, 0.3) ? 150 : 0;
  s.lost_memory = chance(rng, 0.3) ? 0.05 : 0.0;
  s.disposals = chance(rng, 0.2) ? 0.005 : 0.0;
  s.sim.feeds_back = chance(rng, 0.5);
  if (s.sim.feeds_back && chance(rng, 0.7)) {  // otherwise hardly a step is alike as a whole
    s.mix.plain = 0.95;
    if (chance(rng, 0.7)) s.arrivals /= 4.0;
  }
  return s;
}

std::string check_end(const Scenario& s, const Asked& asked, const Journal::Entry& entry,
                      const std::shared_ptr<const Tokenizer>& tokenizer) {
  const std::string deltas = Journal::delta_difference(entry, asked.work.request);
  if (!deltas.empty()) return deltas;
  const Request& request = asked.work.request;
  if (entry.last.error.has_value()) {
    const Code code = entry.last.error->code();
    if (code == Code::kAborted) return asked.cancelled ? "" : "aborted by nobody";
    if (code == Code::kQueueTimeout) return request.queue_timeout_ms >= 0 ? "" : "no timeout given";
  }
  const Outcome expected = sim_reference(s.sim, asked.work, tokenizer);
  if (asked.cancelled) return abort_difference(expected, request, entry.last);
  if (entry.last.result != nullptr) {
    const Usage& usage = entry.last.result->usage;
    int64_t tokens = 0;
    for (const OutputResult& output : entry.last.result->outputs) {
      tokens += static_cast<int64_t>(output.tokens.size());
    }
    if (usage.completion_tokens != tokens) return "usage.completion_tokens";
    if (usage.prompt_tokens != static_cast<int64_t>(asked.work.ids.size())) return "usage";
    if (request.stream && entry.prefill_done != asked.work.prompt_rows) return "prefill events";
  }
  return difference(expected, entry.last);
}

void Happened::add(const Happened& other) {
  ends += other.ends;
  steps += other.steps;
  aborted += other.aborted;
  timeouts += other.timeouts;
  cached += other.cached;
  device_faults += other.device_faults;
  lost_memory += other.lost_memory;
  survived += other.survived;
  disposals += other.disposals;
  ahead += other.ahead;
  ended_in_flight += other.ended_in_flight;
  preempted += other.preempted;
}

Simulation::Simulation(uint64_t seed, const Scenario& scenario)
    : rng_(seed),
      s_(scenario),
      tokenizer_(s_.with_text ? sim_tokenizer(s_.sim.vocab) : nullptr) {
  load();
}

void Simulation::load() {
  if (model_ != nullptr) {
    const EngineStats& counters = runner_->counters();
    happened_.steps += counters.steps;
    happened_.aborted += counters.aborted;
    happened_.timeouts += counters.rejected;
    happened_.preempted += counters.preempted;
    happened_.ahead += model_->sim().fed_steps();
    violations_ += model_->sim().violations();
  }
  runner_ = nullptr;
  model_ = std::make_unique<SimModel>(s_.sim);
  model_->reserve(step_limits(s_.engine, s_.sim.vocab), s_.engine.kv_blocks);
  runner_ = std::make_unique<Runner>(model_.get(), tokenizer_, s_.engine);
}

Happened Simulation::happened() {
  Happened all = happened_;
  const EngineStats& counters = runner_->counters();
  all.ends = journal_.ends();
  all.steps += counters.steps;
  all.aborted += counters.aborted;
  all.timeouts += counters.rejected;
  all.preempted += counters.preempted;
  all.ahead += model_->sim().fed_steps();
  return all;
}

void Simulation::problem(const std::string& what) {
  if (problems_++ == 0) first_problem_ = what;
}

void Simulation::run(int64_t turns) {
  for (int64_t i = 0; i < turns; ++i) {
    if (chance(rng_, s_.arrivals)) submit();
    if (chance(rng_, s_.cancels) && last_id_ > 0) {
      cancel(static_cast<uint64_t>(pick(rng_, 1, static_cast<int64_t>(last_id_))));
    }
    // A cancel that comes too late, with a row perhaps still in flight, is nothing.
    const uint64_t late = std::exchange(last_end_, 0);
    if (late > 0 && chance(rng_, 0.3)) cancel(late);
    if (chance(rng_, s_.disposals)) {
      ++happened_.disposals;
      fail_all({Code::kDisposed, "the model was disposed"}, true);
    }
    turn();
  }
  while (!asked_.empty() || runner_->busy()) turn();
  check_empty();
  if (violations() > 0) problem("the device saw foreign or missing history");
  const bool all_finish = s_.cancels == 0.0 && s_.sim.nan_every == 0 && s_.sim.fault_every == 0 &&
                          s_.lost_memory == 0.0 && s_.disposals == 0.0;
  const int64_t recomputed = runner_->counters().recomputed_rows;
  if (all_finish && model_->sim().prompt_rows_seen() != rows_due_ + recomputed) {
    problem("cachedTokens is not what was saved");
  }
  if (model_->sim().max_rows_seen() > step_limits(s_.engine, s_.sim.vocab).rows) {
    problem("more rows in a step than reserved");
  }
}

void Simulation::check_empty() {
  if (runner_->pool().used() != 0) problem("blocks leaked");
  if (runner_->reserved_blocks() != 0) problem("reservations leaked");
}

// A step in flight writes blocks of its own rows, also where a row's request has ended.
void Simulation::check_in_flight() {
  for (const int32_t block : model_->sim().blocks_in_flight()) {
    if (runner_->pool().refs(block) == 0) problem("a step in flight writes a free block");
  }
  const int64_t in_flight = static_cast<int64_t>(model_->sim().blocks_in_flight().size());
  if (in_flight > runner_->counters().running) ++happened_.ended_in_flight;
}

// Does what the engine's thread does, while allocations may fail.
template <class F>
void Simulation::guarded(F&& f) {
  memory_ends_ = 0;
  const bool lossy = chance(rng_, s_.lost_memory);
  if (lossy) fail_allocation(pick(rng_, 0, chance(rng_, 0.5) ? 3 : 60));
  std::optional<Error> error;
  try {
    f();
  } catch (...) {
    error = caught_error();
  }
  const bool lost = stop_failing_allocations() && lossy;
  if (lost) ++happened_.lost_memory;
  if (!error.has_value()) {
    take();
    if (memory_ends_ > (lost ? 1 : 0)) problem("lost memory ended more than one request");
    if (lost) ++happened_.survived;
    check_in_flight();
    return;
  }
  const bool by_memory = lost && error->code() == Code::kInsufficientMemory;
  if (!by_memory) ++happened_.device_faults;
  if (!by_memory && error->code() != model_->sim().fault_thrown()) {
    problem("failed otherwise: " + error->message());
  }
  fail_all(*error, chance(rng_, 0.5));
}

void Simulation::turn() {
  now_ += milliseconds(1);
  guarded([&] {
    runner_->tick(now_);
    if (runner_->busy()) runner_->step(stop_);
  });
}

// What the engine does with a failure that is nobody's own, or when it is closed.
void Simulation::fail_all(const Error& error, bool load_again) {
  runner_->fail_all(error);
  failed_with_ = error.code();
  take();
  failed_with_.reset();
  if (!asked_.empty()) problem("a request never ended");
  asked_.clear();
  check_empty();
  if (load_again) load();
}

void Simulation::submit() {
  Request request = random_request(rng_, s_.sim, s_.mix);
  if (chance(rng_, 0.1)) request.queue_timeout_ms = pick(rng_, 0, 60);
  Arrival arrival;
  arrival.id = ++last_id_;
  arrival.submitted = now_;
  arrival.cancelled = chance(rng_, s_.cancels);
  arrival.work = prepare_request(request, sim_intake_limits(s_.sim, s_.engine), tokenizer_.get());
  asked_[arrival.id] = {arrival.work, arrival.cancelled};
  guarded([&] { runner_->arrive(std::move(arrival), now_); });
}

void Simulation::cancel(uint64_t id) {
  const auto found = asked_.find(id);
  if (found != asked_.end()) found->second.cancelled = true;
  guarded([&] { runner_->cancel(id, now_); });
}

void Simulation::take() {
  std::vector<Event> events = std::move(runner_->events());
  runner_->events().clear();
  for (const Event& event : events) {
    journal_.add(event);
    if (event.kind == EventKind::kFinished || event.kind == EventKind::kFailed) {
      take_end(event.request, event);
    }
  }
}

void Simulation::take_end(uint64_t id, const Event& event) {
  const auto found = asked_.find(id);
  if (found == asked_.end()) {
    problem("request " + show(id) + " ended twice");
    return;
  }
  const std::string wrong = check(found->second, journal_.of(id));
  if (event.result != nullptr) {
    happened_.cached += event.result->usage.cached_tokens;
    rows_due_ += found->second.work.prompt_rows - event.result->usage.cached_tokens;
  }
  digest_ = digest_ * 31 + id * 7 + (event.error.has_value() ? 1 : 0);
  if (!wrong.empty()) problem("request " + show(id) + ": " + wrong);
  asked_.erase(found);
  last_end_ = id;
}

std::string Simulation::check(const Asked& asked, const Journal::Entry& entry) {
  if (entry.last.error.has_value()) {
    const Code code = entry.last.error->code();
    if (failed_with_ == code) return "";
    if (code == Code::kInsufficientMemory) {
      ++memory_ends_;
      return "";
    }
  }
  return check_end(s_, asked, entry, tokenizer_);
}

}  // namespace polylm::test
