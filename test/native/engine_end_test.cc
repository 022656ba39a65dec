// engine_end_test.cc: how requests and engines end when something goes wrong or somebody wants it:
// NaN stays with its request, a broken device ends all of them and not the process, draining lets
// everything finish, closing returns within one layer, options that cannot be are refused.
#include <thread>

#include "engine/engine.h"
#include "engine/events.h"
#include "engine/inbox.h"
#include "engine_rig.h"
#include "harness.h"

namespace polylm::test {
namespace {

using std::chrono::milliseconds;

TEST(engine_nan_ends_one_request_only) {
  SimOptions sim;
  sim.nan_every = 40;
  Rig rig(sim);
  std::vector<Request> requests;
  std::vector<uint64_t> ids;
  for (int32_t i = 0; i < 60; ++i) {
    requests.push_back(ids_request({i, 5, 6}, 30));
    if (i % 5 == 0) requests.back().params.num_beams = 3;
    if (i % 7 == 0) {
      requests.back().kind = RequestKind::kScore;
      requests.back().score_from = 1;
    }
    ids.push_back(rig.engine->submit(requests.back()));
  }
  int64_t failed = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const Event& last = rig.wait(ids[i]).last;
    failed += last.error.has_value() ? 1 : 0;
    EXPECT_EQ(difference(rig.alone(requests[i]), last), std::string());
  }
  EXPECT(failed > 5 && failed < 55);
  EXPECT_EQ(rig.engine->stats().failed, failed);
  EXPECT(rig.engine->stats().state == EngineState::kReady);
  EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});
}

void expect_engine_fails(const SimOptions& sim, Code code) {
  Rig rig(sim);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 20; ++i) {  // more than run at once
    try {
      ids.push_back(rig.engine->submit(ids_request(counting(5), 60)));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
    }
  }
  for (const uint64_t id : ids) EXPECT_EQ(rig.failure_of(id), code);
  const EngineStats stats = rig.engine->stats();
  EXPECT(stats.state == EngineState::kFailed);
  EXPECT_EQ(stats.failure, std::string(code_name(code)));
  EXPECT(!stats.failure_message.empty());
  EXPECT_EQ(stats.running, int64_t{0});
  EXPECT_EQ(stats.kv_tokens_used, int64_t{0});
  EXPECT_THROWS_CODE(code, rig.engine->submit(ids_request(counting(5))));
  rig.engine->close();
  EXPECT_THROWS_CODE(Code::kDisposed, rig.engine->submit(ids_request(counting(5))));
}

TEST(engine_device_failures_end_everything_but_the_process) {
  for (const int64_t step : {0, 1, 7}) {
    SimOptions sim;
    sim.fault_step = step;
    expect_engine_fails(sim, Code::kDevice);
    sim.fault = Code::kInternal;
    expect_engine_fails(sim, Code::kInternal);
    sim.fault_is_bad_alloc = true;
    expect_engine_fails(sim, Code::kInsufficientMemory);
  }
}

TEST(engine_refused_requests_are_told_and_forgotten) {
  Rig rig;
  Request overlong = ids_request(counting(96), 10);
  EXPECT_EQ(rig.failure_of(rig.engine->submit(overlong)), Code::kContextOverflow);
  EXPECT_EQ(rig.failure_of(rig.engine->submit(Request{})), Code::kInvalidPrompt);
  const EngineStats stats = rig.engine->stats();
  EXPECT_EQ(stats.requests, int64_t{2});
  EXPECT_EQ(stats.rejected, int64_t{2});
  EXPECT_EQ(stats.waiting, int64_t{0});
}

TEST(engine_drain_finishes_what_it_has) {
  SimOptions sim;
  sim.layer_us = 200;
  Rig rig(sim);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 30; ++i) ids.push_back(rig.engine->submit(ids_request(counting(9), 20)));
  rig.engine->drain();
  EXPECT(rig.engine->stats().state == EngineState::kDraining);
  EXPECT_THROWS_CODE(Code::kDraining, rig.engine->submit(ids_request(counting(5))));
  for (const uint64_t id : ids) EXPECT(rig.wait(id).last.result != nullptr);
  EXPECT_EQ(rig.engine->stats().completion_tokens, int64_t{30 * 20});
  rig.engine->close();
  EXPECT(rig.engine->stats().state == EngineState::kDisposed);
}

TEST(engine_close_takes_one_layer) {
  SimOptions sim;
  sim.layers = 40;
  sim.layer_us = 20000;  // a step takes 800 ms
  Rig rig(sim);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 30; ++i) ids.push_back(rig.engine->submit(ids_request(counting(9), 20)));
  std::this_thread::sleep_for(milliseconds(100));
  const auto begin = Clock::now();
  std::thread other([&] { rig.engine->close(); });  // from two threads at once
  rig.engine->close();
  const auto took = Clock::now() - begin;
  other.join();
  rig.engine->close();
  EXPECT(took < milliseconds(400));  // one layer and much patience
  for (const uint64_t id : ids) EXPECT_EQ(rig.failure_of(id), Code::kDisposed);
  EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});
  EXPECT_THROWS_CODE(Code::kDisposed, rig.engine->submit(ids_request(counting(5))));
}

