// isa_lanes_neon.h: 16 lanes as four NEON registers: the F16 of the isa_neon*.cc files. See
// isa_kernels.h for what the names mean.
// Trap: vmaxq and vminq would hand on NaN from either side; max and min here are comparisons.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace polylm {
namespace {

// Sums of a busy loop: as many as hide the latency of an addition and fit the registers.
inline constexpr int kBusyChains = 6;

struct F16 {
  float32x4_t v[4];
};

#define POLYLM_QUARTERS(expression)                   \
  F16 o;                                              \
  for (int i = 0; i < 4; ++i) o.v[i] = (expression); \
  return o

inline float32x4_t as_float(uint32x4_t x) { return vreinterpretq_f32_u32(x); }
inline uint32x4_t as_bits(float32x4_t x) { return vreinterpretq_u32_f32(x); }
inline uint32x4_t rounded_bits(float32x4_t x) {
  const uint32x4_t u = as_bits(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x00400000));
  return vandq_u32(vbslq_u32(vceqq_f32(x, x), up, quiet), vdupq_n_u32(0xffff0000u));
}

inline F16 zero() { POLYLM_QUARTERS(vdupq_n_f32(0.0F)); }
inline F16 broadcast(float x) { POLYLM_QUARTERS(vdupq_n_f32(x)); }
inline F16 load(const float* p) { POLYLM_QUARTERS(vld1q_f32(p + 4 * i)); }
inline void store(float* p, const F16& a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F16 add(const F16& a, const F16& b) { POLYLM_QUARTERS(vaddq_f32(a.v[i], b.v[i])); }
inline F16 sub(const F16& a, const F16& b) { POLYLM_QUARTERS(vsubq_f32(a.v[i], b.v[i])); }
inline F16 mul(const F16& a, const F16& b) { POLYLM_QUARTERS(vmulq_f32(a.v[i], b.v[i])); }
inline F16 div(const F16& a, const F16& b) { POLYLM_QUARTERS(vdivq_f32(a.v[i], b.v[i])); }
inline F16 inverse(F16 x) { return div(broadcast(1.0F), x); }
inline F16 max(const F16& a, const F16& b) {
  POLYLM_QUARTERS(vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
inline F16 min(const F16& a, const F16& b) {
  POLYLM_QUARTERS(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
inline F16 fma(const F16& a, const F16& b, const F16& c) {
  POLYLM_QUARTERS(vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
inline uint32x4_t line_quarter(const void* line, int quarter) {
  return vld1q_u32(static_cast<const uint32_t*>(line) + 4 * quarter);
}
inline F16 low_halves(const void* line) {
  POLYLM_QUARTERS(as_float(vshlq_n_u32(line_quarter(line, i), 16)));
}
inline F16 high_halves(const void* line) {
  POLYLM_QUARTERS(as_float(vandq_u32(line_quarter(line, i), vdupq_n_u32(0xffff0000u))));
}
inline F16 load_bf16(const uint16_t* p) {
  POLYLM_QUARTERS(as_float(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}
inline F16 round_bf16(const F16& a) { POLYLM_QUARTERS(as_float(rounded_bits(a.v[i]))); }
inline void store_bf16(uint16_t* p, const F16& a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vshrn_n_u32(rounded_bits(a.v[i]), 16));
}
inline F16 nearest(const F16& a) { POLYLM_QUARTERS(vrndnq_f32(a.v[i])); }
inline F16 scale_by_power(const F16& a, const F16& n) {
  POLYLM_QUARTERS(as_float(vaddq_u32(
      as_bits(a.v[i]), vreinterpretq_u32_s32(vshlq_n_s32(vcvtnq_s32_f32(n.v[i]), 23)))));
}
inline uint32x4_t first_lanes(int64_t count) {
  const int32_t numbers[4] = {0, 1, 2, 3};
  const auto limit = static_cast<int32_t>(count < -16 ? -16 : (count > 16 ? 16 : count));
  return vcltq_s32(vld1q_s32(numbers), vdupq_n_s32(limit));
}
inline F16 first_or(const F16& a, int64_t count, const F16& other) {
  POLYLM_QUARTERS(vbslq_f32(first_lanes(count - 4 * i), a.v[i], other.v[i]));
}
inline F16 zero_below(const F16& a, const F16& x, float limit) {
  POLYLM_QUARTERS(as_float(vbicq_u32(as_bits(a.v[i]), vcltq_f32(x.v[i], vdupq_n_f32(limit)))));
}
inline F16 if_negative(const F16& x, const F16& a, const F16& b) {
  POLYLM_QUARTERS(vbslq_f32(vcltzq_f32(x.v[i]), a.v[i], b.v[i]));
}
inline F16 absolute(const F16& a) { POLYLM_QUARTERS(vabsq_f32(a.v[i])); }
inline uint32_t mask_of(uint32x4_t lanes) {
  const uint32_t bits[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(lanes, vld1q_u32(bits)));
}
inline uint32_t greater(const F16& a, const F16& b) {
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i) mask |= mask_of(vcgtq_f32(a.v[i], b.v[i])) << (4 * i);
  return mask;
}
inline uint32_t nan_or_infinity(const F16& a) {
  const float32x4_t infinity = as_float(vdupq_n_u32(0x7f800000));
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i) mask |= mask_of(vmvnq_u32(vcltq_f32(a.v[i], infinity))) << (4 * i);
  return mask;
}
inline float lane_sum(const F16& a) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3])));
}
inline float lane_max(const F16& a) {
  const F16 b = {{a.v[1], a.v[0], a.v[3], a.v[2]}};
  const F16 two = max(a, b);
  const F16 c = {{two.v[2], two.v[2], two.v[0], two.v[0]}};
  return vmaxvq_f32(max(two, c).v[0]);
}
inline float lane(const F16& a) { return vgetq_lane_f32(a.v[0], 0); }
inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

#undef POLYLM_QUARTERS

}  // namespace
}  // namespace polylm
