// wide.h: loops over whole checkpoints run twice as wide where an x86-64 processor has AVX2. Not
// here: kernels of the model (cpu/isa_*.cc).
// Trap: a loop is compiled for both only where it is inlined, which POLYLM_WIDE_LOOP demands;
// what it calls is not.
#pragma once

#include "platform/cpu_features.h"

namespace polylm {

// Tests switch it on to see the loops of a processor without AVX2.
inline bool wide_loops_are_off = false;

// A loop for widely(): POLYLM_WIDE_LOOP { ...; }
#define POLYLM_WIDE_LOOP [&]() __attribute__((always_inline))

#if defined(__x86_64__)
template <class Loop>
[[gnu::target("avx2")]] auto with_avx2(const Loop& loop) {
  return loop();
}
#endif

template <class Loop>
auto widely(const Loop& loop) {
#if defined(__x86_64__)
  if (cpu_features().avx2 && !wide_loops_are_off) return with_avx2(loop);
#endif
  return loop();
}

}  // namespace polylm
