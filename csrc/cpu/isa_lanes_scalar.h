// isa_lanes_scalar.h: 16 lanes as a plain array: the F16 of isa_scalar.cc. The compiler turns the
// loops into whatever the baseline has. See isa_kernels.h for what the names mean.
#pragma once

#include <cstdint>
#include <cstring>

namespace polylm {
namespace {

// Sums of a busy loop: as many as hide the latency of an addition and fit the registers.
inline constexpr int kBusyChains = 3;

struct F16 {
  float v[16];
};

#define POLYLM_LANES(expression)                       \
  F16 o;                                               \
  for (int i = 0; i < 16; ++i) o.v[i] = (expression); \
  return o

inline uint32_t bits_of(float f) {
  uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}
inline float float_of(uint32_t u) {
  float f;
  std::memcpy(&f, &u, sizeof f);
  return f;
}
inline uint32_t rounded_bits(float f) {
  const uint32_t u = bits_of(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (u | 0x00400000u) & 0xffff0000u;
  return (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
}

inline F16 zero() { POLYLM_LANES(0.0F); }
inline F16 broadcast(float x) { POLYLM_LANES(x); }
inline F16 load(const float* p) { POLYLM_LANES(p[i]); }
inline void store(float* p, const F16& a) { std::memcpy(p, a.v, sizeof a.v); }
inline F16 add(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] + b.v[i]); }
inline F16 sub(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] - b.v[i]); }
inline F16 mul(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] * b.v[i]); }
inline F16 div(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] / b.v[i]); }
inline F16 inverse(F16 x) { return div(broadcast(1.0F), x); }
inline F16 fma(const F16& a, const F16& b, const F16& c) { POLYLM_LANES(a.v[i] * b.v[i] + c.v[i]); }
inline F16 max(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F16 min(const F16& a, const F16& b) { POLYLM_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F16 low_halves(const void* line) {
  const auto* p = static_cast<const uint16_t*>(line);
  POLYLM_LANES(float_of(static_cast<uint32_t>(p[2 * i]) << 16));
}
inline F16 high_halves(const void* line) {
  const auto* p = static_cast<const uint16_t*>(line);
  POLYLM_LANES(float_of(static_cast<uint32_t>(p[2 * i + 1]) << 16));
}
inline F16 load_bf16(const uint16_t* p) {
  POLYLM_LANES(float_of(static_cast<uint32_t>(p[i]) << 16));
}
inline F16 round_bf16(const F16& a) { POLYLM_LANES(float_of(rounded_bits(a.v[i]))); }
inline void store_bf16(uint16_t* p, const F16& a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint16_t>(rounded_bits(a.v[i]) >> 16);
}
inline F16 nearest(const F16& a) {  // |a| < 2^22
  POLYLM_LANES((a.v[i] + 12582912.0F) - 12582912.0F);
}
inline F16 scale_by_power(const F16& a, const F16& n) {
  POLYLM_LANES(float_of(bits_of(a.v[i]) +
                        (n.v[i] == n.v[i] ? static_cast<uint32_t>(static_cast<int32_t>(n.v[i])) : 0)
                            * 0x00800000u));
}
inline F16 first_or(const F16& a, int64_t count, const F16& other) {
  POLYLM_LANES(i < count ? a.v[i] : other.v[i]);
}
inline F16 zero_below(const F16& a, const F16& x, float limit) {
  POLYLM_LANES(x.v[i] < limit ? 0.0F : a.v[i]);
}
inline F16 if_negative(const F16& x, const F16& a, const F16& b) {
  POLYLM_LANES(x.v[i] < 0.0F ? a.v[i] : b.v[i]);
}
inline F16 absolute(const F16& a) { POLYLM_LANES(float_of(bits_of(a.v[i]) & 0x7fffffffu)); }
inline uint32_t greater(const F16& a, const F16& b) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(a.v[i] > b.v[i]) << i;
  return mask;
}
inline uint32_t nan_or_infinity(const F16& a) {
  const float infinity = float_of(0x7f800000u);
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(!(a.v[i] < infinity)) << i;
  return mask;
}
inline float lane_sum(const F16& a) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = a.v[i] + a.v[i + 8];
  for (int i = 0; i < 4; ++i) s[i] += s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float lane_max(const F16& a) {
  float m = a.v[0];
  for (int i = 1; i < 16; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline float lane(const F16& a) { return a.v[0]; }
inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

#undef POLYLM_LANES

}  // namespace
}  // namespace polylm
