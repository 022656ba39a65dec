// engine_sim_test.cc: whole engines on the simulated device, from seeds that replay: thousands of
// requests of all kinds arrive, are cancelled and time out at random moments, under random budgets
// and too little memory, and every result must equal the run alone. Then the same with threads,
// with faults, and with bugs that must be noticed (a test that cannot fail proves nothing).
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "engine/runner.h"
#include "engine_journal.h"
#include "harness.h"
#include "sim_reference.h"

namespace polylm::test {
namespace {

using std::chrono::milliseconds;

struct Scenario {
  SimOptions sim;
  EngineOptions engine;
  RequestMix mix;
  bool with_text = false;
  double arrivals = 0.3;  // per step
  double cancels = 0.02;
};

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
  return s;
}

struct Asked {
  Work work;
  bool cancelled = false;
};

// Checks the end of one request; returns what is wrong with it.
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

// One engine without threads or clock, driven step by step.
class Simulation {
 public:
  Simulation(uint64_t seed, const Scenario& scenario)
      : rng_(seed),
        s_(scenario),
        tokenizer_(s_.with_text ? sim_tokenizer(s_.sim.vocab) : nullptr),
        model_(s_.sim),
        journal_(false) {
    model_.reserve(step_limits(s_.engine, s_.sim.vocab), s_.engine.kv_blocks);
    runner_ = std::make_unique<Runner>(&model_, tokenizer_, s_.engine);
  }

  void run(int64_t steps) {
    for (int64_t i = 0; i < steps; ++i) {
      if (chance(rng_, s_.arrivals)) submit();
      if (chance(rng_, s_.cancels) && last_id_ > 0) {
        cancel(static_cast<uint64_t>(pick(rng_, 1, static_cast<int64_t>(last_id_))));
      }
      turn();
    }
    while (!asked_.empty()) turn();
    if (runner_->pool().used() != 0) ++problems_;
    if (runner_->reserved_blocks() != 0) ++problems_;
    if (model_.sim().violations() > 0) ++problems_;
    const bool all_finish = s_.cancels == 0.0 && s_.sim.nan_every == 0;
    if (all_finish && model_.sim().prompt_rows_seen() != rows_due_) {
      if (problems_++ == 0) first_problem_ = "cachedTokens is not what was saved";
    }
    if (model_.sim().max_rows_seen() > step_limits(s_.engine, s_.sim.vocab).rows) ++problems_;
  }

  void turn() {
    now_ += milliseconds(1);
    runner_->tick(now_);
    if (runner_->busy()) runner_->step(stop_);
    take();
  }

  int64_t problems() const { return problems_; }
  const std::string& first_problem() const { return first_problem_; }
  int64_t violations() { return model_.sim().violations(); }
  int64_t ends() const { return journal_.ends(); }
  const EngineStats& counters() { return runner_->counters(); }
  uint64_t digest() const { return digest_; }
  int64_t cached() const { return cached_; }

 private:
  void submit() {
    Request request = random_request(rng_, s_.sim, s_.mix);
    if (chance(rng_, 0.1)) request.queue_timeout_ms = pick(rng_, 0, 60);
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.submitted = now_;
    arrival.cancelled = chance(rng_, s_.cancels);
    arrival.work = prepare_request(request, sim_intake_limits(s_.sim, s_.engine), tokenizer_.get());
    asked_[arrival.id] = {arrival.work, arrival.cancelled};
    runner_->arrive(std::move(arrival), now_);
  }

  void cancel(uint64_t id) {
    const auto found = asked_.find(id);
    if (found != asked_.end()) found->second.cancelled = true;
    runner_->cancel(id, now_);
  }

  void take() {
    std::vector<Event> events = std::move(runner_->events());
    runner_->events().clear();
    for (const Event& event : events) {
      journal_.add(event);
      if (event.kind != EventKind::kFinished && event.kind != EventKind::kFailed) continue;
      const auto found = asked_.find(event.request);
      const std::string wrong =
          check_end(s_, found->second, journal_.of(event.request), tokenizer_);
      if (event.result != nullptr) {
        cached_ += event.result->usage.cached_tokens;
        rows_due_ += found->second.work.prompt_rows - event.result->usage.cached_tokens;
      }
      digest_ = digest_ * 31 + event.request * 7 + (event.error.has_value() ? 1 : 0);
      if (!wrong.empty() && problems_++ == 0) {
        first_problem_ = "request " + show(event.request) + ": " + wrong;
      }
      asked_.erase(found);
    }
  }

