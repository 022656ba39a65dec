// main.cc: runs the registered native tests. Exit status 0 when none failed and at least one ran.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

#include "harness.h"

namespace polylm::test {
namespace {

struct Test {
  const char* name;
  TestFunction function;
};

struct Skipped {
  std::string reason;
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

int failures_in_test = 0;

}  // namespace

bool add_test(const char* name, TestFunction function) {
  tests().push_back({name, function});
  return true;
}

void report_failure(const char* file, int line, const std::string& message) {
  constexpr int kShown = 10;
  if (++failures_in_test <= kShown) {
    std::printf("    %s:%d: %s\n", file, line, message.c_str());
  }
}

void skip(const std::string& reason) { throw Skipped{reason}; }

uint64_t seed() {
  const char* text = std::getenv("POLYLM_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20230711;
}

static int run_all(const char* filter) {
  int passed = 0;
  int failed = 0;
  int skipped = 0;
  for (const Test& test : tests()) {
    if (filter != nullptr && std::strstr(test.name, filter) == nullptr) continue;
    failures_in_test = 0;
    std::string reason;
    try {
      test.function();
    } catch (const Skipped& s) {
      reason = s.reason;
    } catch (const std::exception& e) {
      report_failure(test.name, 0, std::string("threw ") + e.what());
    }
    if (!reason.empty()) {
      std::printf("  skip %s: %s\n", test.name, reason.c_str());
      ++skipped;
    } else if (failures_in_test == 0) {
      ++passed;
    } else {
      std::printf("  FAIL %s (%d failures, seed %llu)\n", test.name, failures_in_test,
                  static_cast<unsigned long long>(seed()));
      ++failed;
    }
    std::fflush(stdout);
  }
  std::printf("native: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace polylm::test

int main(int argc, char** argv) { return polylm::test::run_all(argc > 1 ? argv[1] : nullptr); }
