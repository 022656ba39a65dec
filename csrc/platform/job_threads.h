// job_threads.h: the threads on which work runs that JavaScript waits for: loading, disposing, long
// texts. Two are kept for the next jobs, so that a process without memory for another thread can
// still free a model. Not for steps (thread_pool.h) nor requests (the engine has its own).
// Trap: without memory for more threads a job waits behind others; no job may wait for a later one.
#pragma once

#include <cstdint>
#include <functional>

namespace polylm {

class JobThreads {
 public:
  // Those of this process. Never destroyed: they sleep until it ends.
  static JobThreads& shared();

  // Runs `job`, which must not throw, on a thread that is free, on a new one, or where the system
  // starts none on one that is busy, later. Throws INSUFFICIENT_MEMORY when there is none at all.
  void run(std::function<void()> job);

  // Threads that exist now.
  int64_t count() const;

  // For tests: the next `failures` threads cannot be started.
  void fail_starts(int64_t failures);

 private:
  JobThreads();
  ~JobThreads() = delete;
  void start_thread();
  void serve() noexcept;

  struct Impl;
  Impl* impl_;
};

}  // namespace polylm
