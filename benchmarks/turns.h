// turns.h: work and probe in turns, and one line per result. Not here: what is measured.
// Trap: on a shared machine a speed means nothing without the probe of the same moment, and probes
// before and after that disagree mean that the moment itself changed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "measure.h"
#include "ops/ops.h"
#include "platform/bf16.h"

namespace polylm_bench {

// What one kind of work reached: its speed and that of the probe next to it, run by run.
struct Speeds {
  std::vector<double> value;
  std::vector<double> probe;
  bool noisy = false;  // probes before and after disagreed too often

  double ratio() const {
    std::vector<double> ratios;
    for (size_t i = 0; i < value.size(); ++i) ratios.push_back(value[i] / probe[i]);
    return median(ratios);
  }
};

inline double best(const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); }

// Work and probe take turns, so that both see the same machine. A run whose probes before and after
// differ by more than a tenth is repeated; four times as many runs as asked for in all.
inline Speeds take_turns(double amount, int64_t repeats, const std::function<void()>& f,
                         const std::function<double()>& probe) {
  f();
  Speeds all;
  Speeds quiet;
  double before = probe();
  for (int64_t i = 0; i < 4 * repeats && static_cast<int64_t>(quiet.value.size()) < repeats; ++i) {
    const double value = amount / seconds_of(f);
    const double after = probe();
    const double mean = (before + after) / 2.0;
    const bool agree = std::abs(before - after) <= 0.1 * mean;
    before = after;
    all.value.push_back(value);
    all.probe.push_back(mean);
    if (!agree) continue;
    quiet.value.push_back(value);
    quiet.probe.push_back(mean);
  }
  all.noisy = true;
  return 2 * static_cast<int64_t>(quiet.value.size()) >= repeats ? quiet : all;
}

// Prints one line per result, as text or as one JSON object. ratio: median of value over the probes
// of the same moment; best: the fastest run over the fastest probe.
class Report {
 public:
  explicit Report(bool json) : json_(json) {}
  void line(const std::string& name, const char* unit, const Speeds& s) const {
    const double value = median(s.value);
    const double probe = median(s.probe);
    const double best_ratio = best(s.value) / best(s.probe);
    if (json_) {
      std::printf("{\"name\":\"%s\",\"unit\":\"%s\",\"value\":%.4f,\"probe\":%.4f,"
                  "\"ratio\":%.4f,\"best\":%.4f,\"best_probe\":%.4f,\"best_ratio\":%.4f,"
                  "\"noisy\":%s}\n",
                  name.c_str(), unit, value, probe, s.ratio(), best(s.value), best(s.probe),
                  best_ratio, s.noisy ? "true" : "false");
    } else {
      std::printf("%-30s %8.3f of %8.3f %-7s ratio %.2f   best %8.3f of %8.3f = %.2f%s\n",
                  name.c_str(), value, probe, unit, s.ratio(), best(s.value), best(s.probe),
                  best_ratio, s.noisy ? "   noisy" : "");
    }
    std::fflush(stdout);
  }
  void mean_line(const std::string& name, double ratio) const {
    if (json_) {
      std::printf("{\"name\":\"%s\",\"ratio\":%.4f}\n", name.c_str(), ratio);
    } else {
      std::printf("%-58s ratio %.2f\n", name.c_str(), ratio);
    }
    std::fflush(stdout);
  }

 private:
  bool json_;
};

// Row n is n numbers further in one random line: what is multiplied does not change how fast, but
// equal rows would make all logits candidates.
inline polylm::Weight random_weight(polylm::Ops& ops, int64_t n, int64_t k) {
  std::vector<uint16_t> line(static_cast<size_t>(n + k));
  uint32_t state = static_cast<uint32_t>(n * 31 + k);
  for (uint16_t& x : line) {
    state = state * 1664525u + 1013904223u;
    x = polylm::bf16_from_float((static_cast<float>(state >> 8) * 0x1.0p-23F - 1.0F) /
                                std::sqrt(static_cast<float>(k)));
  }
  const polylm::Weight w = ops.make_weight(n, k, polylm::WeightFormat::kBf16);
  polylm::WeightPiece piece;
  piece.n_count = n;
  piece.k_count = k;
  piece.stride_n = 1;
  piece.stride_k = 1;
  piece.bf16_data = line.data();
  ops.pack_weight(w, piece);
  return w;
}

}  // namespace polylm_bench
