// thread_pool.h: the compute workers of the process, shared by all models. run() splits one job over
// n workers, the caller being worker 0, and returns when all have finished. Jobs partition their
// output; nothing here ever adds numbers. Idle workers spin for about 50 us, then sleep.
// Trap: a job must not throw and must not call run(): there is no nesting. Two engines that call
// run() at once take turns, region by region.
#pragma once

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

  // Calls job(worker) for worker in [0, workers), each exactly once, in parallel. One worker runs
  // inline without any locking.
  template <class Job>
  void run(int64_t workers, Job&& job) {
    using Plain = std::remove_reference_t<Job>;
    if (workers <= 1) {
      job(int64_t{0});
      return;
    }
    run_raw(workers, [](void* context, int64_t worker) { (*static_cast<Plain*>(context))(worker); },
            const_cast<void*>(static_cast<const void*>(&job)));
  }

  static constexpr int64_t kMaxWorkers = 256;

 private:
  using RawJob = void (*)(void* context, int64_t worker);
  ThreadPool();
  ~ThreadPool() = delete;
  void run_raw(int64_t workers, RawJob job, void* context);

  struct Impl;
  Impl* impl_;
};

// Half-open part `index` of `count` equal parts of [0, size): sizes differ by one at most.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};
constexpr Range part_of(int64_t size, int64_t index, int64_t count) {
  return {size * index / count, size * (index + 1) / count};
}

}  // namespace polylm
