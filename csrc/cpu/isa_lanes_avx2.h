// isa_lanes_avx2.h: 16 lanes as two AVX2 registers: the F16 of isa_avx2.cc. See isa_kernels.h for
// what the names mean.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace polylm {
namespace {

// Sums of a busy loop: as many as hide the latency of an addition and fit the registers.
inline constexpr int kBusyChains = 6;

struct F16 {
  __m256 a;
  __m256 b;
};

inline __m256 as_float(__m256i x) { return _mm256_castsi256_ps(x); }
inline __m256i as_int(__m256 x) { return _mm256_castps_si256(x); }
inline __m256i rounded_bits(__m256 x) {
  const __m256i u = as_int(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x00400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 both = _mm256_blendv_ps(as_float(up), as_float(quiet), nan);
  return _mm256_and_si256(as_int(both), _mm256_set1_epi32(static_cast<int>(0xffff0000u)));
}

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 broadcast(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline F16 add(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 sub(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 mul(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 div(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 inverse(F16 x) { return div(broadcast(1.0F), x); }
inline F16 max(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F16 min(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F16 fma(F16 x, F16 y, F16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline __m256i line_half(const void* line, int half) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(line) + half);
}
inline F16 low_halves(const void* line) {
  return {as_float(_mm256_slli_epi32(line_half(line, 0), 16)),
          as_float(_mm256_slli_epi32(line_half(line, 1), 16))};
}
inline F16 high_halves(const void* line) {
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {as_float(_mm256_and_si256(line_half(line, 0), mask)),
          as_float(_mm256_and_si256(line_half(line, 1), mask))};
}
inline __m256 widened(const uint16_t* p) {
  const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return as_float(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
}
inline F16 load_bf16(const uint16_t* p) { return {widened(p), widened(p + 8)}; }
inline F16 round_bf16(F16 x) { return {as_float(rounded_bits(x.a)), as_float(rounded_bits(x.b))}; }
inline void store_bf16(uint16_t* p, F16 x) {
  const __m256i a = _mm256_srli_epi32(rounded_bits(x.a), 16);
  const __m256i b = _mm256_srli_epi32(rounded_bits(x.b), 16);
  const __m256i mixed = _mm256_packus_epi32(a, b);  // quarters in the order a0 b0 a1 b1
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(mixed, 0xd8));
}
inline F16 nearest(F16 x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kMode), _mm256_round_ps(x.b, kMode)};
}
inline __m256 scaled(__m256 x, __m256 n) {
  return as_float(_mm256_add_epi32(as_int(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
inline F16 scale_by_power(F16 x, F16 n) { return {scaled(x.a, n.a), scaled(x.b, n.b)}; }
inline __m256 first_lanes(int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return as_float(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes));
}
inline F16 first_or(F16 x, int64_t count, F16 other) {
  return {_mm256_blendv_ps(other.a, x.a, first_lanes(count)),
          _mm256_blendv_ps(other.b, x.b, first_lanes(count - 8))};
}
inline F16 zero_below(F16 y, F16 x, float limit) {
  const __m256 l = _mm256_set1_ps(limit);
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.a, l, _CMP_LT_OQ), y.a),
          _mm256_andnot_ps(_mm256_cmp_ps(x.b, l, _CMP_LT_OQ), y.b)};
}
inline F16 if_negative(F16 x, F16 y, F16 z) {
  const __m256 o = _mm256_setzero_ps();
  return {_mm256_blendv_ps(z.a, y.a, _mm256_cmp_ps(x.a, o, _CMP_LT_OQ)),
          _mm256_blendv_ps(z.b, y.b, _mm256_cmp_ps(x.b, o, _CMP_LT_OQ))};
}
inline F16 absolute(F16 x) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline uint32_t mask_of(__m256 a, __m256 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a)) |
         static_cast<uint32_t>(_mm256_movemask_ps(b)) << 8;
}
inline uint32_t greater(F16 x, F16 y) {
  return mask_of(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ));
}
inline uint32_t nan_or_infinity(F16 x) {
  const __m256 inf = as_float(_mm256_set1_epi32(0x7f800000));
  return mask_of(_mm256_cmp_ps(x.a, inf, _CMP_NLT_UQ), _mm256_cmp_ps(x.b, inf, _CMP_NLT_UQ));
}
inline float lane_sum(F16 x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float lane_max(F16 x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
inline float lane(F16 x) { return _mm256_cvtss_f32(x.a); }
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

}  // namespace
}  // namespace polylm