  Rng rng_;
  Scenario s_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  SimModel model_;
  std::unique_ptr<Runner> runner_;
  Journal journal_;
  std::map<uint64_t, Asked> asked_;
  Clock::time_point now_{milliseconds(1)};
  std::atomic<bool> stop_{false};
  uint64_t last_id_ = 0;
  int64_t problems_ = 0;
  std::string first_problem_;
  uint64_t digest_ = 0;
  int64_t rows_due_ = 0;  // prompt rows of finished requests, without cached ones
  int64_t cached_ = 0;
};

TEST(engine_sim_every_result_equals_its_run_alone) {
  int64_t ends = 0;
  int64_t steps = 0;
  int64_t aborted = 0;
  int64_t timeouts = 0;
  int64_t cached = 0;
  const char* const scale = std::getenv("POLYLM_SIM_SEEDS");  // many more, for a long night
  const uint64_t seeds = scale == nullptr ? 60 : std::strtoull(scale, nullptr, 10);
  for (uint64_t i = 0; i < seeds; ++i) {
    Rng rng(seed() + i);
    Simulation simulation(seed() + i, random_scenario(rng));
    simulation.run(400);
    if (simulation.problems() > 0) {
      report_failure(__FILE__, __LINE__, "POLYLM_SEED=" + show(seed() + i) + ": " +
                                             simulation.first_problem());
    }
    ends += simulation.ends();
    steps += simulation.counters().steps;
    aborted += simulation.counters().aborted;
    timeouts += simulation.counters().rejected;
    cached += simulation.cached();
  }
  std::printf("  %lld engine steps, %lld requests over %llu seeds\n", static_cast<long long>(steps),
              static_cast<long long>(ends), static_cast<unsigned long long>(seeds));
  if (scale != nullptr) return;  // the mix is only sure over the usual seeds
  EXPECT(ends > static_cast<int64_t>(seeds) * 40);
  EXPECT(steps > static_cast<int64_t>(seeds) * 300);
  EXPECT(aborted > 20);
  EXPECT(timeouts > 20);
  EXPECT(cached > static_cast<int64_t>(seeds) * 50);
}

TEST(engine_sim_replays_from_its_seed) {
  uint64_t digests[2] = {0, 0};
  int64_t steps[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    Rng rng(seed());
    Simulation simulation(seed(), random_scenario(rng));
    simulation.run(200);
    digests[i] = simulation.digest();
    steps[i] = simulation.counters().steps;
  }
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_EQ(steps[0], steps[1]);
}

// The simulator must notice what it is there for.
void expect_noticed(const char* what, void (*bug)(SimOptions*), bool by_violation) {
  Rng rng(seed() + 7);
  Scenario s = random_scenario(rng);
  s.sim.block_tokens = 4;
  s.sim.nan_every = 0;
  s.sim.vocab = 61;
  s.with_text = s.mix.text = false;
  s.engine.context_size = 96;
  s.engine.kv_blocks = 400;
  s.engine.max_sequences = 24;
  Simulation sound(seed(), s);
  sound.run(150);
  EXPECT_EQ(sound.problems(), int64_t{0});
  // The oracle keeps computing without the bug: what it does not cache cannot go wrong.
  bug(&s.sim);
  Simulation broken(seed(), s);
  broken.run(150);
  if (broken.problems() == 0) report_failure(__FILE__, __LINE__, std::string("unnoticed: ") + what);
  if (by_violation) EXPECT(broken.violations() > 0);
}

TEST(engine_sim_canaries_are_noticed) {
  expect_noticed("a wrong block", [](SimOptions* o) { o->wrong_block_every = 40; }, true);
  expect_noticed("a missed copy", [](SimOptions* o) { o->skip_copies = true; }, true);
  expect_noticed("a wrong role", [](SimOptions* o) { o->swap_roles = true; }, false);
}

// ------------------------------------------------------------------------------- with threads

// Wakes and takes events like the JavaScript thread does.
class Consumer {
 public:
  void wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++wakes_;
    changed_.notify_one();
  }
  void start(Engine* engine) {
    thread_ = std::thread([this, engine] { loop(engine); });
  }
  // After the engine was closed.
  void finish(Engine* engine) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
      changed_.notify_one();
    }
    thread_.join();
    std::vector<Event> events;
    engine->take_events(&events);
    journal.add_all(&events);
  }
  bool wait_for(int64_t ends, milliseconds most) {
    std::unique_lock<std::mutex> lock(mutex_);
    return ended_.wait_for(lock, most, [&] { return ends_ >= ends; });
  }
  int64_t wakes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return wakes_;
  }

  Journal journal{true};

 private:
  void loop(Engine* engine) {
    std::vector<Event> events;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return done_ || wakes_ > seen_; });
        seen_ = wakes_;
        if (done_) return;
      }
      engine->take_events(&events);
      journal.add_all(&events);
      const std::lock_guard<std::mutex> lock(mutex_);
      ends_ = journal.ends();
      ended_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_, ended_;
  std::thread thread_;
  int64_t wakes_ = 0, seen_ = 0, ends_ = 0;
  bool done_ = false;
};

