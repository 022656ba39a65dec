// thread_pool.cc: a counter per worker starts it, one counter for all ends the region; waiting is
// spin, then yield, then sleep, so that a region costs about a microsecond when workers are awake
// and nothing burns when they are not needed. See thread_pool.h.
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

// A number that one side sets and the other waits on.
class Signal {
 public:
  uint32_t get() const { return value_.load(std::memory_order_acquire); }

  void set(uint32_t value) {
    value_.store(value, std::memory_order_seq_cst);
    wake_sleeper();
  }

  // Adds `delta`; the caller of the last decrement to zero wakes the waiter.
  void subtract_one() {
    if (value_.fetch_sub(1, std::memory_order_seq_cst) == 1) wake_sleeper();
  }

  template <class Done>
  void wait(Done done) {
    const auto start = std::chrono::steady_clock::now();
    for (int look = 0;; ++look) {
      for (int i = 0; i < kPausesPerLook; ++i) {
        if (done(get())) return;
        pause_core();
      }
      if (look < kLooksBeforeYield) continue;
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() - start > kSpinTime) break;
    }
    std::unique_lock lock(mutex_);
    sleeping_.store(true, std::memory_order_seq_cst);
    condition_.wait(lock, [&] { return done(value_.load(std::memory_order_seq_cst)); });
    sleeping_.store(false, std::memory_order_relaxed);
  }

 private:
  void wake_sleeper() {
    if (!sleeping_.load(std::memory_order_seq_cst)) return;
    const std::lock_guard lock(mutex_);
    condition_.notify_all();
  }

  std::atomic<uint32_t> value_{0};
  std::atomic<bool> sleeping_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace

struct ThreadPool::Impl {
  struct alignas(128) Worker {
    Signal start;  // number of regions this worker was called to
  };

  std::mutex lease;  // one region at a time
  std::vector<std::unique_ptr<Worker>> workers;  // workers[0] is the caller and has no thread
  alignas(128) Signal running;  // workers that have not finished the region
  RawJob job = nullptr;
  void* context = nullptr;

  void serve(Worker* self, int64_t index) {
    for (uint32_t region = 1;; ++region) {
      self->start.wait([region](uint32_t value) { return value == region; });
      job(context, index);
      running.subtract_one();
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
      fail(Code::kDevice, "compute thread " + std::to_string(index) + " of " +
                              std::to_string(workers) + " could not be started: " + e.what(),
           "ask for fewer threads");
    }
  }
}

void ThreadPool::run_raw(int64_t workers, RawJob job, void* context) {
  const std::lock_guard lock(impl_->lease);
  POLYLM_CHECK_LE(workers, static_cast<int64_t>(impl_->workers.size()));
  impl_->job = job;
  impl_->context = context;
  impl_->running.set(static_cast<uint32_t>(workers - 1));
  for (int64_t i = 1; i < workers; ++i) {
    Signal& start = impl_->workers[static_cast<size_t>(i)]->start;
    start.set(start.get() + 1);
  }
  job(context, 0);
  impl_->running.wait([](uint32_t left) { return left == 0; });
}

}  // namespace polylm
