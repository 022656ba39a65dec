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

constexpr int64_t kParts = 32;  // of a burst of one thread

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

BandwidthProbe::BandwidthProbe(int64_t threads, int64_t size_bytes)
    : threads_(threads),
      share_(round_up(ceil_div(size_bytes, threads), 4096)),
      memory_(checked_mul(share_, threads), "measuring memory bandwidth"),
      sinks_(static_cast<size_t>(threads) * 16) {
  ThreadPool::shared().grow(threads);
  ThreadPool::shared().run(threads, [&](int64_t worker) {
    std::memset(memory_.as<char>() + worker * share_, static_cast<int>(worker) + 1,
                static_cast<size_t>(share_));
  });
}

double BandwidthProbe::pass(int64_t workers) {
  constexpr int64_t kChunk = int64_t{4} << 20;
  const KernelTable& kernels = kernels_of(best_isa());
  SharedWork chunks(ceil_div(share_ * threads_, kChunk), 1, workers);
  const auto start = Clock::now();
  ThreadPool::shared().run_helped(workers, [&](int64_t worker) {
    int64_t helped = 0;
    for (Range one; chunks.take(worker, &helped, &one);) {
      const int64_t from = one.begin * kChunk;
      const int64_t bytes = std::min(kChunk, share_ * threads_ - from);
      sinks_[static_cast<size_t>(worker) * 16] += kernels.stream(memory_.as<char>() + from, bytes);
    }
  });
  return static_cast<double>(share_ * threads_) / seconds_since(start) / 1e9;
}

double cpu_multiply_peak(int64_t threads, Isa isa, int64_t rounds, int64_t length) {
  const KernelTable& kernels = kernels_of(isa);
  std::vector<double> speeds;
  ThreadPool::shared().grow(threads);
  for (int64_t i = 0; i < rounds; ++i) {
    std::atomic<double> operations{0.0};
    // Shared out as products are: cores are not all equally fast, and equal shares would measure
    // the slowest of them.
    SharedWork parts(kParts * threads, 1, threads);
    const auto start = Clock::now();
    ThreadPool::shared().run_helped(threads, [&](int64_t worker) {
      int64_t helped = 0;
      for (Range one; parts.take(worker, &helped, &one);) {
        operations.store(kernels.busy(std::max<int64_t>(1, length / kParts)));
      }
    });
    const double all = operations.load() * static_cast<double>(kParts * threads);
    speeds.push_back(all / seconds_since(start) / 1e12);
  }
  return median(std::move(speeds));
}

}  // namespace polylm
