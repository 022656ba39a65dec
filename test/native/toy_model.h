// toy_model.h: a model that is a hash function, and a driver that feeds its logits to a Decoder the
// way the engine does: listed tokens, candidates, sums, full rows only where they were asked for.
// It checks the driver's side of the contract: drained text and tokens are exactly the outputs'.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "harness.h"
#include "platform/philox.h"

namespace polylm::test {

// Uniform numbers from a counter.
class Random {
 public:
  explicit Random(uint64_t key) : key_(key) {}
  double unit() { return philox_uniform(key_, 7, static_cast<uint32_t>(next_++), 3); }
  int64_t below(int64_t n) { return static_cast<int64_t>(unit() * static_cast<double>(n)); }
  bool chance(double p) { return unit() < p; }
  template <class T>
  T pick(const std::vector<T>& from) {
    return from[static_cast<size_t>(below(static_cast<int64_t>(from.size())))];
  }

 private:
  uint64_t key_;
  uint64_t next_ = 0;
};

// Logits of the token after `history`: a hash of all of it, so that no two hypotheses have equal
// sums (ties would be decided by the last bit, in which two implementations may differ).
struct ToyModel {
  uint64_t key = 1;
  int64_t vocab = 10;
  double spread = 4.0;

  std::vector<float> logits(const std::vector<int32_t>& history) const {
    uint64_t hash = key;
    for (const int32_t id : history) {
      hash = (hash ^ static_cast<uint64_t>(id + 1)) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 29;
    }
    std::vector<float> row;
    for (int64_t id = 0; id < vocab; ++id) {
      const double u = philox_uniform(hash, 0, 0, static_cast<uint32_t>(id));
      const double v = philox_uniform(hash, 1, 0, static_cast<uint32_t>(id));
      row.push_back(static_cast<float>(spread * (u + v - 1.0)));
    }
    return row;
  }
};

// What a device's select returns for one row of logits.
struct ToySelect {
  std::vector<float> listed_logits, candidate_logits;
  std::vector<int32_t> candidate_ids;
  SelectResult result;

