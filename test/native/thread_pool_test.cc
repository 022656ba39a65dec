// thread_pool_test.cc: every worker runs exactly once, also oversubscribed and from two threads at
// once; idle workers sleep.
#include "platform/thread_pool.h"

#include <atomic>
#include <chrono>
#include <ctime>
#include <thread>
#include <vector>

#include "harness.h"

namespace polylm::test {
namespace {

// Processor time of the whole process in seconds.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

TEST(pool_runs_each_worker_once) {
  ThreadPool& pool = ThreadPool::shared();
  pool.grow(16);
  for (const int64_t workers : {1, 2, 3, 4, 16}) {
    for (int round = 0; round < 300; ++round) {
      std::vector<int> runs(16, 0);  // plain ints: run() itself must order the accesses
      pool.run(workers, [&](int64_t worker) { ++runs[static_cast<size_t>(worker)]; });
      for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(runs[static_cast<size_t>(i)], i < workers ? 1 : 0);
    }
  }
}

TEST(pool_oversubscribed_finishes) {
  ThreadPool& pool = ThreadPool::shared();
  const auto workers = static_cast<int64_t>(std::thread::hardware_concurrency()) * 4;
  pool.grow(workers);
  std::atomic<int64_t> sum{0};
  for (int round = 0; round < 200; ++round) {
    pool.run(workers, [&](int64_t worker) { sum += worker; });
  }
  EXPECT_EQ(sum.load(), 200 * workers * (workers - 1) / 2);
}

TEST(pool_serves_two_callers) {
  ThreadPool& pool = ThreadPool::shared();
  pool.grow(4);
  const auto work = [&pool](int64_t* total) {
    for (int round = 0; round < 2000; ++round) {
      int64_t parts[4] = {};
      pool.run(4, [&](int64_t worker) { parts[worker] = worker + 1; });
      *total += parts[0] + parts[1] + parts[2] + parts[3];
    }
  };
  int64_t one = 0;
  int64_t two = 0;
  std::thread other(work, &two);
  work(&one);
  other.join();
  EXPECT_EQ(one, int64_t{20000});
  EXPECT_EQ(two, int64_t{20000});
}

TEST(pool_sleeps_when_idle) {
  ThreadPool& pool = ThreadPool::shared();
  pool.grow(4);
  pool.run(4, [](int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than any spinning
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT(cpu_seconds() - before < 0.05);
  int64_t sum = 0;
  std::atomic<int64_t> woken{0};
  pool.run(4, [&](int64_t worker) { woken += worker; });  // and wake up again
  sum = woken.load();
  EXPECT_EQ(sum, int64_t{6});
}

// Every item is taken exactly once, whoever comes; with far more workers than cores most come late.
TEST(pool_shared_work_is_taken_once) {
  ThreadPool& pool = ThreadPool::shared();
  for (const int64_t workers : {1, 3, 16}) {
    pool.grow(workers);
    for (int round = 0; round < 500; ++round) {
      const int64_t size = round % 97;
      std::vector<std::atomic<int>> taken(97);
      SharedWork work(size, 1 + round % 5, workers);
      pool.run_helped(workers, [&](int64_t worker) {
        int64_t helped = 0;
        for (Range some; work.take(worker, &helped, &some);) {
          EXPECT(some.begin < some.end && some.end <= size);
          for (int64_t i = some.begin; i < some.end; ++i) ++taken[static_cast<size_t>(i)];
        }
      });
      for (int64_t i = 0; i < 97; ++i) {
        EXPECT_EQ(taken[static_cast<size_t>(i)].load(), i < size ? 1 : 0);
      }
    }
  }
}

TEST(pool_parts_cover_everything) {
  for (const int64_t size : {0, 1, 5, 250, 1003}) {
    for (const int64_t count : {1, 2, 3, 7, 64}) {
      int64_t next = 0;
      for (int64_t i = 0; i < count; ++i) {
        const Range r = part_of(size, i, count);
        EXPECT_EQ(r.begin, next);
        EXPECT(r.end - r.begin <= size / count + 1);
        next = r.end;
      }
      EXPECT_EQ(next, size);
    }
  }
}

TEST(pool_default_is_the_first_request) {
  const int64_t first = ThreadPool::default_workers(0);
  EXPECT(first >= 1);
  EXPECT_EQ(ThreadPool::default_workers(3), int64_t{3});
  EXPECT_EQ(ThreadPool::default_workers(0), first);
}

}  // namespace
}  // namespace polylm::test
