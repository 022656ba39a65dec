// turns_test.cc: callers take turns. The rules of turns.h on plain data, random days in which its
// promises must hold, and the waits of whole requests, counted in steps, on the simulated device:
// scoring or a thousand requests beside a question, batch work under a stream of questions.
#include <algorithm>
#include <map>
#include <set>

#include "engine/runner.h"
#include "engine/turns.h"
#include "engine_rig.h"
#include "harness.h"

namespace polylm::test {
namespace {

// ------------------------------------------------------------------------------------- rules

// A queue of places with a room of `rows`, one for each; who takes whose place is told in letters.
class Lines {
 public:
  explicit Lines(int64_t rows) : turns({kUnlimited, rows}), room_{kUnlimited, rows} {
    yielding_.reserve(static_cast<size_t>(rows));
  }

  uint64_t add(const std::string& caller, int64_t steps, bool batch = false, int64_t rows = 1) {
    auto place = std::make_unique<Place>();
    place->id = ++last_;
    place->batch = batch;
    place->demand = {0, rows};
    place->steps = steps;
    turns.add(place.get(), caller, step);
    callers_[last_] = caller;
    all_[last_] = std::move(place);
    return last_;
  }
  // Starts whoever may; their callers, and behind a '-' those of who made place.
  std::string start() {
    std::string told;
    while (Place* const next = turns.next(room_, step, &yielding_)) {
      told += callers_[next->id];
      for (Place* const other : yielding_) {
        turns.preempt(other, step);
        room_.rows += other->demand.rows;
        told += "-" + callers_[other->id];
      }
      turns.start(next, next->was_preempted ? 1 : 0, step);
      if (next->is_behind) turns.goes_on(next, step);
      room_.rows -= next->demand.rows;
      EXPECT(room_.rows >= 0);
    }
    return told;
  }
  void end(uint64_t id) {
    if (runs(id)) room_.rows += all_.at(id)->demand.rows;
    turns.remove(all_.at(id).get(), step);
    all_.erase(id);
  }
  bool runs(uint64_t id) const { return all_.at(id)->running; }
  std::vector<uint64_t> running() const {
    std::vector<uint64_t> ids;
    for (const auto& [id, place] : all_) {
      if (place->running) ids.push_back(id);
    }
    return ids;
  }
  // The oldest running request of a caller ends.
  std::string end_of(const std::string& caller) {
    for (const uint64_t id : running()) {
      if (callers_[id] != caller) continue;
      end(id);
      return start();
    }
    return "nobody";
  }
  const std::string& caller_of(uint64_t id) { return callers_[id]; }

  Turns turns;
  int64_t step = 0;

