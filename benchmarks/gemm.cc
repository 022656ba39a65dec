// gemm.cc: products alone, through the device's own interface (bias, result rounded to what the
// next product reads). Up to 16 rows read weights from memory and are held against a read-only
// stream, more rows against multiply-adds in registers. Matrices are taken in turns from copies
// that no cache holds together. Trap: the probes are short, so that they see the same moment.
#include "gemm.h"

#include <cmath>

#include "backends.h"
#include "cpu/probe.h"
#include "platform/cpu_features.h"
#include "turns.h"

namespace polylm_bench {
namespace {

using polylm::Act;
using polylm::ActKind;
using polylm::Epilogue;
using polylm::Ops;
using polylm::SequenceRows;
using polylm::Vector;
using polylm::Weight;

// About two milliseconds: long enough that waking the workers does not count.
constexpr int64_t probe_length(polylm::Isa isa) {
  return int64_t{1} << (isa == polylm::Isa::kAmx ? 16 : 19);
}
constexpr int64_t kStreamRows = 16;
constexpr double kCopiesBytes = 6e8;

struct GemmShape {
  int64_t k;
  int64_t n;
};
constexpr GemmShape kShapes[] = {{2048, 6144},  {2048, 2048},  {2048, 8192},  {8192, 2048},
                                 {5120, 15360}, {5120, 5120}, {5120, 20480}, {20480, 5120}};
constexpr GemmShape kSmokeShapes[] = {{96, 160}, {160, 96}};
constexpr int64_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048};
constexpr size_t kRowCounts = sizeof kRows / sizeof *kRows;

class Gemm {
 public:
  Gemm(const GemmOptions& options, const GemmShape& shape, int64_t most_rows)
      : ops_(polylm::make_ops({.device = "cpu", .threads = options.threads})) {
    const double bytes = 2.0 * static_cast<double>(shape.n * shape.k);
    const int64_t copies =
        options.smoke ? 1 : std::max<int64_t>(2, static_cast<int64_t>(kCopiesBytes / bytes));
    for (int64_t i = 0; i < copies; ++i) {
      weights_.push_back(random_weight(*ops_, shape.n, shape.k));
    }
    const std::vector<float> ones(static_cast<size_t>(shape.n), 0.5F);
    bias_ = ops_->make_vector(ones.data(), shape.n);
    x_ = ops_->make_act(most_rows, shape.k, ActKind::kInput);
    y_ = ops_->make_act(most_rows, shape.n, ActKind::kInput);
    const std::vector<float> x(static_cast<size_t>(most_rows * shape.k), 0.25F);
    ops_->write_act(x_, most_rows, x.data());
    ops_->reserve({most_rows, 1, 1, 0, 1, 16, most_rows});
    tokens_.assign(static_cast<size_t>(most_rows), 0);
    table_.assign(static_cast<size_t>(most_rows), 0);
  }

  void run(int64_t rows, int64_t times) {
    const SequenceRows s = {0, rows, 0, table_.data(), static_cast<int64_t>(table_.size())};
    for (int64_t i = 0; i < times; ++i) {
      ops_->begin({rows, 0, tokens_.data(), &s, 1});
      const Weight& w = weights_[static_cast<size_t>(turn_++) % weights_.size()];
      ops_->linear({x_, w, bias_, Epilogue::kNone, y_});
      ops_->submit();
      ops_->collect();
    }
  }

 private:
  std::unique_ptr<Ops> ops_;
  std::vector<Weight> weights_;
  Vector bias_;
  Act x_, y_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> table_;
  int64_t turn_ = 0;
};

}  // namespace

void run_gemm(const GemmOptions& options) {
  const int64_t threads = options.threads > 0 ? options.threads : polylm::usable_cores();
  const polylm::Isa isa = polylm::isa_from_environment();
  const Report report(options.json);
  const int64_t most_rows = options.smoke ? 64 : 2048;
  polylm::BandwidthProbe stream(threads, options.smoke ? int64_t{1} << 24 : int64_t{1} << 28);
  const auto multiply = [&] { return polylm::cpu_multiply_peak(threads, isa, 1, probe_length(isa)); };
  const auto read = [&] { return stream.pass(); };
  double log_sum[kRowCounts] = {};
  int64_t count[kRowCounts] = {};
  const auto measure_shape = [&](const GemmShape& shape) {
    const std::string name = "gemm " + std::to_string(shape.k) + " to " + std::to_string(shape.n);
    if (name.find(options.only.substr(0, name.size())) == std::string::npos) return;
    Gemm gemm(options, shape, most_rows);
    for (size_t i = 0; i < kRowCounts; ++i) {
      const int64_t rows = kRows[i];
      const std::string line = name + ", " + std::to_string(rows) + " rows";
      if (rows > most_rows || line.find(options.only) == std::string::npos) continue;
      const double size = 2.0 * static_cast<double>(shape.k * shape.n);
      const bool streams = rows <= kStreamRows;
      const double amount = streams ? size / 1e9 : size * static_cast<double>(rows) / 1e12;
      const int64_t times = std::max<int64_t>(1, static_cast<int64_t>(
          streams ? 0.1 / amount : 0.004 / amount));  // some milliseconds
      const Speeds s = take_turns(amount * static_cast<double>(times), options.repeats,
                                  [&] { gemm.run(rows, times); },
                                  streams ? std::function<double()>(read) : multiply);
      report.line(line, streams ? "GB/s" : "TFLOP/s", s);
      log_sum[i] += std::log(s.ratio());
      ++count[i];
    }
  };
  if (options.smoke) {
    for (const GemmShape& shape : kSmokeShapes) measure_shape(shape);
  } else {
    for (const GemmShape& shape : kShapes) measure_shape(shape);
  }
  for (size_t i = 0; i < kRowCounts; ++i) {
    if (count[i] < 2) continue;
    report.mean_line("gemm, " + std::to_string(kRows[i]) + " rows, geometric mean",
                std::exp(log_sum[i] / static_cast<double>(count[i])));
  }
}

}  // namespace polylm_bench
