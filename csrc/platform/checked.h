// checked.h: size arithmetic that cannot wrap. Every size that comes from a file or a user goes
// through here. Throws LIMIT; callers that know a better code catch the range before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "platform/error.h"

namespace polylm {

inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out)) fail(Code::kLimit, "a size overflows 64 bits");
  return out;
}

inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t out = 0;
  if (__builtin_add_overflow(a, b, &out)) fail(Code::kLimit, "a size overflows 64 bits");
  return out;
}

// Value-preserving integer conversion.
template <class To, class From>
To narrow(From value) {
  static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
  const auto out = static_cast<To>(value);
  if (static_cast<From>(out) != value || (out < To{}) != (value < From{})) {
    fail(Code::kLimit, "a number does not fit its type");
  }
  return out;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace polylm