 private:
  std::map<uint64_t, std::unique_ptr<Place>> all_;
  std::map<uint64_t, std::string> callers_;
  std::vector<Place*> yielding_;
  Demand room_;
  uint64_t last_ = 0;
};

constexpr int64_t kLong = 64;

}  // namespace

TEST(turns_oldest_first_within_a_line) {
  Lines lines(2);
  for (int i = 0; i < 5; ++i) lines.add("a", kLong);
  EXPECT_EQ(lines.start(), std::string("aa"));
  EXPECT(lines.running() == (std::vector<uint64_t>{1, 2}));
  lines.end(1);
  EXPECT_EQ(lines.start(), std::string("a"));
  EXPECT(lines.running() == (std::vector<uint64_t>{2, 3}));
}

TEST(turns_share_the_places) {
  Lines lines(4);
  for (int i = 0; i < 9; ++i) lines.add("a", kLong);
  EXPECT_EQ(lines.start(), std::string("aaaa"));
  for (int i = 0; i < 9; ++i) lines.add("b", kLong);
  EXPECT_EQ(lines.start(), std::string("b-ab-a"));  // until both hold two
  lines.add("c", kLong);
  EXPECT_EQ(lines.start(), std::string("c-b"));  // a and b hold the same; the older ones stay
  EXPECT_EQ(lines.end_of("a"), std::string("b"));  // b was preempted before a gave back
  lines.add("d", kLong);
  EXPECT_EQ(lines.start().substr(0, 1), std::string("d"));
}

TEST(turns_short_requests_have_a_line_of_their_own) {
  Lines lines(2);
  for (int i = 0; i < 4; ++i) lines.add("a", kLong);
  lines.start();
  const uint64_t one = lines.add("a", 1);
  lines.add("a", kShortSteps + 1);
  EXPECT_EQ(lines.start(), std::string("a-a"));
  EXPECT(lines.runs(one));
  lines.add("a", 1);
  EXPECT_EQ(lines.start(), std::string("a-a"));
  lines.add("b", 1);  // shorts do not displace shorts but to share
  EXPECT_EQ(lines.start(), std::string("b-a"));
}

// What is free counts for whoever is next: no more make place than are needed.
TEST(turns_a_short_request_that_is_next_uses_the_free_room) {
  Lines lines(5);
  for (const char* caller : {"a", "b", "c", "d"}) lines.add(caller, kLong);
  EXPECT_EQ(lines.start(), std::string("abcd"));
  lines.add("e", 1, false, 3);  // one row is free
  const std::string told = lines.start();
  EXPECT_EQ(told.substr(0, 1), std::string("e"));
  EXPECT_EQ(told.size(), size_t{5});  // two made place
}

TEST(turns_batch_makes_place_and_gets_its_own) {
  Lines lines(2);
  for (int i = 0; i < 3; ++i) lines.add("z", kLong, true);
  EXPECT_EQ(lines.start(), std::string("zz"));
  for (int i = 0; i < 4; ++i) lines.add("a", kLong);
  EXPECT_EQ(lines.start(), std::string("a-za-z"));
  lines.step = kBatchPatience - 1;
  EXPECT_EQ(lines.start(), std::string());
  lines.step = kBatchPatience;
  EXPECT_EQ(lines.start(), std::string("z-a"));
  // It has come back: it has its turn before another question takes its place.
  lines.step += kTurnSteps - 1;
  EXPECT_EQ(lines.start(), std::string());
  lines.step += 1;
  EXPECT_EQ(lines.start(), std::string("a-z"));
}

TEST(turns_one_place_goes_round) {
  Lines lines(1);
  lines.add("a", 2000);
  EXPECT_EQ(lines.start(), std::string("a"));
  lines.add("b", 2000);
  lines.add("c", 2000);
  std::string all;
  for (lines.step = 1; lines.step <= 6 * kTurnSteps; ++lines.step) all += lines.start();
  EXPECT_EQ(all, std::string("b-ac-ba-cb-ac-ba-c"));
  lines.add("d", 3);  // all have been moved once, so d waits for the end of a turn, not for its own
  EXPECT_EQ(lines.start(), std::string());
  lines.step += kTurnSteps;
  EXPECT_EQ(lines.start(), std::string("d-a"));
  EXPECT_EQ(lines.end_of("d"), std::string("b"));
}

// Somebody always comes; nobody waits for ever, and not for more than the stated number of starts.
TEST(turns_each_line_gets_its_turn_within_as_many_starts_as_there_are_lines) {
  Rng rng(seed());
  for (int day = 0; day < 40; ++day) {
    Lines lines(pick(rng, 1, 12));
    const int64_t callers = pick(rng, 2, 9);
    std::map<std::string, int64_t> since;  // starts of others while a caller waits with nothing
    std::map<uint64_t, int64_t> left;
    for (lines.step = 0; lines.step < 600; ++lines.step) {
      for (int64_t n = pick(rng, 0, 3); n > 0; --n) {
        left[lines.add(show(pick(rng, 1, callers)), 100)] = pick(rng, 1, 60);
      }
      const auto held = [&] {
        std::set<std::string> all;
        for (const uint64_t id : lines.running()) all.insert(lines.caller_of(id));
        return all;
      };
      const std::set<std::string> before = held();
      const std::string told = lines.start();
      const std::set<std::string> after = held();
      int64_t starts = 0;
      for (const char c : told) starts += c == '-' ? -1 : 1;
      std::set<std::string> wait;
      for (const auto& [id, steps] : left) {
        if (!lines.runs(id)) wait.insert(lines.caller_of(id));
      }
      for (int64_t c = 1; c <= callers; ++c) {
        const std::string name = show(c);
        if (wait.count(name) == 0 || after.count(name) > 0) since[name] = 0;
        if (before.count(name) == 0 && after.count(name) == 0 && wait.count(name) > 0) {
          since[name] += starts;
        }
        EXPECT(since[name] <= callers);
      }
      for (const uint64_t id : lines.running()) {
        if (--left[id] > 0) continue;
        left.erase(id);
        lines.end(id);
      }
    }
  }
}

// ------------------------------------------------------------------------- waits of requests

namespace {

// A runner step by step; says in which step a request ended.
class Office {
 public:
  explicit Office(const EngineOptions& options, const SimOptions& sim = {})
      : options_(options), sim_(sim), model_(sim) {
    model_.reserve(step_limits(options, sim.vocab), options.kv_blocks);
    runner_.emplace(&model_, nullptr, options);
  }

