// thread_pool.cc: one word per worker carries its whole state: the caller offers a job, the worker
// takes it or the caller takes the offer back. Waiting is spin, then yield, then sleep, so that a
// region costs about a microsecond when workers are awake and nothing burns when they are not
// needed. See thread_pool.h.
#include "platform/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "platform/cpu_features.h"
#include "platform/error.h"

namespace polylm {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr int kPausesPerLook = 32;  // between two looks at the clock
constexpr int kLooksBeforeYield = 4;  // about 5 us, after which the core is offered to others

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

enum State : uint32_t { kIdle, kOffered, kBusy };

// The state of one worker. The caller waits for idle, the worker for an offer: never both at once.
class Mailbox {
 public:
  void set(State state) {
    state_.store(state, std::memory_order_seq_cst);
    wake_sleeper();
  }
  // From one state to another, if it still is in the first.
  bool change(State from, State to) {
    uint32_t expected = from;
    return state_.compare_exchange_strong(expected, to, std::memory_order_seq_cst);
  }

  void wait_for(State wanted) {
    const auto is_wanted = [&] { return state_.load(std::memory_order_acquire) == wanted; };
    const auto start = std::chrono::steady_clock::now();
    for (int look = 0;; ++look) {
      for (int i = 0; i < kPausesPerLook; ++i) {
        if (is_wanted()) return;
        pause_core();
      }
      if (look < kLooksBeforeYield) continue;
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() - start > kSpinTime) break;
    }
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    condition_.wait(lock, [&] { return state_.load(std::memory_order_seq_cst) == wanted; });
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  void wake_sleeper() {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    const std::lock_guard lock(mutex_);
    condition_.notify_all();
  }

  std::atomic<uint32_t> state_{kIdle};
  std::atomic<int> sleepers_{0};  // one leaves late while the other arrives: up to two
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace

struct ThreadPool::Impl {
  struct alignas(128) Worker {
    Mailbox mailbox;
  };

  std::mutex lease;  // one region at a time
  std::vector<std::unique_ptr<Worker>> workers;  // workers[0] is the caller and has no thread
  RawJob job = nullptr;  // written before it is offered, read after it is taken
  void* context = nullptr;

  void serve(Worker* self, int64_t index) {
    for (;;) {
      self->mailbox.wait_for(kOffered);
      if (!self->mailbox.change(kOffered, kBusy)) continue;  // taken back meanwhile
      job(context, index);
      self->mailbox.set(kIdle);
    }
  }
};

ThreadPool& ThreadPool::shared() {
  static ThreadPool* const pool = new ThreadPool;
  return *pool;
}

ThreadPool::ThreadPool() : impl_(new Impl) {}

int64_t ThreadPool::default_workers(int64_t requested) {
  static std::mutex mutex;
  static int64_t chosen = 0;
  const std::lock_guard lock(mutex);
  if (chosen == 0) chosen = requested > 0 ? requested : usable_cores();
  return requested > 0 ? requested : chosen;
}

void ThreadPool::grow(int64_t workers) {
  POLYLM_CHECK(workers >= 1 && workers <= kMaxWorkers);
  const std::lock_guard lock(impl_->lease);
  impl_->workers.reserve(static_cast<size_t>(workers));
  while (static_cast<int64_t>(impl_->workers.size()) < workers) {
    const auto index = static_cast<int64_t>(impl_->workers.size());
    impl_->workers.push_back(std::make_unique<Impl::Worker>());
    if (index == 0) continue;
    Impl::Worker* self = impl_->workers.back().get();
    try {
      std::thread([impl = impl_, self, index] { impl->serve(self, index); }).detach();
    } catch (const std::exception& e) {
      impl_->workers.pop_back();
      fail(Code::kInsufficientMemory, "compute thread " + std::to_string(index) + " of " +
                              std::to_string(workers) + " could not be started: " + e.what(),
           "ask for fewer threads, or raise the limits of memory, processes or threads");
    }
  }
}

void ThreadPool::run_raw(int64_t workers, RawJob job, void* context, bool helpers_optional) {
  const std::lock_guard lock(impl_->lease);
  POLYLM_CHECK_LE(workers, static_cast<int64_t>(impl_->workers.size()));
  const auto mailbox = [this](int64_t i) -> Mailbox& {
    return impl_->workers[static_cast<size_t>(i)]->mailbox;
  };
  impl_->job = job;
  impl_->context = context;
  for (int64_t i = 1; i < workers; ++i) mailbox(i).set(kOffered);
  job(context, 0);
  for (int64_t i = 1; i < workers; ++i) {
    if (helpers_optional && mailbox(i).change(kOffered, kIdle)) continue;
    mailbox(i).wait_for(kIdle);
  }
}

}  // namespace polylm
