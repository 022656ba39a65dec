// slow_warpers.h: Hugging Face's warpers from their definitions, for tests: whole rows, -inf for
// what is dropped, plain sorting. Shares nothing with csrc/engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "engine/request.h"

namespace polylm::test {

// run gives the probabilities that are left.
class SlowWarpers {
 public:
  explicit SlowWarpers(const std::vector<float>& logits) : s_(logits.begin(), logits.end()) {}

  std::vector<double> run(const SamplingParams& p) {
    for (double& s : s_) s /= static_cast<double>(static_cast<float>(p.temperature));
    if (p.top_k > 0) {
      std::vector<double> sorted = s_;
      std::sort(sorted.rbegin(), sorted.rend());
      const auto k = std::min(static_cast<size_t>(p.top_k), sorted.size());
      drop([&](size_t i) { return s_[i] < sorted[k - 1]; });
    }
    if (p.top_p < 1) top_p(p.top_p);
    if (p.min_p > 0) {
      const std::vector<double> q = probabilities();
      const double best = *std::max_element(q.begin(), q.end());
      drop([&](size_t i) { return q[i] < p.min_p * best; });
    }
    if (p.typical_p < 1) typical(p.typical_p);
    if (p.epsilon_cutoff > 0) cutoff(p.epsilon_cutoff);
    if (p.eta_cutoff > 0) {
      cutoff(std::min(p.eta_cutoff, std::sqrt(p.eta_cutoff) * std::exp(-entropy())));
    }
    return probabilities();
  }

 private:
  void drop(const std::function<bool(size_t)>& dropped) {
    std::vector<bool> all;
    for (size_t i = 0; i < s_.size(); ++i) all.push_back(dropped(i));
    for (size_t i = 0; i < s_.size(); ++i) {
      if (all[i]) s_[i] = -std::numeric_limits<double>::infinity();
    }
  }
  std::vector<double> probabilities() const {
    const double best = *std::max_element(s_.begin(), s_.end());
    std::vector<double> q;
    double sum = 0;
    for (const double s : s_) q.push_back(std::exp(s - best));
    for (const double weight : q) sum += weight;
    for (double& weight : q) weight /= sum;
    return q;
  }
  double entropy() const {
    double sum = 0;
    for (const double q : probabilities()) sum -= q > 0 ? q * std::log(q) : 0;
    return sum;
  }
  std::vector<size_t> order(const std::vector<double>& keys) const {
    std::vector<size_t> ids(keys.size());
    std::iota(ids.begin(), ids.end(), size_t{0});
    std::stable_sort(ids.begin(), ids.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
    return ids;
  }
  void top_p(double p) {
    const std::vector<double> q = probabilities();
    const std::vector<size_t> up = order(s_);
    double sum = 0;
    std::set<size_t> gone;
    for (const size_t id : up) {
      sum += q[id];
      if (sum <= 1 - p && id != up.back()) gone.insert(id);
    }
    drop([&](size_t i) { return gone.count(i) > 0; });
  }
  void typical(double mass) {
    const std::vector<double> q = probabilities();
    const double mean = entropy();
    std::vector<double> shifted;
    for (const double weight : q) shifted.push_back(std::fabs(-std::log(weight) - mean));
    const std::vector<size_t> near = order(shifted);
    double sum = 0;
    size_t last = 0;
    for (; last + 1 < near.size(); ++last) {
      sum += q[near[last]];
      if (sum >= mass) break;
    }
    const double farthest = shifted[near[last]];
    drop([&](size_t i) { return shifted[i] > farthest; });
  }
  void cutoff(double low) {
    const std::vector<double> q = probabilities();
    const double best = *std::max_element(q.begin(), q.end());
    drop([&](size_t i) { return q[i] < low && q[i] < best; });
  }
  std::vector<double> s_;
};

}  // namespace polylm::test
