// measure.h: what the measuring programs share: a clock, medians, and lists of numbers from the
// command line. Not here: probes of the machine (csrc/cpu/probe.h), models, reports.
// Trap: a median of few runs says little on a shared machine; always print the range with it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace polylm_bench {

template <class Work>
double seconds_of(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The middle one; of an even number the mean of the two in the middle. 0 when there is none.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2.0;
}

// "1,2,4" as numbers of at least 1; empty when the text is anything else.
inline std::vector<int64_t> counts_from(const std::string& text) {
  std::vector<int64_t> counts;
  const char* at = text.c_str();
  for (;;) {
    char* end = nullptr;
    const long long value = std::strtoll(at, &end, 10);
    if (end == at || value < 1 || value > 1'000'000 || (*end != ',' && *end != '\0')) return {};
    counts.push_back(value);
    if (*end == '\0') return counts;
    at = end + 1;
  }
}

// One such number; `to` stays as it is when the text is anything else.
inline bool take_count(const std::string& text, int64_t* to) {
  const std::vector<int64_t> counts = counts_from(text);
  if (counts.size() != 1) return false;
  *to = counts.front();
  return true;
}

// Text as a JSON string.
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

}  // namespace polylm_bench
