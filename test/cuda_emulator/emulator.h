// emulator.h: what the two halves of the emulated CUDA share: emulator.cc runs a grid, runtime.cc
// decides when. Trap: nothing here may call operator new: tests count its calls.
#pragma once

#include <cuda_runtime.h>

#include <cstdlib>
#include <vector>

namespace emulator {

inline constexpr unsigned char kPoison = 0xff;  // NaN as fp32, fp64 and bf16

template <class T>
struct Plain {
  using value_type = T;
  Plain() = default;
  template <class U>
  Plain(const Plain<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(std::malloc(n * sizeof(T))); }
  void deallocate(T* p, size_t) { std::free(p); }
  bool operator==(const Plain&) const { return true; }
};
template <class T>
using List = std::vector<T, Plain<T>>;

// Whether a card would take this launch.
bool fits(const cudaLaunchConfig_t& config);
// Runs all blocks. False when the kernel broke a rule, which is said on stderr.
bool run_grid(const cudaLaunchConfig_t& config, const Closure& kernel);

}  // namespace emulator
