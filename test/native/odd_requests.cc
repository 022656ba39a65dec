// odd_requests.cc: see odd_requests.h.
#include "odd_requests.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace polylm::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Where float or double ends, rounds, or has no inverse, and ordinary numbers between them.
const std::vector<double>& odd_reals() {
  static const std::vector<double> all = {
      0.0,     -0.0,   5e-324, 1e-320, 2.3e-308, 1e-300, 1e-46, 7e-46, 1e-45,  1.4e-45,
      1e-40,   1.1e-38, 1.2e-38, 1e-37, 1e-30,  9e-31,  1e-20, 1e-9,  1e-6,   1e-4,
      0.01,    0.1,    0.5,    0.7,    0.9,    0.99999994, 0.99999999, 1.0 - 1.2e-16, 1.0,
      1.0 + 2.3e-16, 1.0000001, 1.3, 2.0, 2.0 + 4.5e-16, 10.0, 99.99999999999999, 100.0,
      100.00000000000001, 1000.0, 1e6, 1e10, 1e30, 3.4028234663852886e38, 3.5e38, 1e308,
      1.7976931348623157e308, kInf, std::numeric_limits<double>::quiet_NaN()};
  return all;
}

double odd_real(Rng& rng) {
  const std::vector<double>& all = odd_reals();
  const double size = all[static_cast<size_t>(pick(rng, 0, static_cast<int64_t>(all.size()) - 1))];
  return chance(rng, 0.4) ? -size : size;
}

double unit(Rng& rng) { return static_cast<double>(rng() >> 11) * 0x1.0p-53; }

// Mostly in the range: an odd number, a bound, or any number of it.
void set_odd(Rng& rng, double low, double high, double* out) {
  if (chance(rng, 0.01)) {
    *out = odd_real(rng);
    return;
  }
  if (chance(rng, 0.2)) *out = low + (high - low) * unit(rng);
  if (chance(rng, 0.1)) *out = chance(rng, 0.5) ? low : high;
  for (int tries = 0; tries < 20; ++tries) {
    const double value = odd_real(rng);
    if (!(value >= low && value <= high)) continue;
    *out = value;
    return;
  }
}

void set_odd(Rng& rng, double low, double high, int64_t* out) {
  const auto least = static_cast<int64_t>(low);
  const auto most = static_cast<int64_t>(high);
  if (chance(rng, 0.01)) {
    *out = chance(rng, 0.5) ? least - 1 : most + 1;
  } else if (chance(rng, 0.05)) {
    *out = chance(rng, 0.5) ? least : most;
  } else {
    *out = pick(rng, least, std::min(most, least + 80));
  }
}

void set_odd(Rng& rng, double, double, bool* out) { *out = chance(rng, 0.5); }

int32_t any_token(Rng& rng, int64_t vocab) {
  return static_cast<int32_t>(chance(rng, 0.5) ? pick(rng, 0, 7) : pick(rng, 0, vocab - 1));
}