struct Submitted {
  uint64_t id = 0;
  Asked asked;
};

// One caller: submits, sometimes cancels its own.
void caller(Engine* engine, const Scenario& s, const std::shared_ptr<const Tokenizer>& tokenizer,
            uint64_t caller_seed, int requests, std::vector<Submitted>* out) {
  Rng rng(caller_seed);
  const IntakeLimits limits = sim_intake_limits(s.sim, s.engine);
  for (int i = 0; i < requests; ++i) {
    Request request = random_request(rng, s.sim, s.mix);
    if (chance(rng, 0.05)) request.queue_timeout_ms = pick(rng, 0, 3);
    Submitted submitted;
    submitted.asked.work = prepare_request(request, limits, tokenizer.get());
    try {
      submitted.id = engine->submit(request);
    } catch (const Error& e) {
      EXPECT(e.code() == Code::kQueueFull || e.code() == Code::kDraining ||
             e.code() == Code::kDisposed);
      continue;
    }
    if (chance(rng, s.cancels)) {
      submitted.asked.cancelled = true;
      if (chance(rng, 0.5)) std::this_thread::sleep_for(std::chrono::microseconds(rng() % 800));
      engine->cancel(submitted.id);
    }
    out->push_back(submitted);
  }
}

// `ending`: 0 all finish, 1 drain first, 2 close at a random moment.
void threaded_run(uint64_t run_seed, int ending) {
  Rng rng(run_seed);
  Scenario s = random_scenario(rng);
  s.cancels = 0.1;
  s.engine.max_queue = chance(rng, 0.2) ? 20 : 4096;
  const auto tokenizer = s.with_text ? sim_tokenizer(s.sim.vocab) : nullptr;
  auto model = std::make_unique<SimModel>(s.sim);
  SimOps& sim = model->sim();
  Consumer consumer;
  Engine engine(std::move(model), tokenizer, s.engine, [&] { consumer.wake(); });
  consumer.start(&engine);
  constexpr int kCallers = 3;
  std::vector<std::vector<Submitted>> all(kCallers);
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c) {
    callers.emplace_back([&, c] {
      const auto at = static_cast<size_t>(c);
      caller(&engine, s, tokenizer, run_seed * 10 + at, 40, &all[at]);
    });
  }
  if (ending == 2) {
    std::this_thread::sleep_for(std::chrono::microseconds(rng() % 20000));
    engine.close();
  }
  for (std::thread& thread : callers) thread.join();
  int64_t submitted = 0;
  for (const auto& list : all) submitted += static_cast<int64_t>(list.size());
  if (ending == 1) {
    engine.drain();
    EXPECT_THROWS_CODE(Code::kDraining, engine.submit(Request{}));
  }
  if (ending != 2) EXPECT(consumer.wait_for(submitted, milliseconds(60000)));
  const EngineStats stats = engine.stats();
  if (ending != 2) {
    EXPECT_EQ(stats.running, int64_t{0});
    EXPECT_EQ(stats.waiting, int64_t{0});
    EXPECT_EQ(stats.kv_tokens_used, int64_t{0});
  }
  engine.close();
  consumer.finish(&engine);
  EXPECT_EQ(consumer.journal.ends(), submitted);
  EXPECT_EQ(sim.violations(), int64_t{0});
  EXPECT(consumer.wakes() <= 2 * submitted + sim.steps() + 2);
  for (const auto& list : all) {
    for (const Submitted& one : list) {
      if (!consumer.journal.ended(one.id)) {
        report_failure(__FILE__, __LINE__, "a request never ended");
        continue;
      }
      const Journal::Entry& entry = consumer.journal.of(one.id);
      if (ending == 2 && entry.last.error && entry.last.error->code() == Code::kDisposed) continue;
      const std::string wrong = check_end(s, one.asked, entry, tokenizer);
      if (wrong.empty()) continue;
      report_failure(__FILE__, __LINE__, "POLYLM_SEED=" + show(run_seed) + ": " + wrong);
    }
  }
}

TEST(engine_sim_threads_submit_cancel_and_drain) {
  for (uint64_t i = 0; i < 12; ++i) threaded_run(seed() + i, static_cast<int>(i % 2));
}

TEST(engine_sim_close_at_any_moment) {
  for (uint64_t i = 0; i < 25; ++i) threaded_run(seed() + 100 + i, 2);
}

}  // namespace
}  // namespace polylm::test
