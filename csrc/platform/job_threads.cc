// job_threads.cc: a queue of jobs and the threads that serve it. See job_threads.h.
#include "platform/job_threads.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "platform/error.h"

namespace polylm {
namespace {

constexpr int64_t kKept = 2;  // a load uses two: weights, and the tokenizer beside them

}  // namespace

struct JobThreads::Impl {
  std::mutex mutex;
  std::condition_variable wakes;
  std::deque<std::function<void()>> waiting;
  int64_t threads = 0;
  int64_t idle = 0;
  int64_t failures = 0;  // of a test
};

JobThreads& JobThreads::shared() {
  static JobThreads* const threads = new JobThreads;
  return *threads;
}

JobThreads::JobThreads() : impl_(new Impl) {}

int64_t JobThreads::count() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->threads;
}

void JobThreads::fail_starts(int64_t failures) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->failures = failures;
}

// Called with the mutex held.
void JobThreads::start_thread() {
  if (impl_->failures > 0) {
    --impl_->failures;
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  }
  std::thread([this] { serve(); }).detach();
  ++impl_->threads;
}

void JobThreads::run(std::function<void()> job) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->waiting.push_back(std::move(job));
  if (impl_->idle < static_cast<int64_t>(impl_->waiting.size())) {
    try {
      start_thread();
    } catch (...) {
      if (impl_->threads == 0) {
        impl_->waiting.pop_back();
        throw caught_error();
      }
    }
  }
  impl_->wakes.notify_one();
}

void JobThreads::serve() noexcept {
  std::unique_lock<std::mutex> lock(impl_->mutex);
  for (;;) {
    while (impl_->waiting.empty()) {
      if (impl_->idle >= kKept) {
        --impl_->threads;
        return;
      }
      ++impl_->idle;
      impl_->wakes.wait(lock);
      --impl_->idle;
    }
    const std::function<void()> job = std::move(impl_->waiting.front());
    impl_->waiting.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

}  // namespace polylm
