// philox.h: the counter-based generator Philox4x32-10 (Salmon et al., SC 2011). A number depends on
// its key and counter alone, so noise is the same whatever else runs. Nothing here keeps state.
#pragma once

#include <array>
#include <cstdint>

namespace polylm {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock philox(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(p0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits, keyed by the user's seed, the output (or beam) index, the step
// and a draw number within the step (decisions: noise never depends on an engine id).
inline double philox_uniform(uint64_t seed, uint32_t output, uint32_t step, uint32_t draw) {
  const PhiloxBlock bits = philox({output, step, draw, 0}, static_cast<uint32_t>(seed),
                                  static_cast<uint32_t>(seed >> 32));
  const uint64_t high = (uint64_t{bits[0]} << 32 | bits[1]) >> 11;
  return static_cast<double>(high) * 0x1.0p-53;
}

}  // namespace polylm