  uint64_t submit(const Request& request) {
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.work = prepare_request(request, sim_intake_limits(sim_, options_), nullptr);
    requests_[last_id_] = request;
    came_[last_id_] = steps;
    runner_->arrive(std::move(arrival), now_);
    return last_id_;
  }
  void step(int64_t count = 1) {
    for (; count > 0; --count) {
      runner_->tick(now_);
      runner_->step(stop_);
      ++steps;
      take();
    }
  }
  // Steps from its arrival to its end.
  int64_t wait(uint64_t id) {
    while (waits_.count(id) == 0 && steps < 1000000) step();
    return waits_[id];
  }
  bool ended(uint64_t id) const { return waits_.count(id) > 0; }
  void finish() {
    while (runner_->busy()) step();
    EXPECT_EQ(model_.sim().violations(), int64_t{0});
    EXPECT_EQ(runner_->pool().used() + runner_->reserved_blocks(), int64_t{0});
    EXPECT_EQ(waits_.size(), requests_.size());
  }
  Runner& runner() { return *runner_; }

  int64_t steps = 0;

 private:
  void take() {
    for (const Event& event : runner_->events()) {
      if (event.kind != EventKind::kFinished && event.kind != EventKind::kFailed) continue;
      waits_[event.request] = steps - came_[event.request];
      if (event.request % 7 != 0) continue;  // whoever was preempted got what it gets alone
      const Work work = prepare_request(requests_[event.request],
                                        sim_intake_limits(sim_, options_), nullptr);
      EXPECT_EQ(difference(sim_reference(sim_, work, nullptr), event), std::string());
    }
    runner_->events().clear();
  }