TEST(engine_counters_only_grow) {
  Rig rig;
  EngineStats last = rig.engine->stats();
  for (int i = 0; i < 40; ++i) {
    Request request = ids_request(counting(9), 5);
    request.params.num_beams = 1 + i % 3;
    const uint64_t id = rig.engine->submit(request);
    if (i % 4 == 0) rig.engine->cancel(id);
    rig.wait(id);
    const EngineStats now = rig.engine->stats();
    EXPECT(now.requests > last.requests && now.aborted >= last.aborted);
    EXPECT(now.prompt_tokens >= last.prompt_tokens && now.steps >= last.steps);
    EXPECT(now.completion_tokens >= last.completion_tokens && now.busy_ms >= last.busy_ms);
    EXPECT_EQ(now.kv_tokens_total, int64_t{200 * 4});
    last = now;
  }
  EXPECT_EQ(last.requests, int64_t{40});
  EXPECT(last.prompt_tokens >= 30 * 9);
}

TEST(engine_options_are_checked) {
  const auto make = [](const EngineOptions& options) {
    return Engine(std::make_unique<SimModel>(SimOptions{}), nullptr, options, nullptr);
  };
  EngineOptions options = small_engine();
  options.context_size = 97;
  EXPECT_THROWS_CODE(Code::kInvalidOption, make(options));
  options = small_engine();
  options.max_sequences = 0;
  EXPECT_THROWS_CODE(Code::kInvalidOption, make(options));
  options = small_engine();
  options.kv_blocks = 0;
  EXPECT_THROWS_CODE(Code::kInvalidOption, make(options));
  options = small_engine();
  options.max_queue = 0;
  EXPECT_THROWS_CODE(Code::kInvalidOption, make(options));
  options = small_engine();
  options.budget_mixed = 0;
  EXPECT_THROWS_CODE(Code::kInvalidOption, make(options));
  EXPECT_EQ(make(small_engine()).device().kind, std::string("sim"));
}

// The oldest and the shortest in turns.
TEST(engine_inbox_short_prompts_do_not_wait_for_long_ones) {
  Inbox inbox(10);
  for (const int64_t length : {90, 80, 70, 1}) inbox.submit(ids_request(counting(length)));
  std::vector<uint64_t> taken;
  for (int i = 0; i < 4; ++i) {
    Submission submission;
    EXPECT(inbox.take(&submission));
    taken.push_back(submission.id);
    if (i % 2 == 0) inbox.deliver(submission.id, Work{});
    if (i % 2 == 1) inbox.reject(submission.id);
  }
  EXPECT(taken == (std::vector<uint64_t>{1, 4, 2, 3}));
}

TEST(engine_inbox_cancels_overtake) {
  Inbox inbox(3);
  const uint64_t first = inbox.submit(ids_request({1}));
  const uint64_t second = inbox.submit(ids_request({2}));
  inbox.submit(ids_request({3}));
  EXPECT_THROWS_CODE(Code::kQueueFull, inbox.submit(ids_request({4})));
  inbox.cancel(second);  // still before the intake
  Submission submission;
  EXPECT(inbox.take(&submission) && submission.id == first);
  inbox.cancel(first);  // in the intake
  inbox.deliver(first, Work{});
  EXPECT(inbox.take(&submission) && submission.id == second);
  inbox.deliver(second, Work{});
  Commands commands;
  inbox.wait(true, std::nullopt, &commands);
  EXPECT_EQ(commands.arrivals.size(), size_t{2});
  for (const Arrival& arrival : commands.arrivals) EXPECT(arrival.cancelled);
  EXPECT(commands.cancels.empty());
  inbox.cancel(first);  // with the engine
  inbox.cancel(77);     // never was
  inbox.wait(true, Clock::now() + std::chrono::seconds(10), &commands);
  EXPECT(commands.arrivals.empty());
  EXPECT(commands.cancels == std::vector<uint64_t>{first});
  inbox.wait(true, Clock::now() + milliseconds(5), &commands);  // nothing comes
  EXPECT(commands.arrivals.empty() && commands.cancels.empty() && !commands.finish);
  inbox.stop();
  EXPECT(!inbox.take(&submission));
  EXPECT(inbox.take_orphans() == std::vector<uint64_t>{3});
  inbox.finish();
  inbox.wait(false, std::nullopt, &commands);
  EXPECT(commands.finish);
}

TEST(event_queue_wakes_once_until_taken) {
  int wakes = 0;
  EventQueue queue([&] { ++wakes; });
  std::vector<Event> events(2);
  events[0].request = 1;
  events[1].request = 2;
  queue.publish(&events);
  EXPECT(events.empty());
  events.resize(1);
  events[0].request = 3;
  queue.publish(&events);
  queue.publish(&events);  // nothing
  EXPECT_EQ(wakes, 1);
  std::vector<Event> out;
  queue.take(&out);
  EXPECT_EQ(out.size(), size_t{3});
  EXPECT_EQ(out[2].request, uint64_t{3});
  events.resize(1);
  queue.publish(&events);
  EXPECT_EQ(wakes, 2);
}

}  // namespace
}  // namespace polylm::test