  ToySelect(const std::vector<float>& logits, const std::vector<int32_t>& listed,
            double temperature, int64_t candidates) {
    std::vector<bool> is_listed(logits.size());
    for (const int32_t id : listed) {
      EXPECT(!is_listed[static_cast<size_t>(id)]);
      is_listed[static_cast<size_t>(id)] = true;
      listed_logits.push_back(logits[static_cast<size_t>(id)]);
    }
    std::vector<int32_t> rest;
    for (size_t id = 0; id < logits.size(); ++id) {
      if (!is_listed[id]) rest.push_back(static_cast<int32_t>(id));
    }
    std::stable_sort(rest.begin(), rest.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    result.rest_max = -std::numeric_limits<float>::infinity();
    if (!rest.empty()) result.rest_max = logits[static_cast<size_t>(rest.front())];
    for (const int32_t id : rest) {
      const double distance = static_cast<double>(logits[static_cast<size_t>(id)]) -
                              static_cast<double>(result.rest_max);
      result.rest_sum_exp += std::exp(distance);
      result.rest_sum_exp_tempered += std::exp(distance / temperature);
    }
    rest.resize(std::min(rest.size(), static_cast<size_t>(candidates)));
    for (const int32_t id : rest) candidate_logits.push_back(logits[static_cast<size_t>(id)]);
    candidate_ids = rest;
    for (const float logit : logits) {
      if (std::isnan(logit) || logit == std::numeric_limits<float>::infinity()) {
        result.finite = false;
      }
    }
  }
  const SelectResult& get() {
    result.listed_logits = listed_logits.data();
    result.candidate_ids = candidate_ids.data();
    result.candidate_logits = candidate_logits.data();
    result.candidate_count = static_cast<int64_t>(candidate_ids.size());
    return result;
  }
};

class ToyFullRows final : public FullRows {
 public:
  std::vector<std::vector<float>> rows;
  std::vector<bool> kept;
  int64_t fetched = 0;
  const float* row(int64_t index) override {
    EXPECT(kept.at(static_cast<size_t>(index)));
    ++fetched;
    return rows.at(static_cast<size_t>(index)).data();
  }
};

struct ToyRun {
  std::vector<OutputResult> outputs;
  int64_t steps = 0;
  int64_t full_rows = 0;  // fetched
};

struct ToyOptions {
  int64_t candidates = kCandidates;
  int64_t abort_after = -1;  // steps
  bool drain = true;
  std::shared_ptr<const Tokenizer> tokenizer;
};

using LogitsOf = std::function<std::vector<float>(const std::vector<int32_t>&)>;

inline void check_deltas(const std::vector<OutputDelta>& deltas,
                         const std::vector<OutputResult>& outputs, bool beams) {
  std::map<int32_t, std::string> text;
  std::map<int32_t, std::vector<int32_t>> tokens;
  for (const OutputDelta& delta : deltas) {
    text[delta.output] += delta.text;
    for (const TokenInfo& info : delta.tokens) tokens[delta.output].push_back(info.id);
  }
  const size_t count = beams ? std::min<size_t>(1, outputs.size()) : outputs.size();
  for (size_t k = 0; k < count; ++k) {
    EXPECT_EQ(text[static_cast<int32_t>(k)], outputs[k].text);
    EXPECT(tokens[static_cast<int32_t>(k)] == outputs[k].tokens);
  }
  EXPECT(text.size() <= std::max<size_t>(1, count));
}

// Runs a request to its end (or to the abort) and returns its outputs.
inline ToyRun run_toy(const SamplingParams& params, const std::vector<int32_t>& prompt,
                      int64_t vocab, const LogitsOf& logits, const ToyOptions& options = {}) {
  ToyRun run;
  auto decoder = make_decoder(params, prompt, params.max_tokens, vocab, options.tokenizer);
  std::vector<std::vector<int32_t>> histories = {prompt};
  std::vector<OutputDelta> deltas;
  while (decoder->width() > 0 && run.steps != options.abort_after) {
    const int64_t width = decoder->width();
    EXPECT(width <= decoder->width_max());
    EXPECT_EQ(width, static_cast<int64_t>(histories.size()));
    std::vector<std::vector<int32_t>> listed(static_cast<size_t>(width));
    std::vector<ToySelect> selects;
    std::vector<SelectResult> results;
    ToyFullRows full;
    for (int64_t h = 0; h < width; ++h) {
      const auto at = static_cast<size_t>(h);
      const SelectNeeds needs = decoder->needs(h, &listed[at]);
      full.rows.push_back(logits(histories[at]));
      full.kept.push_back(needs.keep_full);
      selects.emplace_back(full.rows.back(), listed[at], static_cast<double>(needs.temperature),
                           options.candidates);
    }
    for (ToySelect& select : selects) results.push_back(select.get());
    std::vector<Transition> next;
    decoder->advance(results.data(), listed.data(), full, &next);
    run.full_rows += full.fetched;
    ++run.steps;
    if (options.drain) decoder->drain(&deltas);
    std::vector<std::vector<int32_t>> grown;
    for (const Transition& t : next) {
      grown.push_back(histories[static_cast<size_t>(t.parent)]);
      grown.back().push_back(t.token);
    }
    histories = std::move(grown);
  }
  run.outputs = decoder->finish(decoder->width() > 0);
  decoder->drain(&deltas);
  EXPECT_EQ(decoder->width(), int64_t{0});
  check_deltas(deltas, run.outputs, params.num_beams > 1);
  return run;
}

inline ToyRun run_toy(const SamplingParams& params, const std::vector<int32_t>& prompt,
                      const ToyModel& model, const ToyOptions& options = {}) {
  return run_toy(params, prompt, model.vocab,
                 [&](const std::vector<int32_t>& history) { return model.logits(history); },
                 options);
}

}  // namespace polylm::test
