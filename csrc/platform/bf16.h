// bf16.h: bfloat16 as uint16_t, conversion with round to nearest even. Scalar; vector code converts
// in its own ISA file and must give the same bits (tested).
#pragma once

#include <cstdint>
#include <cstring>

namespace polylm {

using bf16 = uint16_t;

inline float bf16_to_float(bf16 b) {
  const uint32_t bits = static_cast<uint32_t>(b) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

// NaN stays NaN (quiet); everything else is rounded to nearest, ties to even; overflow becomes inf.
inline bf16 bf16_from_float(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16>((bits >> 16) | 0x0040u);
  return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// IEEE half to float, exact: a subnormal half is its integer times 2^-24. Chosen by masks, because
// compilers make no vectors of a choice between floating operations, which may trap.
inline float half_to_float(uint16_t h) {
  const uint32_t magnitude = h & 0x7fffu;
  const float small = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1.0p-24F;
  uint32_t small_bits;
  std::memcpy(&small_bits, &small, sizeof small_bits);
  const uint32_t is_small = 0u - static_cast<uint32_t>(magnitude < 0x0400u);
  const uint32_t special = magnitude >= 0x7c00u ? 112u << 23 : 0u;  // NaN and infinity stay so
  const uint32_t normal = (magnitude << 13) + (112u << 23) + special;
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t bits = (small_bits & is_small) | (normal & ~is_small) | sign;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

}  // namespace polylm
