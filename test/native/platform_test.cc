// platform_test.cc: large buffers, what the machine says about itself, how a device is chosen, and
// the scalar bf16 conversions against each other and against the vector ones.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "backends.h"
#include "cpu/dispatch.h"
#include "harness.h"
#include "platform/bf16.h"
#include "platform/buffer.h"
#include "platform/cpu_features.h"
#include "platform/file.h"
#include "platform/memory_info.h"

namespace polylm::test {
namespace {

#if defined(_WIN32)
void setenv(const char* name, const char* value, int) { _putenv_s(name, value); }
void unsetenv(const char* name) { _putenv_s(name, ""); }
#endif

// Sets a variable of the environment for one scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    const char* old = std::getenv(name);
    had_ = old != nullptr;
    if (had_) old_ = old;
    setenv(name, value, 1);
  }
  ~Environment() {
    if (had_) {
      setenv(name_, old_.c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  bool had_ = false;
  std::string old_;
};

TEST(buffer_is_zeroed_and_aligned) {
  for (const int64_t size : {1, 64, 4096, 5'000'001}) {
    const Buffer buffer(size, "a test");
    EXPECT_EQ(buffer.size_bytes(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, uintptr_t{0});
    EXPECT_EQ(static_cast<int>(buffer.as<char>()[size - 1]), 0);
    buffer.as<char>()[size - 1] = 1;
  }
  const Buffer huge(int64_t{8} << 20, "a test");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(huge.data()) % (2u << 20), uintptr_t{0});
  Buffer moved;
  Buffer from(100, "a test");
  void* at = from.data();
  moved = std::move(from);
  EXPECT_EQ(moved.data(), at);
}

TEST(buffer_refuses_the_impossible) {
  EXPECT_THROWS_CODE(Code::kInsufficientMemory, Buffer(int64_t{1} << 55, "a test"));
  try {
    const Buffer buffer(int64_t{1} << 55, "the KV cache");
  } catch (const Error& e) {
    EXPECT(e.message().find("36028797018963968 bytes") != std::string::npos);
    EXPECT(e.message().find("the KV cache") != std::string::npos);
  }
  set_buffer_fault(2);
  const Buffer first(10, "a test");
  EXPECT_THROWS_CODE(Code::kInsufficientMemory, Buffer(10, "a test"));
  const Buffer third(10, "a test");
  set_buffer_fault(0);
}

TEST(file_times_are_as_exact_as_they_are_told) {
  constexpr int64_t kWhen = 1'795'313'676'037'800'133;
  EXPECT(same_mtime(kWhen, kWhen));
  EXPECT(!same_mtime(kWhen, kWhen + 1));
  EXPECT(same_mtime(kWhen - kWhen % 1'000'000, kWhen));  // told in milliseconds
  EXPECT(!same_mtime(kWhen - kWhen % 1'000'000, kWhen + 1'000'000));
}

TEST(machine_says_something_sensible) {
  EXPECT(!cpu_name().empty());
  EXPECT(usable_cores() >= 1 && usable_cores() <= 4096);
  const MemoryInfo memory = memory_info();
  EXPECT(memory.total_bytes > int64_t{64} << 20);
  EXPECT(memory.free_bytes > 0 && memory.free_bytes <= memory.total_bytes);
  const CpuFeatures& f = cpu_features();
  EXPECT(!f.avx512_bf16 || f.avx512);
  EXPECT(!f.avx512 || f.avx2);
}

TEST(isa_is_chosen_or_refused) {
  EXPECT_EQ(isa_obstacle(Isa::kScalar), std::string());
  EXPECT_EQ(isa_obstacle(best_isa()), std::string());
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    const Environment forced("POLYLM_ISA", isa_name(isa));
    if (!isa_obstacle(isa).empty()) {
      EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cpu"}));
      continue;
    }
    EXPECT_EQ(make_ops({.device = "cpu", .threads = 1})->info().isa, std::string(isa_name(isa)));
    const auto exact = make_ops({.device = "auto", .precision = Precision::kFp32, .threads = 1});
    EXPECT(exact->info().precision == Precision::kFp32);
    EXPECT(exact->info().isa == isa_name(isa) || !exact->info().reason.empty());
  }
  const Environment forced("POLYLM_ISA", "sse9");
  try {
    make_ops({.device = "auto"});
    EXPECT(false);
  } catch (const Error& e) {
    EXPECT_EQ(show(e.code()), show(Code::kDevice));
    EXPECT(e.message().find("\"sse9\"") != std::string::npos);
    EXPECT(e.message().find("scalar") != std::string::npos);
  }
}

TEST(devices_are_named_and_refused) {
  EXPECT_EQ(make_ops({.device = "ref"})->info().kind, std::string("ref"));
  EXPECT_EQ(make_ops({.device = "cpu", .threads = 1})->info().kind, std::string("cpu"));
  const auto automatic = make_ops({.device = "auto", .threads = 1});
  EXPECT(automatic->info().kind == "cpu" ? !automatic->info().reason.empty() : true);
  for (const char* bad : {"gpu", "", "cuda:", "cuda:x", "cpu:0", "cuda:99999"}) {
    EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = bad}));
  }
  EXPECT_THROWS_CODE(Code::kInvalidOption, make_ops({.device = "cpu", .threads = -1}));
  EXPECT_THROWS_CODE(Code::kInvalidOption, make_ops({.device = "cpu", .threads = 100000}));
  const auto devices = list_devices();
  EXPECT(!devices.empty());
  EXPECT_EQ(devices[0].kind, std::string("cpu"));
  EXPECT(devices[0].usable);
  EXPECT(devices[0].memory_bytes > 0);
  for (const DeviceReport& d : devices) EXPECT(d.usable || !d.reason.empty());
}

