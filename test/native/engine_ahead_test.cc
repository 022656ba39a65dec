// engine_ahead_test.cc: steps that are submitted before the results of the one before are known, on
// the simulated device, step by step: the same events as without, nothing computed in vain where an
// end is known, blocks held where it is not, and every way to end while a step is in flight.
// Not here: all of this at random (engine_sim_test.cc), real numbers (engine_model_test.cc).
#include <algorithm>
#include <atomic>

#include "engine/runner.h"
#include "engine_rig.h"
#include "harness.h"

namespace polylm::test {
namespace {

SimOptions device(bool feeds_back) {
  SimOptions options;
  options.feeds_back = feeds_back;
  options.block_tokens = 1;  // every row has a block of its own
  return options;
}

// A runner that a test drives step by step.
class Steps {
 public:
  explicit Steps(const SimOptions& sim) : sim_(sim), model_(sim) {
    model_.reserve(step_limits(options_, sim.vocab), options_.kv_blocks);
    runner_.emplace(&model_, nullptr, options_);
  }

  uint64_t submit(const Request& request) {
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.work = prepare_request(request, sim_intake_limits(sim_, options_), nullptr);
    runner_->arrive(std::move(arrival), now_);
    return last_id_;
  }
  bool step() {
    runner_->tick(now_);
    const bool made = runner_->step(stop);
    take();
    return made;
  }
  void cancel(uint64_t id) {
    runner_->cancel(id, now_);
    take();
  }
  void fail(Code code) {
    runner_->fail_all({code, "by the test"});
    take();
  }
  void run() {
    while (runner_->busy()) step();
  }

  // The error of a request that has ended, "finished", or "runs".
  std::string end_of(uint64_t id) const {
    std::string end = "runs";
    for (const Event& e : events) {
      if (e.request != id) continue;
      if (e.kind == EventKind::kFinished) end = end == "runs" ? "finished" : "twice";
      if (e.kind == EventKind::kFailed) end = end == "runs" ? show(e.error->code()) : "twice";
    }
    return end;
  }
  std::vector<int32_t> tokens_of(uint64_t id) const {
    for (const Event& e : events) {
      if (e.request == id && e.result != nullptr) return e.result->outputs.at(0).tokens;
    }
    return {};
  }
  int64_t used() const { return runner_->pool().used(); }
  int64_t running() { return runner_->counters().running; }
  int64_t in_flight() { return model_.sim().in_flight(); }
  SimOps& sim() { return model_.sim(); }
  Runner& runner() { return *runner_; }

  std::atomic<bool> stop{false};
  std::vector<Event> events;

 private:
  void take() {
    for (Event& e : runner_->events()) events.push_back(std::move(e));
    runner_->events().clear();
    EXPECT_EQ(sim().violations(), int64_t{0});
  }

