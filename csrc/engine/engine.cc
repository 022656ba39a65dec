// engine.cc: the two threads of an engine and its loop. The intake thread makes requests runnable,
// the engine thread owns the runner. Not here: what a step is (step.cc), locks (inbox.cc).
// Trap: nothing may leave a thread's function; both have one catch, which turns whatever comes into
// events.
#include "engine/engine.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/events.h"
#include "engine/inbox.h"
#include "engine/intake.h"
#include "engine/runner.h"
#include "platform/error.h"

namespace polylm {
namespace {

void check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  fail(Code::kInvalidOption, std::string(name) + ": " + std::to_string(value) +
                                 " is not between " + std::to_string(least) + " and " +
                                 std::to_string(most));
}

EngineOptions checked(const EngineOptions& options, const ModelConfig& config) {
  constexpr int64_t kMost = int64_t{1} << 24;
  check_range("contextSize", options.context_size, 1, config.context_size);
  check_range("maxSequences", options.max_sequences, 1, 4096);
  check_range("maxQueue", options.max_queue, 1, kMost);
  check_range("kvMemory (in blocks)", options.kv_blocks, 1, (int64_t{1} << 31) - 1);
  check_range("budgetMixed", options.budget_mixed, 1, kMost);
  check_range("budgetPrefill", options.budget_prefill, 1, kMost);
  return options;
}

// The model with everything reserved that a step may use.
std::unique_ptr<Model> reserved(std::unique_ptr<Model> model, const EngineOptions& options) {
  model->reserve(step_limits(options, model->config().vocab_size), options.kv_blocks);
  return model;
}

IntakeLimits intake_limits(Model& model, const EngineOptions& options) {
  IntakeLimits limits;
  limits.context_size = options.context_size;
  limits.vocab_size = model.config().vocab_size;
  limits.max_sequences = options.max_sequences;
  limits.block_tokens = model.ops().info().block_tokens;
  limits.kv_blocks = options.kv_blocks;
  limits.block_bytes = model.ops().memory().kv_bytes / options.kv_blocks;
  return limits;
}

// Runs f until it succeeds. f may be repeated; all that can stop it is a lack of memory, and giving
// up would leave callers waiting for ever.
template <class F>
void insist(F&& f) {
  for (;;) {
    try {
      f();
      return;
    } catch (...) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

}  // namespace

struct Engine::Impl {
  Impl(std::unique_ptr<Model> given_model, std::shared_ptr<const Tokenizer> given_tokenizer,
       const EngineOptions& given, std::function<void()> wake);

  void run_intake();
  void run_engine();
  void turn();
  void fail_everything(const Error& error);
  void close();

  const EngineOptions options;
  const std::unique_ptr<Model> model;
  const std::shared_ptr<const Tokenizer> tokenizer;
  const IntakeLimits limits;
  const DeviceMemory memory;
  EventQueue events;
  Inbox inbox;
  std::atomic<bool> stop{false};
  Runner runner;      // engine thread only
  Commands commands;  // engine thread only
  std::vector<uint64_t> orphans;  // engine thread only: ended before they came so far
  bool broken = false;  // engine thread only: a step failed, nothing runs any more
  std::mutex close_mutex;
  std::thread intake_thread;
  std::thread engine_thread;
};

Engine::Impl::Impl(std::unique_ptr<Model> given_model,
                   std::shared_ptr<const Tokenizer> given_tokenizer, const EngineOptions& given,
                   std::function<void()> wake)
    : options(checked(given, given_model->config())),
      model(reserved(std::move(given_model), options)),
      tokenizer(std::move(given_tokenizer)),
      limits(intake_limits(*model, options)),
      memory(model->ops().memory()),
      events(std::move(wake)),
      inbox(options.max_queue),
      runner(model.get(), tokenizer, options) {
  inbox.report(runner.counters());
  try {
    intake_thread = std::thread([this] { run_intake(); });
    engine_thread = std::thread([this] { run_engine(); });
  } catch (...) {
    close();  // one may run already
    throw caught_error();
  }
}

// ------------------------------------------------------------------------------------ intake

void Engine::Impl::run_intake() {
  Submission submission;
  std::vector<Event> out;
  while (inbox.take(&submission)) {
    try {
      Work work = prepare_request(std::move(submission.request), limits, tokenizer.get());
      Event admitted;
      admitted.request = submission.id;
      admitted.kind = EventKind::kAdmitted;
      admitted.total = work.prompt_rows;
      out.push_back(std::move(admitted));
      events.publish(&out);  // before anything that the engine says of it
      inbox.deliver(submission.id, std::move(work));
    } catch (...) {
      const Error error = caught_error();
      inbox.reject(submission.id);
      insist([&] {
        out.assign(1, failed_event(submission.id, error));
        events.publish(&out);
      });
    }
  }
}

// ------------------------------------------------------------------------------------ engine

void Engine::Impl::run_engine() {
  for (;;) {
    const bool idle = broken || !runner.busy();
    inbox.wait(idle, runner.deadline(), &commands);
    if (commands.finish) break;
    try {
      turn();
    } catch (...) {
      const Error error = caught_error();
      broken = true;
      insist([&] { inbox.set_failed(error); });
      insist([&] { fail_everything(error); });
    }
  }
  insist([&] { orphans = inbox.take_orphans(); });
  insist([&] { fail_everything({Code::kDisposed, "the model was disposed"}); });
}

// Applies commands, then makes one step.
void Engine::Impl::turn() {
  const Clock::time_point now = Clock::now();
  if (broken) return fail_everything(inbox.failure());
  for (Arrival& arrival : commands.arrivals) {
    runner.arrive(std::move(arrival), now);
    arrival.id = 0;  // the runner has it
  }
  for (const uint64_t id : commands.cancels) runner.cancel(id, now);
  runner.tick(now);
  if (runner.busy()) runner.step(stop);
  inbox.report(runner.counters());
  events.publish(&runner.events());
}

// Ends what the runner has and what was on its way to it. May be repeated.
void Engine::Impl::fail_everything(const Error& error) {
  while (!commands.arrivals.empty()) {
    const uint64_t id = commands.arrivals.back().id;
    if (id != 0) runner.events().push_back(failed_event(id, error));
    commands.arrivals.pop_back();
  }
  while (!orphans.empty()) {
    runner.events().push_back(failed_event(orphans.back(), error));
    orphans.pop_back();
  }
  runner.fail_all(error);
  inbox.report(runner.counters());
  events.publish(&runner.events());
}

void Engine::Impl::close() {
  const std::lock_guard<std::mutex> lock(close_mutex);
  inbox.stop();
  stop.store(true);
  if (intake_thread.joinable()) intake_thread.join();
  inbox.finish();
  if (engine_thread.joinable()) engine_thread.join();
}

// ------------------------------------------------------------------------------------ public

Engine::Engine(std::unique_ptr<Model> model, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineOptions& options, std::function<void()> wake)
    : impl_(std::make_unique<Impl>(std::move(model), std::move(tokenizer), options,
                                   std::move(wake))) {}

Engine::~Engine() { impl_->close(); }

uint64_t Engine::submit(Request request) { return impl_->inbox.submit(std::move(request)); }

void Engine::cancel(uint64_t id) { impl_->inbox.cancel(id); }

void Engine::take_events(std::vector<Event>* out) { impl_->events.take(out); }

EngineStats Engine::stats() const { return impl_->inbox.stats(); }

void Engine::drain() { impl_->inbox.drain(); }

void Engine::close() { impl_->close(); }

const ModelConfig& Engine::config() const { return impl_->model->config(); }

const DeviceInfo& Engine::device() const { return impl_->model->ops().info(); }

DeviceMemory Engine::memory() const { return impl_->memory; }

const EngineOptions& Engine::options() const { return impl_->options; }

int64_t Engine::parameter_count() const { return impl_->model->parameter_count(); }

}  // namespace polylm
