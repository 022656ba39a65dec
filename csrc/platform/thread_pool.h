// thread_pool.h: the compute workers of the process, shared by all models. A region is one job run
// by n workers, the caller being worker 0. Jobs partition their output; nothing here ever adds
// numbers. Idle workers spin for about 50 us, then sleep.
// Trap: a job must not throw and must not start a region: there is no nesting. Two engines that
// start regions at once take turns, region by region.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace polylm {

class ThreadPool {
 public:
  // The pool of this process. Never destroyed: its threads sleep until the process ends.
  static ThreadPool& shared();

  // Workers of an Ops whose caller names no number: what the first such call of the process asked
  // for (`requested` > 0), else usable_cores().
  static int64_t default_workers(int64_t requested);

  // Makes sure that `workers` workers exist (the caller counts as one). Not inside a step.
  void grow(int64_t workers);

  // Calls job(worker) for worker in [0, workers), each exactly once, in parallel, and returns when
  // all have finished. One worker runs inline without any locking.
  template <class Job>
  void run(int64_t workers, Job&& job) {
    start(workers, job, false);
  }

  // The same, but a worker that has not begun when the caller's own job(0) returns is not waited
  // for: it does not run at all. For jobs that take their items from a SharedWork, where job(0)
  // returns only when every item is taken: a sleeping or crowded-out worker then costs nothing.
  template <class Job>
  void run_helped(int64_t workers, Job&& job) {
    start(workers, job, true);
  }

  static constexpr int64_t kMaxWorkers = 256;

 private:
  using RawJob = void (*)(void* context, int64_t worker);
  ThreadPool();
  ~ThreadPool() = delete;

  template <class Job>
  void start(int64_t workers, Job& job, bool helpers_optional) {
    if (workers <= 1) {
      job(int64_t{0});
      return;
    }
    run_raw(workers, [](void* context, int64_t worker) { (*static_cast<Job*>(context))(worker); },
            const_cast<void*>(static_cast<const void*>(&job)), helpers_optional);
  }
  void run_raw(int64_t workers, RawJob job, void* context, bool helpers_optional);

  struct Impl;
  Impl* impl_;
};

// Half-open range of items.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// Part `index` of `count` equal parts of [0, size): sizes differ by one at most.
constexpr Range part_of(int64_t size, int64_t index, int64_t count) {
  return {size * index / count, size * (index + 1) / count};
}

// Items [0, size) shared out in chunks. Each worker takes the chunks of its own part in order, the
// same ones in every step, then helps the others: on a quiet machine nobody steals, and a worker
// that lost its core to another process does not hold up the rest.
class SharedWork {
 public:
  SharedWork(int64_t size, int64_t chunk, int64_t workers)
      : size_(size), chunk_(chunk), workers_(workers) {
    for (int64_t i = 0; i < workers; ++i) cursors_[i].next.store(0, std::memory_order_relaxed);
  }

  // The next chunk for `worker`; false when nothing is left. `helped` starts at 0 and counts the
  // parts that this worker found empty.
  bool take(int64_t worker, int64_t* helped, Range* chunk) {
    for (; *helped < workers_; ++*helped) {
      const int64_t owner = (worker + *helped) % workers_;
      const Range part = part_of(size_, owner, workers_);
      const int64_t at =
          part.begin + cursors_[owner].next.fetch_add(chunk_, std::memory_order_relaxed);
      if (at >= part.end) continue;
      *chunk = {at, at + chunk_ < part.end ? at + chunk_ : part.end};
      return true;
    }
    return false;
  }

 private:
  struct alignas(64) Cursor {
    std::atomic<int64_t> next;
  };
  int64_t size_;
  int64_t chunk_;
  int64_t workers_;
  Cursor cursors_[ThreadPool::kMaxWorkers];
};

}  // namespace polylm
