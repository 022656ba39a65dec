// beam_reference.h: Hugging Face's two beam searches again, slowly: whole rows of scores, every
// candidate sorted, every hypothesis a copy. Written from the algorithms' description and sharing
// no code with csrc/engine, so that tests can compare the two over random options.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/request.h"

namespace polylm::test {

struct ReferenceHypothesis {
  std::vector<int32_t> tokens;  // generated, with the stop id
  double score = 0.0;
};

class BeamReference {
 public:
  using Logits = std::function<std::vector<float>(const std::vector<int32_t>&)>;
  // Whether the generated tokens end with the token that completes a stop string.
  using Stops = std::function<bool(const std::vector<int32_t>&)>;

  BeamReference(const SamplingParams& params, std::vector<int32_t> prompt, Logits logits,
                Stops stops)
      : p_(params),
        prompt_(std::move(prompt)),
        logits_(std::move(logits)),
        stops_(std::move(stops)) {
    while (static_cast<int64_t>(pads_.size() + prompt_.size()) < p_.pad_to_length) {
      pads_.push_back(static_cast<int32_t>(p_.pad_to_token));
    }
  }

  // Throws std::runtime_error where 4.31 raises.
  std::vector<ReferenceHypothesis> run() {
    running_ = {{{}, 0.0}};
    for (int64_t step = 0; step < p_.max_tokens; ++step) {
      const std::vector<Candidate> candidates = best_candidates();
      const bool over = p_.beam_scoring == BeamScoring::kHf431 ? step_431(candidates, step)
                                                               : step_455(candidates, step);
      if (over) break;
    }
    if (p_.beam_scoring == BeamScoring::kHf431 && !done_) {
      for (const ReferenceHypothesis& beam : running_) {
        add_431({beam.tokens, beam.score / power(width() + size_of(beam))});
      }
    }
    std::stable_sort(finished_.begin(), finished_.end(), higher);
    if (static_cast<int64_t>(finished_.size()) > p_.n) finished_.resize(static_cast<size_t>(p_.n));
    return finished_;
  }

 private:
  struct Candidate {
    double score;
    size_t beam;
    int32_t token;
  };
  static bool higher(const ReferenceHypothesis& a, const ReferenceHypothesis& b) {
    return a.score > b.score;
  }
  static double size_of(const ReferenceHypothesis& h) {
    return static_cast<double>(h.tokens.size());
  }
  double width() const { return static_cast<double>(pads_.size() + prompt_.size()); }
  double power(double length) const { return std::pow(length, p_.length_penalty); }
  bool is_stop(int32_t id) const {
    return std::count(p_.stop_token_ids.begin(), p_.stop_token_ids.end(), id) > 0;
  }

  static void log_softmax(std::vector<double>* row) {
    double sum = 0.0;
    for (const double s : *row) sum += std::exp(s);
    if (sum == 0.0) return;  // everything is banned
    for (double& s : *row) s -= std::log(sum);
  }

  // log-probabilities after the processors, for the token after these.
  std::vector<double> scores(const std::vector<int32_t>& tokens) const {
    std::vector<int32_t> history = prompt_;
    history.insert(history.end(), tokens.begin(), tokens.end());
    const std::vector<float> logits = logits_(history);
    std::vector<double> row(logits.begin(), logits.end());
    log_softmax(&row);
    std::vector<int32_t> all = pads_;
    all.insert(all.end(), history.begin(), history.end());
    for (const BiasRule& rule : p_.bias) row[static_cast<size_t>(rule.tokens[0])] += rule.value;
    for (size_t id = 0; id < row.size(); ++id) {
      const auto token = static_cast<int32_t>(id);
      if (std::count(all.begin(), all.end(), token) == 0) continue;
      row[id] = row[id] < 0 ? row[id] * p_.repetition_penalty : row[id] / p_.repetition_penalty;
    }
    const auto n = static_cast<size_t>(p_.no_repeat_ngram_size);
    for (size_t i = 0; n > 0 && i + n <= all.size(); ++i) {
      bool same = true;
      for (size_t j = 0; j + 1 < n; ++j) same = same && all[i + j] == all[all.size() - n + 1 + j];
      if (same) row[static_cast<size_t>(all[i + n - 1])] = -kInf;
    }
    for (const int32_t id : p_.stop_token_ids) {
      if (static_cast<int64_t>(tokens.size()) < p_.min_tokens) row[static_cast<size_t>(id)] = -kInf;
    }
    if (p_.renormalize) log_softmax(&row);
    return row;
  }

