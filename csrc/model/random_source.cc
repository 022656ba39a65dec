// random_source.cc: weights for benchmarks of shapes whose checkpoint is not at hand. Every shape
// is right, every value a seeded pseudo-random bfloat16 of the wanted spread; nothing is read.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "model/weights.h"
#include "platform/bf16.h"
#include "platform/error.h"
#include "platform/run_on_threads.h"

namespace polylm {
namespace {

class RandomSource final : public TensorSource {
 public:
  RandomSource(uint64_t seed, double stddev, LoadControl control)
      : seed_(seed), control_(std::move(control)) {
    // A uniform distribution of this spread has half width sqrt(3) * stddev.
    for (size_t i = 0; i < kTableSize; ++i) {
      const double u = (2.0 * static_cast<double>(i) + 1.0) / static_cast<double>(kTableSize) - 1.0;
      table_[i] = bf16_from_float(static_cast<float>(u * std::sqrt(3.0) * stddev));
    }
  }

  bool has(const std::string&) const override { return false; }

  void resolve(std::vector<Parameter>& parameters, Precision) override {
    for (Parameter& p : parameters) p.format = WeightFormat::kBf16;
  }

  void read(std::vector<Parameter>& parameters, Ops& ops) override {
    int64_t total = 0;
    for (const Parameter& p : parameters) total += p.n * std::max<int64_t>(1, p.k) * 2;
    int64_t loaded = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      Parameter& p = parameters[i];
      if (control_.cancel->load()) fail(Code::kAborted, "the load was aborted");
      if (p.k == 0) {
        const bool scale = p.name.size() > 7 && p.name.find("ln_") != std::string::npos &&
                           p.name.compare(p.name.size() - 7, 7, ".weight") == 0;
        p.values.assign(static_cast<size_t>(p.n), scale ? 1.0F : 0.0F);
      } else {
        fill(p, seed_ * 1000003 + i, ops);
      }
      loaded += p.n * std::max<int64_t>(1, p.k) * 2;
      if (control_.progress) control_.progress(loaded, total, p.name);
    }
  }

  bool equal(const Parameter&, const Parameter&) override { return true; }
  std::vector<std::string> unused() const override { return {}; }
  std::string fingerprint() const override { return ""; }
  const std::vector<std::string>& warnings() const override { return warnings_; }

 private:
  static constexpr size_t kTableSize = 4096;
  static constexpr int64_t kRows = 64;

  void fill(const Parameter& p, uint64_t seed, Ops& ops) const {
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      std::vector<bf16> rows(static_cast<size_t>(kRows * p.k));
      for (int64_t n0 = kRows * next++; n0 < p.n; n0 = kRows * next++) {
        uint64_t state = seed * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(n0) + 1;
        for (bf16& value : rows) {
          state = state * 6364136223846793005u + 1442695040888963407u;
          value = table_[state >> 52];
        }
        ops.pack_weight(p.weight, {.n0 = n0, .n_count = std::min(kRows, p.n - n0), .k0 = 0,
                                   .k_count = p.k, .stride_n = p.k, .stride_k = 1,
                                   .bf16_data = rows.data(), .fp32_data = nullptr});
      }
    };
    run_on_threads(control_.threads, work);
  }

  uint64_t seed_;
  LoadControl control_;
  bf16 table_[kTableSize] = {};
  std::vector<std::string> warnings_;
};

}  // namespace

std::unique_ptr<TensorSource> make_random_source(uint64_t seed, double stddev,
                                                 LoadControl control) {
  return std::make_unique<RandomSource>(seed, stddev, std::move(control));
}

}  // namespace polylm