  EngineOptions options_;
  SimOptions sim_;
  SimModel model_;
  std::optional<Runner> runner_;
  std::map<uint64_t, Request> requests_;
  std::map<uint64_t, int64_t> came_, waits_;
  Clock::time_point now_{std::chrono::milliseconds(1)};
  std::atomic<bool> stop_{false};
  uint64_t last_id_ = 0;
};

// 64 places, memory for a few of the longest requests, prompts of at most 64 rows a step.
EngineOptions office() {
  EngineOptions options = small_engine();
  options.max_sequences = 64;
  options.kv_blocks = 64 * 20;
  options.budget_mixed = 96;
  options.prefix_cache = true;
  return options;
}

Request from(const std::string& salt, int64_t max_tokens, int64_t prompt = 8) {
  Request request = ids_request(counting(prompt), max_tokens);
  request.cache_salt = salt;
  return request;
}

Request window(int64_t tokens) {
  Request request = ids_request(counting(tokens));
  request.kind = RequestKind::kScore;
  request.score_from = 1;
  request.batch = true;
  return request;
}

// Steps that a question waits beside what `load` has filled the engine with.
template <class F>
int64_t question_beside(const Request& question, F&& load, const EngineOptions& options,
                        const SimOptions& sim = {}) {
  Office office(options, sim);
  load(&office);
  office.step(10);
  const int64_t waited = office.wait(office.submit(question));
  office.finish();
  return waited;
}

SimOptions plain_device(bool feeds_back = false) {
  SimOptions sim;
  sim.roles_matter = feeds_back;
  sim.feeds_back = feeds_back;
  return sim;
}

}  // namespace

TEST(turns_a_question_beside_a_thousand_requests) {
  const auto thousand = [](Office* office) {
    for (int i = 0; i < 1000; ++i) office->submit(from("a", 64));
  };
  for (const bool feeds_back : {false, true}) {
    const SimOptions sim = plain_device(feeds_back);
    const int64_t in_flight = feeds_back ? 1 : 0;
    // One token: with the next step, whoever asks.
    EXPECT(question_beside(from("b", 1), thousand, office(), sim) <= 2 + in_flight);
    EXPECT(question_beside(from("a", 1), thousand, office(), sim) <= 2 + in_flight);
    EXPECT(question_beside(from("", 1), thousand, office(), sim) <= 2 + in_flight);
    // As long as the others: another caller starts with the next step.
    EXPECT(question_beside(from("b", 64), thousand, office(), sim) <= 64 + 2 + in_flight);
  }
  // The same caller's long ones come in their order: that is not promised otherwise.
  EXPECT(question_beside(from("a", 64), thousand, office(), plain_device()) > 1000);
}

TEST(turns_a_question_beside_scoring) {
  const auto scoring = [](Office* office) {
    for (int i = 0; i < 256; ++i) office->submit(window(90));
  };
  EngineOptions options = office();
  options.kv_blocks = 4 * 24;  // four windows fill the memory
  EXPECT(question_beside(from("", 1), scoring, options) <= 2);
  EXPECT(question_beside(from("", 80), scoring, options) <= 82);
  const auto four = [&](Office* office) {
    for (int i = 0; i < 4; ++i) scoring(office);
  };
  EXPECT(question_beside(from("", 1), four, options) <= 2);
}

// One place, or memory for one request: turns are taken in time.
TEST(turns_one_place_for_two_callers) {
  for (const bool one_row : {true, false}) {
    EngineOptions options = office();
    options.max_sequences = one_row ? 1 : 64;
    options.kv_blocks = one_row ? 200 : 24;
    Office office(options);
    const uint64_t first = office.submit(from("a", 80, 16));
    for (int i = 0; i < 20; ++i) office.submit(from("a", 80, 16));
    office.step(20);
    const uint64_t one = office.submit(from("b", 1));
    const uint64_t later = office.submit(from("b", 80, 16));
    EXPECT(office.wait(one) <= 2);
    EXPECT(!office.ended(first));
    EXPECT(office.wait(later) <= 2 * kTurnSteps + 4);
    office.finish();
    EXPECT(office.runner().counters().preempted > 0);
  }
}

// Questions come without end and fill every place: batch work goes on all the same.
TEST(turns_batch_is_not_starved_by_a_stream_of_questions) {
  for (const int64_t length : {2, 40}) {
    EngineOptions options = office();
    options.max_sequences = 4;
    Office office(options);
    Request batch = from("z", 60);
    batch.batch = true;
    std::vector<uint64_t> work;
    for (int i = 0; i < 6; ++i) work.push_back(office.submit(batch));
    for (int i = 0; i < 3; ++i) work.push_back(office.submit(window(90)));
    int64_t asked = 0;
    while (!std::all_of(work.begin(), work.end(), [&](uint64_t id) { return office.ended(id); })) {
      for (int i = 0; i < 2; ++i, ++asked) office.submit(from(show(asked % 5), length));
      office.step();
      EXPECT(office.steps < 9 * 2 * (kBatchPatience + kTurnSteps));
      if (office.steps >= 9 * 2 * (kBatchPatience + kTurnSteps)) break;
    }
    office.finish();
  }
}

// Many callers, more than places: each gets its turn, what is lost stays small.
TEST(turns_more_callers_than_places) {
  EngineOptions options = office();
  options.max_sequences = 4;
  Office office(options);
  std::vector<uint64_t> ids;
  for (int caller = 0; caller < 30; ++caller) {
    for (int i = 0; i < 4; ++i) ids.push_back(office.submit(from(show(caller), 60)));
  }
  office.finish();
  const int64_t alone = 30 * 4 * 60 / 4;
  EXPECT(office.steps < alone + alone / 4);
}

// Every kind of request is preempted again and again, also where roles matter and without a cache,
// and comes to the same end (checked for each seventh in Office).
TEST(turns_what_was_preempted_comes_to_the_same_end) {
  int64_t preempted = 0;
  for (int variant = 0; variant < 8; ++variant) {
    EngineOptions options = office();
    options.max_sequences = 8;
    options.kv_blocks = 220;
    options.prefix_cache = (variant & 1) != 0;
    SimOptions sim = plain_device((variant & 2) != 0);
    sim.block_tokens = (variant & 4) != 0 ? 8 : 4;
    Office office(options, sim);
    for (int i = 0; i < 28; ++i) {
      Request request = from("a", 70, 7 + i % 13);
      SamplingParams& p = request.params;
      if (i % 4 == 1) p.temperature = 1.0, p.n = 3, p.seed = i;
      if (i % 4 == 2) p.num_beams = 4;
      if (i % 4 == 3) p.speculate_lookup = true;
      request.stream = i % 2 == 0;
      office.submit(request);
      if (i % 5 == 0) office.submit(window(80));
    }
    for (int i = 0; i < 60; ++i) {
      office.step(9);
      office.submit(from("b", 1 + i % 20, 5 + i % 30));
    }
    office.finish();
    preempted += office.runner().counters().preempted;
  }
  EXPECT(preempted > 40);
}

}  // namespace polylm::test