std::vector<int32_t> distinct_tokens(Rng& rng, int64_t vocab, int64_t most) {
  std::vector<int32_t> ids;
  for (int64_t i = pick(rng, 1, most); i > 0; --i) ids.push_back(any_token(rng, vocab));
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// Values of all sizes; several rules may hit one token, because prefixes are ends of the prompt.
void add_bias(Rng& rng, int64_t vocab, const std::vector<int32_t>& prompt, SamplingParams* p) {
  const int32_t target = any_token(rng, vocab);
  for (int64_t i = pick(rng, 1, chance(rng, 0.1) ? 60 : 4); i > 0; --i) {
    BiasRule rule;
    const auto most = std::min<int64_t>(4, static_cast<int64_t>(prompt.size()));
    rule.tokens.assign(prompt.end() - pick(rng, 0, most), prompt.end());
    rule.tokens.push_back(chance(rng, 0.4) ? target : any_token(rng, vocab));
    const double value = odd_real(rng);
    if (std::fabs(value) > 3.4028234663852886e38 && chance(rng, 0.9)) {
      rule.value = -std::numeric_limits<float>::infinity();
    } else {
      rule.value = static_cast<float>(std::clamp(value, -3.4028234663852886e38,
                                                 3.4028234663852886e38));
    }
    const auto same = [&](const BiasRule& other) { return other.tokens == rule.tokens; };
    if (std::none_of(p->bias.begin(), p->bias.end(), same)) p->bias.push_back(rule);
  }
}

void add_allow(Rng& rng, int64_t vocab, SamplingParams* p) {
  if (chance(rng, 0.6)) {
    if (vocab > 1100 && chance(rng, 0.5)) {  // more than can be listed
      for (int32_t id = 0; id < 1100; ++id) p->allow_tokens.push_back(id);
    } else {
      p->allow_tokens = distinct_tokens(rng, vocab, 12);
    }
    return;
  }
  for (int64_t i = pick(rng, 1, 4); i > 0; --i) {
    std::vector<int32_t> choice;
    for (int64_t k = pick(rng, 1, 3); k > 0; --k) choice.push_back(any_token(rng, vocab));
    if (std::find(p->allow_choices.begin(), p->allow_choices.end(), choice) ==
        p->allow_choices.end()) {
      p->allow_choices.push_back(choice);
    }
  }
}

// What contradicts is mostly made consistent: a refused request tries nothing.
void make_consistent(Rng& rng, int64_t vocab, SamplingParams* p) {
  const int64_t tokens = chance(rng, 0.03) ? p->max_tokens : pick(rng, 1, 6);
  p->max_tokens = tokens;
  if (chance(rng, 0.02)) return;
  p->min_tokens = p->min_tokens > 80 ? p->min_tokens : std::min(p->min_tokens, p->max_tokens);
  if (p->num_beams > 1 && chance(rng, 0.9)) p->num_beams = 2 + p->num_beams % 5;
  if (p->num_beams > 1 && p->temperature > 0.0) p->sample_beams = true;
  if (p->num_beams <= 1 && p->temperature == 0.0) p->n = 1;
  if (p->num_beams > 1) p->n = std::min(p->n, p->num_beams);
  if (p->n > 4 && chance(rng, 0.9)) p->n = 1;
  if (p->num_beams > 1 || p->n > 1) p->speculate_lookup = false;
  if (p->pad_to_length > 60) p->pad_to_length = 60;
  const auto token = [vocab](int64_t id) { return id < 0 ? id : id % vocab; };
  p->forced_first_token = chance(rng, 0.5) ? -1 : token(p->forced_first_token);
  p->forced_last_token = chance(rng, 0.5) ? -1 : token(p->forced_last_token);
  p->pad_to_token = token(p->pad_to_token);
  if (!p->allow_tokens.empty() || !p->allow_choices.empty()) {
    p->forced_first_token = p->forced_last_token = -1;
  }
  if (p->beam_scoring == BeamScoring::kHf431 && p->num_beams > 1) p->stop.clear();
}

}  // namespace

SamplingParams odd_params(Rng& rng, int64_t vocab, const std::vector<int32_t>& prompt, bool text) {
  SamplingParams p;
  const double often = 0.05 + 0.35 * unit(rng);
#define ROW(name, js_name, type, min, max, value, meaning)                  \
  if (chance(rng, often)) {                                                 \
    set_odd(rng, static_cast<double>(min), static_cast<double>(max), &p.name); \
  }
#include "engine/sampling_params.def"
#undef ROW
  if (chance(rng, 0.4)) set_odd(rng, 0.0, 100.0, &p.temperature);
  p.early_stopping = static_cast<EarlyStopping>(pick(rng, 0, 2));
  p.beam_scoring = static_cast<BeamScoring>(pick(rng, 0, 1));
  if (chance(rng, 0.6)) p.stop_token_ids = distinct_tokens(rng, vocab, chance(rng, 0.1) ? 20 : 2);
  if (chance(rng, 0.3)) add_bias(rng, vocab, prompt, &p);
  if (chance(rng, 0.15)) add_allow(rng, vocab, &p);
  if (text && chance(rng, 0.2)) p.stop = {chance(rng, 0.5) ? "a" : "xab"};
  make_consistent(rng, vocab, &p);
  return p;
}

Request odd_request(Rng& rng, int64_t vocab, bool text) {
  Request request;
  PromptPart part;
  for (int64_t i = pick(rng, 1, 8); i > 0; --i) part.ids.push_back(any_token(rng, vocab));
  request.prompt.push_back(part);
  request.stream = chance(rng, 0.5);
  request.batch = chance(rng, 0.2);
  request.max_tokens_given = chance(rng, 0.9);
  request.truncate_left = chance(rng, 0.1);
  const auto length = static_cast<int64_t>(part.ids.size());
  const int64_t kind = pick(rng, 0, 19);
  if (kind == 0) {
    request.kind = RequestKind::kScore;
    request.score_from = pick(rng, 0, length + 1);
    request.score_top = pick(rng, 0, 20);
  } else if (kind == 1) {
    request.kind = RequestKind::kLogits;
    for (int64_t i = pick(rng, 1, 6); i > 0; --i) {
      request.logits_positions.push_back(pick(rng, -length - 1, length));
    }
  } else {
    request.params = odd_params(rng, vocab, part.ids, text);
  }
  return request;
}

}  // namespace polylm::test
