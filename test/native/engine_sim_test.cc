// engine_sim_test.cc: whole engines on the simulated device, from seeds that replay: thousands of
// requests of all kinds arrive, are cancelled and time out at random moments, under random budgets
// and too little memory, while devices and allocations fail, and every result must equal the run
// alone. Then the same with threads, and with bugs that must be noticed (a test that cannot fail
// proves nothing).
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "harness.h"
#include "simulation.h"

namespace polylm::test {
namespace {

using std::chrono::milliseconds;

uint64_t number_of(const char* name, uint64_t usual) {
  const char* const text = std::getenv(name);
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

// Many more, for a long night: POLYLM_SIM_SEEDS seeds from POLYLM_SEED on, in each of which
// requests come for POLYLM_SIM_STEPS steps.
TEST(engine_sim_every_result_equals_its_run_alone) {
  Happened all;
  const bool usual = std::getenv("POLYLM_SIM_SEEDS") == nullptr;
  const uint64_t seeds = number_of("POLYLM_SIM_SEEDS", 80);
  const uint64_t turns = number_of("POLYLM_SIM_STEPS", 400);
  for (uint64_t i = 0; i < seeds; ++i) {
    Rng rng(seed() + i);
    Simulation simulation(seed() + i, random_scenario(rng));
    simulation.run(static_cast<int64_t>(turns));
    if (simulation.problems() > 0) {
      report_failure(__FILE__, __LINE__, "POLYLM_SEED=" + show(seed() + i) + ": " +
                                             simulation.first_problem());
    }
    all.add(simulation.happened());
  }
  std::printf("  %llu seeds: %lld engine steps (%lld ahead of results, %lld ends in flight), %lld "
              "requests, %lld preempted, %lld device faults, %lld failed allocations (%lld "
              "survived), %lld disposals\n",
              static_cast<unsigned long long>(seeds), static_cast<long long>(all.steps),
              static_cast<long long>(all.ahead), static_cast<long long>(all.ended_in_flight),
              static_cast<long long>(all.ends), static_cast<long long>(all.preempted),
              static_cast<long long>(all.device_faults),
              static_cast<long long>(all.lost_memory), static_cast<long long>(all.survived),
              static_cast<long long>(all.disposals));
  if (!usual) return;  // the mix is only sure over the usual seeds
  EXPECT(all.ends > static_cast<int64_t>(seeds) * 40);
  EXPECT(all.steps > static_cast<int64_t>(seeds) * 300);
  EXPECT(all.aborted > 20);
  EXPECT(all.timeouts > 20);
  EXPECT(all.cached > static_cast<int64_t>(seeds) * 50);
  EXPECT(all.device_faults > 20);
  EXPECT(all.lost_memory > 50);
  EXPECT(all.survived > all.lost_memory / 2);
  EXPECT(all.disposals > 5);
  EXPECT(all.preempted > static_cast<int64_t>(seeds) * 5);
  EXPECT(all.ahead > static_cast<int64_t>(seeds) * 20);
  EXPECT(all.ended_in_flight > static_cast<int64_t>(seeds));
}

TEST(engine_sim_replays_from_its_seed) {
  uint64_t digests[2] = {0, 0};
  int64_t steps[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    Rng rng(seed());
    Simulation simulation(seed(), random_scenario(rng));
    simulation.run(200);
    digests[i] = simulation.digest();
    steps[i] = simulation.happened().steps;
  }
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_EQ(steps[0], steps[1]);
}

// The simulator must notice what it is there for.
void expect_noticed(const char* what, void (*bug)(SimOptions*), bool by_violation,
                    double plain = 0.0) {
  Rng rng(seed() + 7);
  Scenario s = random_scenario(rng);
  s.sim.block_tokens = 4;
  s.sim.nan_every = 0;
  s.sim.fault_every = 0;
  s.lost_memory = s.disposals = 0.0;
  s.sim.roles_matter = true;
  s.sim.feeds_back = true;
  s.mix.plain = plain;
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
  expect_noticed("a wrong source", [](SimOptions* o) { o->wrong_source = true; }, false, 0.8);
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
             e.code() == Code::kDisposed || engine->stats().state == EngineState::kFailed);
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

// `ending`: 0 all finish, 1 drain first, 2 close at a random moment, 3 the device fails.
void threaded_run(uint64_t run_seed, int ending) {
  Rng rng(run_seed);
  Scenario s = random_scenario(rng);
  s.cancels = 0.1;
  s.sim.fault_every = ending == 3 ? 60 : 0;
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
  const bool failed = stats.state == EngineState::kFailed;
  if (failed) EXPECT_EQ(stats.failure, std::string(code_name(sim.fault_thrown())));
  EXPECT(ending == 3 || !failed);
  if (ending != 2) {
    EXPECT_EQ(stats.running, int64_t{0});
    EXPECT_EQ(stats.waiting, int64_t{0});
    EXPECT_EQ(kv_tokens_left(engine), int64_t{0});
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
      if (failed && entry.last.error && entry.last.error->code() == sim.fault_thrown()) continue;
      const std::string wrong = check_end(s, one.asked, entry, tokenizer);
      if (wrong.empty()) continue;
      report_failure(__FILE__, __LINE__, "POLYLM_SEED=" + show(run_seed) + ": " + wrong);
    }
  }
}

TEST(engine_sim_threads_submit_cancel_and_drain) {
  for (uint64_t i = 0; i < 12; ++i) threaded_run(seed() + i, static_cast<int>(i % 2));
}

TEST(engine_sim_threads_and_a_device_that_fails) {
  for (uint64_t i = 0; i < 12; ++i) threaded_run(seed() + 200 + i, 3);
}

TEST(engine_sim_close_at_any_moment) {
  for (uint64_t i = 0; i < 25; ++i) threaded_run(seed() + 100 + i, 2);
}

}  // namespace
}  // namespace polylm::test
