// harness.h: the whole native test framework. TEST(name) { EXPECT(...); } registers itself; main.cc
// runs all tests (or those whose name contains argv[1]) and prints `N passed, N failed, N skipped`.
#pragma once

#include <cmath>
#include <cstdint>
#include <iosfwd>
#include <sstream>
#include <string>

#include "platform/error.h"

namespace polylm::test {

using TestFunction = void (*)();
bool add_test(const char* name, TestFunction function);
void report_failure(const char* file, int line, const std::string& message);
// Ends the current test as skipped, with the reason printed and counted.
[[noreturn]] void skip(const std::string& reason);
// Seed of random tests: POLYLM_SEED or a fixed default; printed when a test fails.
uint64_t seed();

template <class T>
std::string show(const T& value) {
  std::ostringstream out;
  out.precision(9);
  out << value;
  return out.str();
}
inline std::string show(Code code) { return code_name(code); }

template <class A, class B>
void expect_eq(const A& a, const B& b, const char* text, const char* file, int line) {
  if (!(a == b)) report_failure(file, line, std::string(text) + ": " + show(a) + " != " + show(b));
}

inline void expect_near(double a, double b, double tolerance, const char* text, const char* file,
                        int line) {
  if (!(std::fabs(a - b) <= tolerance)) {
    report_failure(file, line, std::string(text) + ": " + show(a) + " and " + show(b) +
                                   " differ by more than " + show(tolerance));
  }
}

template <class F>
void expect_code(Code code, F&& f, const char* text, const char* file, int line) {
  try {
    f();
  } catch (const Error& e) {
    expect_eq(show(e.code()), show(code), text, file, line);
    return;
  }
  report_failure(file, line, std::string(text) + ": no error, expected " + show(code));
}

}  // namespace polylm::test

#define TEST(name)                                                                          \
  static void test_##name();                                                                \
  static const bool registered_##name = ::polylm::test::add_test(#name, &test_##name);      \
  static void test_##name()
#define EXPECT(condition) \
  ((condition) ? (void)0 : ::polylm::test::report_failure(__FILE__, __LINE__, #condition))
#define EXPECT_EQ(a, b) ::polylm::test::expect_eq((a), (b), #a " == " #b, __FILE__, __LINE__)
#define EXPECT_NEAR(a, b, tolerance) \
  ::polylm::test::expect_near((a), (b), (tolerance), #a " ~ " #b, __FILE__, __LINE__)
#define EXPECT_THROWS_CODE(code, statement) \
  ::polylm::test::expect_code((code), [&] { statement; }, #statement, __FILE__, __LINE__)