TEST(yardsticks_are_positive) {
  EXPECT(probe_fma_peak(1, Precision::kFp32) > 0);  // however slow: an emulator is a machine too
  EXPECT(probe_fma_peak(1, Precision::kBf16) > 0);
}

// Every kernel set rounds to bf16 as the scalar function does: all 2^16 values, their neighbours
// in float32, halfway cases, infinities and NaN.
TEST(bf16_rounding_is_the_same_everywhere) {
  std::vector<float> points;
  for (uint32_t high = 0; high < 0x10000u; high += 3) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint32_t bits = high << 16 | low;
      float f = 0.0F;
      std::memcpy(&f, &bits, sizeof f);
      points.push_back(f);
    }
  }
  const auto count = static_cast<int64_t>(points.size());
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!isa_obstacle(isa).empty()) continue;
    const KernelTable& k = kernels_of(isa);
    std::vector<uint16_t> halves(points.size());
    std::vector<float> wide(points.size());
    std::vector<float> back(points.size());
    k.store_inputs(InputKind::kBf16, points.data(), 1.0F, halves.data(), count);
    k.store_inputs(InputKind::kRounded, points.data(), 1.0F, wide.data(), count);
    k.load_inputs(InputKind::kBf16, halves.data(), back.data(), count);
    int64_t wrong = 0;
    for (size_t p = 0; p < points.size(); ++p) {
      const float want = bf16_to_float(bf16_from_float(points[p]));
      const bool nan = std::isnan(points[p]);
      wrong += nan ? !std::isnan(back[p]) || !std::isnan(wide[p])
                   : halves[p] != bf16_from_float(points[p]) || wide[p] != want || back[p] != want;
    }
    EXPECT_EQ(wrong, int64_t{0});
  }
}

TEST(half_is_exact) {
  for (uint32_t h = 0; h < 0x10000u; ++h) {
    const float f = half_to_float(static_cast<uint16_t>(h));
    const uint32_t exponent = (h >> 10) & 0x1fu;
    const double mantissa = h & 0x3ffu;
    const double sign = (h & 0x8000u) != 0 ? -1.0 : 1.0;
    if (exponent == 0x1f) {
      EXPECT(mantissa == 0.0 ? std::isinf(f) : std::isnan(f));
      continue;
    }
    const double want = exponent == 0 ? sign * mantissa * 0x1p-24
                                      : sign * (1.0 + mantissa * 0x1p-10) *
                                            std::ldexp(1.0, static_cast<int>(exponent) - 15);
    EXPECT_EQ(static_cast<double>(f), want);
  }
}

}  // namespace
}  // namespace polylm::test