  SimOptions sim_;
  EngineOptions options_ = small_engine();
  SimModel model_;
  std::optional<Runner> runner_;
  Clock::time_point now_{std::chrono::milliseconds(1)};
  uint64_t last_id_ = 0;
};

std::string told(const Event& e) {
  std::string text = show(e.request) + " " + show(static_cast<int>(e.kind)) + " " + show(e.done);
  for (const TokenInfo& t : e.tokens) text += " " + show(t.id) + "/" + show(t.logprob);
  return text;
}

// Greedy requests, alike or not, of different lengths.
std::vector<Request> greedy() {
  std::vector<Request> all;
  for (int64_t i = 0; i < 4; ++i) {
    all.push_back(ids_request(counting(3 + 5 * i), 10 + 6 * i));
    all.back().stream = true;
    all.back().params.logprobs = i - 1;
    if (i > 1) all.back().params.stop_token_ids = {2, 7, 11};
  }
  return all;
}

// The tokens that a request gets when nothing ends it early.
std::vector<int32_t> tokens_alone(const Request& request) {
  Steps steps(device(false));
  const uint64_t id = steps.submit(request);
  steps.run();
  return steps.tokens_of(id);
}

// Runs into its end at token `last` (from 0), which the engine cannot know before.
Request stopped_at(size_t last, int32_t first_id) {
  for (int32_t id = first_id;; ++id) {
    Request request = ids_request({id, 4, 5}, 20);
    const std::vector<int32_t> tokens = tokens_alone(request);
    const auto first = std::find(tokens.begin(), tokens.end(), tokens.at(last));
    if (first - tokens.begin() != static_cast<int64_t>(last)) continue;  // it comes earlier, too
    request.params.stop_token_ids = {tokens[last]};
    return request;
  }
}

}  // namespace

TEST(engine_ahead_tells_the_same_events_in_the_same_order) {
  std::vector<std::string> all[2];
  int64_t fed = 0;
  for (const bool feeds_back : {false, true}) {
    Steps steps(device(feeds_back));
    for (const Request& request : greedy()) steps.submit(request);
    steps.run();
    for (const Event& e : steps.events) all[feeds_back ? 1 : 0].push_back(told(e));
    fed = steps.sim().fed_steps();
    EXPECT_EQ(steps.used(), int64_t{0});
  }
  EXPECT(all[0].size() > 40);
  EXPECT(all[0] == all[1]);
  EXPECT(fed > 15);
}

TEST(engine_ahead_computes_nothing_behind_a_known_end) {
  for (int64_t tokens = 1; tokens < 6; ++tokens) {
    Steps steps(device(true));
    steps.submit(ids_request(counting(5), tokens));
    steps.run();
    EXPECT_EQ(steps.sim().steps(), tokens);  // the first one comes with the prompt
    EXPECT_EQ(steps.sim().fed_steps(), std::max<int64_t>(0, tokens - 2));
  }
}

// The row behind an end that nobody knew of is dropped; its block and the others are held until it
// is there, and so is the request's room.
TEST(engine_ahead_holds_the_blocks_of_a_dropped_row) {
  Steps steps(device(true));
  const Request request = stopped_at(5, 9);
  const std::vector<int32_t> tokens = tokens_alone(request);
  const uint64_t id = steps.submit(request);
  while (steps.end_of(id) == "runs") steps.step();
  EXPECT_EQ(tokens.size(), size_t{6});
  EXPECT(steps.tokens_of(id) == tokens);
  EXPECT_EQ(steps.in_flight(), int64_t{1});
  EXPECT_EQ(steps.running(), int64_t{0});
  EXPECT_EQ(steps.used(), int64_t{3 + 6});  // prompt, five tokens, and the dropped one
  EXPECT(steps.runner().reserved_blocks() >= steps.used());
  EXPECT(steps.runner().busy());
  steps.step();
  EXPECT_EQ(steps.in_flight() + steps.used() + steps.runner().reserved_blocks(), int64_t{0});
  EXPECT(!steps.runner().busy());
  EXPECT_EQ(steps.end_of(id), std::string("finished"));
}

// Who ends alone leaves the others as they would have been.
TEST(engine_ahead_goes_on_when_one_ends) {
  Steps steps(device(true));
  const Request ends = stopped_at(4, 12);
  const Request goes_on = ids_request(counting(7), 15);
  steps.submit(ends);
  const uint64_t other = steps.submit(goes_on);
  steps.run();
  EXPECT(steps.tokens_of(other) == tokens_alone(goes_on));
  EXPECT(steps.sim().fed_steps() > 9);
}

TEST(engine_ahead_cancelled_in_flight) {
  for (const bool keeps : {false, true}) {
    Steps steps(device(true));
    Request request = ids_request(counting(6), 20);
    request.return_on_abort = keeps;
    const uint64_t first = steps.submit(request);
    const uint64_t second = steps.submit(ids_request(counting(9), 12));
    for (int i = 0; i < 4; ++i) steps.step();
    EXPECT_EQ(steps.in_flight(), int64_t{1});
    const int64_t used = steps.used();
    steps.cancel(first);
    EXPECT_EQ(steps.end_of(first), std::string(keeps ? "finished" : show(Code::kAborted)));
    EXPECT_EQ(steps.used(), used);
    EXPECT_EQ(steps.running(), int64_t{1});
    steps.run();
    EXPECT_EQ(steps.end_of(first), std::string(keeps ? "finished" : show(Code::kAborted)));
    if (keeps) EXPECT_EQ(steps.tokens_of(first).size(), size_t{4});
    EXPECT(steps.tokens_of(second) == tokens_alone(ids_request(counting(9), 12)));
    EXPECT_EQ(steps.used(), int64_t{0});
  }
}

// What ended by itself while it has a row in flight cannot be cancelled any more.
TEST(engine_ahead_cancelled_after_its_end) {
  Steps steps(device(true));
  const uint64_t first = steps.submit(stopped_at(4, 12));
  const uint64_t second = steps.submit(ids_request(counting(7), 15));
  while (steps.end_of(first) == "runs") steps.step();
  EXPECT_EQ(steps.in_flight(), int64_t{1});
  steps.cancel(first);
  EXPECT_EQ(steps.end_of(first), std::string("finished"));
  steps.run();
  EXPECT_EQ(steps.end_of(first), std::string("finished"));
  EXPECT(steps.tokens_of(second) == tokens_alone(ids_request(counting(7), 15)));
}

// Someone who comes is in the step after the one in flight.
TEST(engine_ahead_makes_room_for_who_comes) {
  Steps steps(device(true));
  steps.submit(ids_request(counting(6), 30));
  for (int i = 0; i < 5; ++i) steps.step();
  const int64_t fed = steps.sim().fed_steps();
  const uint64_t late = steps.submit(ids_request(counting(4), 2));
  steps.step();  // collects the step in flight
  EXPECT_EQ(steps.in_flight(), int64_t{0});
  steps.step();  // its prompt
  steps.step();
  EXPECT_EQ(steps.end_of(late), std::string("finished"));
  EXPECT_EQ(steps.sim().fed_steps(), fed);
  steps.run();
  EXPECT(steps.sim().fed_steps() > fed + 15);
}

TEST(engine_ahead_stopped_between_submit_and_collect) {
  Steps steps(device(true));
  const uint64_t id = steps.submit(ids_request(counting(6), 20));
  for (int i = 0; i < 4; ++i) steps.step();
  EXPECT_EQ(steps.in_flight(), int64_t{1});
  steps.stop = true;
  EXPECT(!steps.step());
  steps.fail(Code::kDisposed);
  EXPECT_EQ(steps.end_of(id), show(Code::kDisposed));
  EXPECT_EQ(steps.in_flight() + steps.used() + steps.runner().reserved_blocks(), int64_t{0});
  steps.stop = false;  // the device can go on
  const uint64_t again = steps.submit(ids_request(counting(6), 20));
  steps.run();
  EXPECT(steps.tokens_of(again) == tokens_alone(ids_request(counting(6), 20)));
}

// The device fails in step n, when n + 1 is in flight, and in a step that was ahead.
TEST(engine_ahead_faults_end_everything_once) {
  for (int64_t step = 1; step < 8; ++step) {
    SimOptions options = device(true);
    options.fault_step = step;
    Steps steps(options);
    const uint64_t first = steps.submit(ids_request(counting(6), 20));
    const uint64_t second = steps.submit(ids_request(counting(9), 12));
    bool failed = false;
    while (!failed) {
      try {
        steps.step();
      } catch (const Error& e) {
        failed = true;
        steps.fail(e.code());
      }
    }
    EXPECT_EQ(steps.end_of(first), show(Code::kDevice));
    EXPECT_EQ(steps.end_of(second), show(Code::kDevice));
    EXPECT_EQ(steps.in_flight() + steps.used() + steps.runner().reserved_blocks(), int64_t{0});
    EXPECT(!steps.runner().busy());
  }
}

// Only who takes the best token, whatever it is, needs nobody in between.
TEST(engine_ahead_only_without_policy_of_the_host) {
  const auto feeds = [](auto change) {
    SamplingParams params;
    change(&params);
    return make_decoder(params, {3, 4, 5}, 10, 61, sim_tokenizer(61))->feeds_back();
  };
  EXPECT(feeds([](SamplingParams*) {}));
  EXPECT(feeds([](SamplingParams* p) { p->stop_token_ids = {2, 5}; }));
  EXPECT(feeds([](SamplingParams* p) { p->logprobs = 5; }));
  EXPECT(feeds([](SamplingParams* p) { p->top_k = 5; }));  // greedy: nobody asks
  EXPECT(!feeds([](SamplingParams* p) { p->temperature = 0.5; }));
  EXPECT(!feeds([](SamplingParams* p) { p->n = 2; }));
  EXPECT(!feeds([](SamplingParams* p) { p->num_beams = 2; }));
  EXPECT(!feeds([](SamplingParams* p) { p->stop = {"ab"}; }));
  EXPECT(!feeds([](SamplingParams* p) { p->speculate_lookup = true; }));
  EXPECT(!feeds([](SamplingParams* p) { p->repetition_penalty = 1.2; }));
  EXPECT(!feeds([](SamplingParams* p) { p->presence_penalty = 0.5; }));
  EXPECT(!feeds([](SamplingParams* p) { p->frequency_penalty = 0.5; }));
  EXPECT(!feeds([](SamplingParams* p) { p->no_repeat_ngram_size = 3; }));
  EXPECT(!feeds([](SamplingParams* p) { p->bias = {{{7}, 1.0F}}; }));
  EXPECT(!feeds([](SamplingParams* p) { p->allow_tokens = {7, 8}; }));
  EXPECT(!feeds([](SamplingParams* p) { p->allow_choices = {{7, 8}}; }));
  EXPECT(!feeds([](SamplingParams* p) { p->forced_first_token = 3; }));
  EXPECT(!feeds([](SamplingParams* p) { p->forced_last_token = 3; }));
  EXPECT(!feeds([](SamplingParams* p) { p->min_tokens = 3, p->stop_token_ids = {2}; }));
}

// One row with anything else keeps the whole step from going ahead, a device that cannot too.
TEST(engine_ahead_only_for_whole_steps) {
  for (const bool feeds_back : {false, true}) {
    Steps steps(device(feeds_back));
    steps.submit(ids_request(counting(6), 20));
    Request sampled = ids_request(counting(6), 20);
    if (feeds_back) sampled.params.temperature = 1.0;
    steps.submit(sampled);
    steps.run();
    EXPECT_EQ(steps.sim().fed_steps(), int64_t{0});
  }
}

// What no engine may ask of a device.
TEST(engine_ahead_is_checked_by_ops) {
  SimModel model(device(true));
  model.reserve({.rows = 4, .sequences = 4, .select_rows = 4, .vocab = 61, .context = 96}, 8);
  Ops& ops = model.ops();
  const std::atomic<bool> stop{false};
  const int32_t token = 3;
  const int32_t table[] = {0, 1, 2};
  const SequenceRows first{0, 1, 0, table, 3};
  const SequenceRows second{0, 1, 1, table, 3};
  const SelectRow select{};
  const int32_t source = 0;
  const int32_t nowhere = 1;
  const StepInputs known{1, 1, &token, &first, 1, nullptr};
  const StepInputs fed{1, 1, nullptr, &second, 1, &source};
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin(fed));  // nothing is in flight
  EXPECT_THROWS_CODE(Code::kInternal, ops.collect());
  EXPECT(model.forward(known, {&select, 1}, stop));
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin(known));
  const BlockCopy copy{0, 1};
  EXPECT_THROWS_CODE(Code::kInternal, ops.copy_blocks(model.kv(), &copy, 1));
  EXPECT_THROWS_CODE(Code::kInternal, ops.full_row(0));
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin({1, 1, &token, &second, 1, &source}));
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin({1, 1, nullptr, &second, 1, &nowhere}));
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin({1, 0, nullptr, &second, 1, &source}));
  EXPECT(model.forward(fed, {&select, 1}, stop));
  EXPECT_THROWS_CODE(Code::kInternal, ops.begin(fed));  // two are enough
  EXPECT_EQ(ops.in_flight(), int64_t{2});
  ops.collect();
  ops.collect();
  EXPECT_EQ(ops.in_flight(), int64_t{0});

  SimModel plain(device(false));
  plain.reserve({.rows = 4, .sequences = 4, .select_rows = 4, .vocab = 61, .context = 96}, 8);
  EXPECT(plain.forward(known, {&select, 1}, stop));
  EXPECT_THROWS_CODE(Code::kInternal, plain.ops().begin(fed));
}

}  // namespace polylm::test
