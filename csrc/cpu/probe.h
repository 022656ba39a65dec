// probe.h: what this machine can do at best, measured now: the yardsticks of every benchmark.
// Absolute speeds mean nothing on a shared machine; ratios to these, taken in the same minute, do.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/dispatch.h"
#include "platform/buffer.h"

namespace polylm {

// A read-only stream that can be taken again and again, between the runs of what it is to judge.
class BandwidthProbe {
 public:
  BandwidthProbe(int64_t threads, int64_t size_bytes);
  double pass() { return pass(threads_); }  // GB/s (1e9 bytes) of one pass over all of it
  double pass(int64_t workers);             // the same by fewer workers

 private:
  int64_t threads_;
  int64_t share_;  // bytes of one worker
  Buffer memory_;
  std::vector<uint64_t> sinks_;
};

// Median TFLOP/s of independent multiply-adds in registers, as the products of `isa` use them, in
// `rounds` bursts of `length` multiply-adds of each accumulator.
double cpu_multiply_peak(int64_t threads, Isa isa, int64_t rounds, int64_t length);

}  // namespace polylm
