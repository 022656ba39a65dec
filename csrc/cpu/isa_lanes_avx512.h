// isa_lanes_avx512.h: 16 lanes as one AVX-512 register: the F16 of the isa_avx512*.cc files. See
// isa_kernels.h for what the names mean.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 intrinsics pass undefined registers on and warn about it (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace polylm {
namespace {

// Sums of a busy loop: as many as hide the latency of an addition and fit the registers.
inline constexpr int kBusyChains = 12;

using F16 = __m512;

inline __m512i rounded_bits(F16 x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i both = _mm512_mask_or_epi32(up, nan, u, _mm512_set1_epi32(0x00400000));
  return _mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
}

inline F16 zero() { return _mm512_setzero_ps(); }
inline F16 broadcast(float x) { return _mm512_set1_ps(x); }
inline F16 load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F16 x) { _mm512_storeu_ps(p, x); }
inline F16 add(F16 x, F16 y) { return _mm512_add_ps(x, y); }
inline F16 sub(F16 x, F16 y) { return _mm512_sub_ps(x, y); }
inline F16 mul(F16 x, F16 y) { return _mm512_mul_ps(x, y); }
inline F16 div(F16 x, F16 y) { return _mm512_div_ps(x, y); }
// An estimate of 14 bits and a step of Newton's: a division takes 16 cycles.
inline F16 inverse(F16 x) {
  const F16 r = _mm512_rcp14_ps(x);
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0F)), r);
}
inline F16 max(F16 x, F16 y) { return _mm512_max_ps(x, y); }
inline F16 min(F16 x, F16 y) { return _mm512_min_ps(x, y); }
inline F16 fma(F16 x, F16 y, F16 z) { return _mm512_fmadd_ps(x, y, z); }
inline F16 low_halves(const void* line) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(line), 16));
}
inline F16 high_halves(const void* line) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(line), mask));
}
inline F16 load_bf16(const uint16_t* p) {
  const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
}
inline F16 round_bf16(F16 x) { return _mm512_castsi512_ps(rounded_bits(x)); }
inline void store_bf16(uint16_t* p, F16 x) {
  const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bits(x), 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
}
inline F16 nearest(F16 x) { return _mm512_roundscale_ps(x, 0); }
inline F16 scale_by_power(F16 x, F16 n) {
  const __m512i power = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), power));
}
inline __mmask16 first_lanes(int64_t count) {
  if (count >= 16) return static_cast<__mmask16>(0xffff);
  return count <= 0 ? static_cast<__mmask16>(0) : static_cast<__mmask16>((1u << count) - 1u);
}
inline F16 first_or(F16 x, int64_t count, F16 other) {
  return _mm512_mask_blend_ps(first_lanes(count), other, x);
}
inline F16 zero_below(F16 y, F16 x, float limit) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_LT_OQ), y,
                              _mm512_setzero_ps());
}
inline F16 if_negative(F16 x, F16 y, F16 z) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), z, y);
}
inline F16 absolute(F16 x) { return _mm512_abs_ps(x); }
inline uint32_t greater(F16 x, F16 y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
inline uint32_t nan_or_infinity(F16 x) {
  const F16 infinity = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000));
  return _mm512_cmp_ps_mask(x, infinity, _CMP_NLT_UQ);
}
inline float lane_sum(F16 x) { return _mm512_reduce_add_ps(x); }
inline float lane_max(F16 x) { return _mm512_reduce_max_ps(x); }
inline float lane(F16 x) { return _mm512_cvtss_f32(x); }
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace
}  // namespace polylm
