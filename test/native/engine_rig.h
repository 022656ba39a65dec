// engine_rig.h: an engine on the simulated device whose consumer is the test's own thread, and
// small requests for it. For tests of the engine.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine_journal.h"
#include "harness.h"
#include "sim_reference.h"

namespace polylm::test {

inline EngineOptions small_engine() {
  EngineOptions options;
  options.context_size = 96;
  options.max_sequences = 8;
  options.kv_blocks = 200;
  options.budget_mixed = 32;
  options.budget_prefill = 64;
  return options;
}

// An engine with its consumer on the test's own thread.
class Rig {
 public:
  explicit Rig(const SimOptions& sim = {}, const EngineOptions& options = small_engine(),
               std::shared_ptr<const Tokenizer> tokenizer = nullptr)
      : sim_(sim), options_(options), tokenizer_(std::move(tokenizer)) {
    auto model = std::make_unique<SimModel>(sim);
    device = &model->sim();
    engine = std::make_unique<Engine>(std::move(model), tokenizer_, options, [this] {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++wakes;
      changed_.notify_one();
    });
  }

  // Takes events until the request has ended.
  const Journal::Entry& wait(uint64_t id) {
    const auto until = Clock::now() + std::chrono::seconds(30);
    while (!journal.ended(id)) {
      take();
      if (journal.ended(id)) break;
      std::unique_lock<std::mutex> lock(mutex_);
      const bool woken = changed_.wait_until(lock, until, [&] { return wakes > seen_; });
      if (!woken) fail(Code::kInternal, "a request did not end in 30 s");
      seen_ = wakes;
    }
    return journal.of(id);
  }
  // Takes events until the request has sent its first delta or ended.
  void wait_for_delta(uint64_t id) {
    for (int i = 0; i < 30000; ++i) {
      take();
      if (journal.knows(id) && (journal.of(id).deltas > 0 || journal.ended(id))) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    fail(Code::kInternal, "no delta came in 30 s");
  }
  void take() {
    std::vector<Event> events;
    engine->take_events(&events);
    journal.add_all(&events);
  }
  Outcome alone(const Request& request) const {
    return sim_reference(
        sim_, prepare_request(request, sim_intake_limits(sim_, options_), tokenizer_.get()),
        tokenizer_);
  }
  // Runs a request and compares it with its run alone.
  const Journal::Entry& expect_right(const Request& request) {
    const Journal::Entry& entry = wait(engine->submit(request));
    const std::string wrong = difference(alone(request), entry.last);
    if (!wrong.empty()) report_failure(__FILE__, __LINE__, wrong);
    const std::string deltas = Journal::delta_difference(entry, request);
    if (!deltas.empty()) report_failure(__FILE__, __LINE__, deltas);
    return entry;
  }
  Code failure_of(uint64_t id) {
    const Journal::Entry& entry = wait(id);
    return entry.last.error.has_value() ? entry.last.error->code() : Code::kFormatUnknown;
  }

  SimOps* device = nullptr;
  Journal journal{true};
  std::atomic<int64_t> wakes{0};
  std::unique_ptr<Engine> engine;

 private:
  SimOptions sim_;
  EngineOptions options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t seen_ = 0;
};

inline Request ids_request(std::vector<int32_t> ids, int64_t max_tokens = 8) {
  Request request;
  PromptPart part;
  part.ids = std::move(ids);
  request.prompt.push_back(part);
  request.params.max_tokens = max_tokens;
  request.max_tokens_given = true;
  return request;
}

inline Request text_request(const std::string& text) {
  Request request;
  PromptPart part;
  part.text = text;
  request.prompt.push_back(part);
  return request;
}

inline std::vector<int32_t> counting(int64_t n) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(3 + i % 50));
  return ids;
}

}  // namespace polylm::test
