// probe.cc: a read-only stream over huge pages, and multiply-adds that never leave the registers.
#include "cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "platform/buffer.h"
#include "platform/checked.h"
#include "platform/thread_pool.h"

namespace polylm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

double cpu_read_bandwidth(int64_t threads, int64_t size_bytes, int64_t rounds) {
  const int64_t share = round_up(ceil_div(size_bytes, threads), 4096);
  const Buffer memory(checked_mul(share, threads), "measuring memory bandwidth");
  const KernelTable& kernels = kernels_of(best_isa());
  std::vector<uint64_t> sinks(static_cast<size_t>(threads) * 16);
  std::vector<double> speeds;
  ThreadPool::shared().grow(threads);
  const auto part = [&](int64_t worker) { return memory.as<char>() + worker * share; };
  ThreadPool::shared().run(threads, [&](int64_t worker) {
    std::memset(part(worker), static_cast<int>(worker) + 1, static_cast<size_t>(share));
  });
  for (int64_t i = 0; i < rounds; ++i) {
    const auto start = Clock::now();
    ThreadPool::shared().run(threads, [&](int64_t worker) {
      sinks[static_cast<size_t>(worker) * 16] += kernels.stream(part(worker), share);
    });
    speeds.push_back(static_cast<double>(share * threads) / seconds_since(start) / 1e9);
  }
  return median(std::move(speeds));
}

double cpu_multiply_peak(int64_t threads, Isa isa, int64_t rounds) {
  constexpr int64_t kRounds = 1 << 20;
  const KernelTable& kernels = kernels_of(isa);
  std::vector<double> speeds;
  ThreadPool::shared().grow(threads);
  for (int64_t i = 0; i < rounds; ++i) {
    std::atomic<double> operations{0.0};
    const auto start = Clock::now();
    ThreadPool::shared().run(threads, [&](int64_t) { operations.store(kernels.busy(kRounds)); });
    const double all = operations.load() * static_cast<double>(threads);
    speeds.push_back(all / seconds_since(start) / 1e12);
  }
  return median(std::move(speeds));
}

}  // namespace polylm