  std::vector<Candidate> best_candidates() const {
    std::vector<Candidate> all;
    for (size_t b = 0; b < running_.size(); ++b) {
      const std::vector<double> row = scores(running_[b].tokens);
      for (size_t id = 0; id < row.size(); ++id) {
        if (row[id] == -kInf) continue;
        all.push_back({row[id] + running_[b].score, b, static_cast<int32_t>(id)});
      }
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    const size_t stops = p_.stop_token_ids.size();
    const size_t factor =
        p_.beam_scoring == BeamScoring::kHf431 ? 2 : std::max<size_t>(2, 1 + stops);
    all.resize(std::min(all.size(), factor * static_cast<size_t>(p_.num_beams)));
    return all;
  }

  ReferenceHypothesis grown(const Candidate& c) const {
    ReferenceHypothesis out = {running_[c.beam].tokens, c.score};
    out.tokens.push_back(c.token);
    return out;
  }

  void add_431(ReferenceHypothesis hypothesis) {
    if (static_cast<int64_t>(finished_.size()) < p_.num_beams) {
      finished_.push_back(std::move(hypothesis));
      return;
    }
    size_t worst = 0;
    for (size_t i = 1; i < finished_.size(); ++i) {
      if (finished_[i].score < finished_[worst].score) worst = i;
    }
    if (hypothesis.score > finished_[worst].score) {
      finished_.erase(finished_.begin() + static_cast<int64_t>(worst));
      finished_.push_back(std::move(hypothesis));
    }
  }

  bool step_431(const std::vector<Candidate>& candidates, int64_t step) {
    std::vector<ReferenceHypothesis> next;
    for (size_t rank = 0; rank < candidates.size(); ++rank) {
      if (static_cast<int64_t>(next.size()) == p_.num_beams) break;
      ReferenceHypothesis h = grown(candidates[rank]);
      if (!is_stop(candidates[rank].token)) {
        next.push_back(h);
      } else if (static_cast<int64_t>(rank) < p_.num_beams) {
        h.score /= power(width() + static_cast<double>(step));
        add_431(h);
      }
    }
    if (static_cast<int64_t>(next.size()) < p_.num_beams &&
        static_cast<int64_t>(candidates.size()) == 2 * p_.num_beams) {
      throw std::runtime_error("too many stop ids");
    }
    const double best = candidates.empty() ? 0.0 : candidates.front().score;
    running_ = next;
    if (static_cast<int64_t>(finished_.size()) == p_.num_beams) {
      double worst = kInf;
      for (const ReferenceHypothesis& h : finished_) worst = std::min(worst, h.score);
      const double now = width() + static_cast<double>(step) + 1.0;
      const double most = width() + static_cast<double>(p_.max_tokens);
      if (p_.early_stopping == EarlyStopping::kTrue) {
        done_ = true;
      } else if (p_.early_stopping == EarlyStopping::kNever && p_.length_penalty > 0) {
        done_ = worst >= best / power(most);
      } else {
        done_ = worst >= best / power(now);
      }
    }
    return done_ || running_.empty();
  }

  bool step_455(const std::vector<Candidate>& candidates, int64_t step) {
    const double length = static_cast<double>(step) + 1.0;
    const bool full_before = static_cast<int64_t>(finished_.size()) == p_.num_beams;
    std::vector<ReferenceHypothesis> next;
    for (size_t rank = 0; rank < candidates.size(); ++rank) {
      ReferenceHypothesis h = grown(candidates[rank]);
      const bool hits = is_stop(candidates[rank].token) || step + 1 == p_.max_tokens ||
                        stops_(h.tokens);
      if (!hits) {
        if (static_cast<int64_t>(next.size()) < p_.num_beams) next.push_back(h);
      } else if (static_cast<int64_t>(rank) < p_.num_beams &&
                 !(full_before && p_.early_stopping == EarlyStopping::kTrue)) {
        h.score /= power(length);
        finished_.push_back(h);
      }
    }
    std::stable_sort(finished_.begin(), finished_.end(), higher);
    if (static_cast<int64_t>(finished_.size()) > p_.num_beams) {
      finished_.resize(static_cast<size_t>(p_.num_beams));
    }
    running_ = next;
    if (running_.empty()) return true;
    if (static_cast<int64_t>(finished_.size()) < p_.num_beams) return false;
    if (p_.early_stopping == EarlyStopping::kTrue) return true;
    const bool most = p_.early_stopping == EarlyStopping::kNever && p_.length_penalty > 0;
    const double hope = running_.front().score /
                        power(most ? static_cast<double>(p_.max_tokens) : length);
    return !(hope > finished_.back().score);
  }

  static constexpr double kInf = std::numeric_limits<double>::infinity();
  SamplingParams p_;
  std::vector<int32_t> prompt_, pads_;
  Logits logits_;
  Stops stops_;
  std::vector<ReferenceHypothesis> running_, finished_;
  bool done_ = false;
};

}  // namespace polylm::test
