// decoder_test.cc: greedy and sampling: exact distributions, candidates against full rows, noise
// that depends on nothing else, stop rules, text and log-probabilities. What is refused is in
// params_test.cc.
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "harness.h"
#include "slow_warpers.h"
#include "tokenizer_fixture.h"
#include "toy_model.h"

namespace polylm::test {
namespace {

const std::vector<int32_t> kPrompt = {1, 2};

SamplingParams sampling(double temperature, int64_t max_tokens) {
  SamplingParams p;
  p.temperature = temperature;
  p.max_tokens = max_tokens;
  return p;
}

void random_warpers(Random* random, SamplingParams* p) {
  p->temperature = 0.3 + 1.5 * random->unit();
  if (random->chance(0.3)) p->top_k = 1 + random->below(100);
  if (random->chance(0.4)) p->top_p = random->unit();
  if (random->chance(0.3)) p->min_p = 0.3 * random->unit();
  if (random->chance(0.2)) p->typical_p = 0.05 + 0.9 * random->unit();
  if (random->chance(0.2)) p->epsilon_cutoff = 0.05 * random->unit();
  if (random->chance(0.2)) p->eta_cutoff = 0.05 * random->unit();
}

constexpr int32_t kFirstByte = 9;
constexpr int64_t kLetters = 9 + 256;  // ids

std::shared_ptr<const Tokenizer> letters() {
  std::vector<TestPiece> pieces;
  for (const char* text : {"a", "b", "ab", "ba", "c", "\xE2\x96\x81"}) {
    pieces.push_back({text, -1.0F});
  }
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
    pieces.push_back({text, -1.0F, PieceType::kByte});
  }
  TokenizerTables tables = tables_of(ModelKind::kUnigram, pieces);
  tables.byte_fallback = true;
  tables.id_limit = static_cast<int32_t>(kLetters);
  return Tokenizer::create(tables);
}

// A model that says exactly these tokens.
LogitsOf script(const std::vector<int32_t>& tokens, int64_t vocab) {
  return [tokens, vocab](const std::vector<int32_t>& history) {
    std::vector<float> row(static_cast<size_t>(vocab), 0.0F);
    const size_t at = history.size() - kPrompt.size();
    if (at < tokens.size()) row[static_cast<size_t>(tokens[at])] = 20.0F;
    return row;
  };
}

}  // namespace

// The decoder's distribution is read off by counting; every kept token must be there and no other.
TEST(sampling_has_the_exact_distribution) {
  Random random(seed());
  constexpr int kDraws = 1500;
  double worst = 0;
  for (int round = 0; round < 60; ++round) {
    const ToyModel model = {.key = static_cast<uint64_t>(round), .vocab = 12, .spread = 3.0};
    SamplingParams params = sampling(1.0, 1);
    random_warpers(&random, &params);
    if (round < 6) params = sampling(0.5 + 0.3 * round, 1);  // pure temperature: the tail by id
    const std::vector<double> q = SlowWarpers(model.logits(kPrompt)).run(params);
    std::vector<int> seen(q.size());
    ToyOptions options;
    options.candidates = params.top_k > 0 && params.top_k < kCandidates ? kCandidates : 4;
    options.drain = false;
    for (int i = 0; i < kDraws; ++i) {
      params.seed = i + 1000 * round;
      ++seen[static_cast<size_t>(run_toy(params, kPrompt, model, options).outputs[0].tokens[0])];
    }
    double chi2 = 0;
    double df = -1;
    for (size_t id = 0; id < q.size(); ++id) {
      if (q[id] == 0.0) EXPECT_EQ(seen[id], 0);
      const double expected = q[id] * kDraws;
      if (expected < 1) continue;
      chi2 += (seen[id] - expected) * (seen[id] - expected) / expected;
      ++df;
    }
    worst = std::max(worst, (chi2 - df) / std::sqrt(2 * std::max(1.0, df)));
  }
  EXPECT(worst < 6);  // 60 tests; a wrong rule is off by hundreds
}

// Whatever number of candidates select returns, the same noise means the same token.
TEST(candidates_and_full_rows_give_the_same_token) {
  Random random(seed() + 1);
  int64_t fetched_with_few = 0;
  int rounds_without = 0;
  for (int round = 0; round < 2000; ++round) {
    const ToyModel model = {.key = static_cast<uint64_t>(round) + 50000,
                            .vocab = 100 + random.below(200),
                            .spread = 1.0 + 6.0 * random.unit()};
    SamplingParams params = sampling(1.0, 4);
    random_warpers(&random, &params);
    // Without any cut the order of the CDF itself depends on the 64 candidates.
    if (params.top_p == 1.0 && params.min_p == 0.0) params.top_p = 0.9;
    if (random.chance(0.3)) params.repetition_penalty = 1.3;
    if (random.chance(0.3)) params.bias = {{{5}, 4.0F}, {{6}, -3.0F}, {{7}, -3.0F}};
    params.seed = round;
    const bool narrow = params.top_k > 0 && params.top_k < kCandidates;
    ToyOptions few;
    few.candidates = narrow ? kCandidates : 1 + random.below(64);
    ToyOptions all;
    all.candidates = model.vocab;
    const ToyRun a = run_toy(params, kPrompt, model, few);
    const ToyRun b = run_toy(params, kPrompt, model, all);
    EXPECT(a.outputs[0].tokens == b.outputs[0].tokens);
    EXPECT_EQ(b.full_rows, int64_t{0});
    fetched_with_few += a.full_rows;
    rounds_without += a.full_rows == 0;
  }
  EXPECT(fetched_with_few > 500);
  EXPECT(rounds_without > 500);
}

// The order of the CDF, spelled out: the 64 best by rank, then all others by id. A vocabulary of
// several blocks, so that sums over blocks and the tokens left out of them matter.
TEST(pure_sampling_is_this_inverse_cdf) {
  const ToyModel model = {.key = 71, .vocab = 5000, .spread = 1.0};
  const auto slow = [&](const std::vector<int32_t>& history, double u) {
    const std::vector<float> row = model.logits(history);
    std::vector<int32_t> order(row.size());
    std::iota(order.begin(), order.end(), 0);
    const auto best = order.begin() + kCandidates;
    std::partial_sort(order.begin(), best, order.end(), [&](int32_t a, int32_t b) {
      return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
    });
    std::sort(best, order.end());
    double total = 0;
    for (const float logit : row) total += std::exp(static_cast<double>(logit));
    double sum = 0;
    for (const int32_t id : order) {
      sum += std::exp(static_cast<double>(row[static_cast<size_t>(id)])) / total;
      if (sum > u) return id;
    }
    return order.back();
  };
  SamplingParams params = sampling(1.0, 3);
  params.n = 16;
  std::set<int32_t> firsts;
  for (int64_t s = 0; s < 20; ++s) {
    params.seed = s;
    const std::vector<OutputResult> outputs = run_toy(params, kPrompt, model).outputs;
    for (uint32_t k = 0; k < 16; ++k) {
      std::vector<int32_t> history = kPrompt;
      for (uint32_t t = 0; t < 3; ++t) {
        const double u = philox_uniform(static_cast<uint64_t>(s), k, t, 0);
        const int32_t token = outputs[k].tokens[t];
        EXPECT_EQ(token, slow(history, u));
        history.push_back(token);
      }
      firsts.insert(history[2]);
    }
  }
  EXPECT(firsts.size() > 250);  // nearly all fall into the tail
}

TEST(noise_depends_on_seed_output_and_step_only) {
  const ToyModel model = {.key = 5, .vocab = 90, .spread = 2.0};
  SamplingParams params = sampling(1.0, 6);
  params.seed = 42;
  params.stop_token_ids = {3, 4, 5, 6, 7, 8, 9};  // some outputs end early
  std::vector<std::vector<OutputResult>> runs;
  for (const int64_t n : {1, 4, 16}) {
    params.n = n;
    runs.push_back(run_toy(params, kPrompt, model).outputs);
    EXPECT_EQ(static_cast<int64_t>(runs.back().size()), n);
  }
  std::set<size_t> lengths;
  for (size_t k = 0; k < 16; ++k) {
    if (k < 1) EXPECT(runs[0][k].tokens == runs[2][k].tokens);
    if (k < 4) EXPECT(runs[1][k].tokens == runs[2][k].tokens);
    lengths.insert(runs[2][k].tokens.size());
  }
  EXPECT(lengths.size() > 1);
}

TEST(greedy_takes_the_first_maximum_of_the_processed_row) {
  Random random(seed() + 2);
  for (int round = 0; round < 500; ++round) {
    const ToyModel model = {.key = static_cast<uint64_t>(round) + 9, .vocab = 70 + random.below(60),
                            .spread = 4.0};
    SamplingParams params = sampling(0.0, 8);
    params.repetition_penalty = 1.0 + random.unit();
    params.no_repeat_ngram_size = random.below(3);
    params.presence_penalty = random.unit();
    params.stop_token_ids = {static_cast<int32_t>(random.below(model.vocab))};
    params.min_tokens = random.below(9);
    params.top_k = 3;  // inert
    const std::vector<int32_t> got = run_toy(params, kPrompt, model).outputs[0].tokens;
    std::vector<int32_t> row = kPrompt;
    for (size_t t = 0; t < got.size(); ++t) {
      std::vector<float> s = model.logits(row);
      for (size_t id = 0; id < s.size(); ++id) {
        const auto token = static_cast<int32_t>(id);
        const bool in_row = std::count(row.begin(), row.end(), token) > 0;
        const bool generated = std::count(row.begin() + 2, row.end(), token) > 0;
        const auto penalty = static_cast<float>(params.repetition_penalty);
        if (in_row) s[id] = s[id] < 0 ? s[id] * penalty : s[id] / penalty;
        if (generated) s[id] -= static_cast<float>(params.presence_penalty);
        for (size_t i = 0; i + 1 < row.size() && params.no_repeat_ngram_size == 2; ++i) {
          if (row[i] == row.back() && row[i + 1] == token) s[id] = -1e9F;
        }
        if (in_row && params.no_repeat_ngram_size == 1) s[id] = -1e9F;
        if (token == params.stop_token_ids[0] && static_cast<int64_t>(t) < params.min_tokens) {
          s[id] = -1e9F;
        }
      }
      EXPECT_EQ(got[t], static_cast<int32_t>(std::max_element(s.begin(), s.end()) - s.begin()));
      row.push_back(got[t]);
    }
    const bool stopped = got.back() == params.stop_token_ids[0];
    EXPECT(stopped || got.size() == 8);
  }
  // Equal logits everywhere: the lowest id.
  const LogitsOf flat = [](const auto&) { return std::vector<float>(200, 1.5F); };
  EXPECT_EQ(run_toy(sampling(0.0, 1), kPrompt, 200, flat).outputs[0].tokens[0], 0);
}

TEST(padding_counts_as_a_padded_batch_row) {
  const LogitsOf model = [](const auto&) { return std::vector<float>{3.0F, 2.9F, 1.0F, 0.0F}; };
  SamplingParams params = sampling(0.0, 1);
  params.repetition_penalty = 2.0;
  EXPECT_EQ(run_toy(params, kPrompt, 4, model).outputs[0].tokens[0], 0);
  params.pad_to_length = 5;
  params.pad_to_token = 0;
  EXPECT_EQ(run_toy(params, kPrompt, 4, model).outputs[0].tokens[0], 0);  // 1.5 against 1.45
  params.no_repeat_ngram_size = 1;
  EXPECT_EQ(run_toy(params, kPrompt, 4, model).outputs[0].tokens[0], 3);
  params.pad_to_length = 1;
  EXPECT_THROWS_CODE(Code::kInvalidOption, run_toy(params, kPrompt, 4, model));
}

TEST(allow_lists_long_and_short) {
  const ToyModel model = {.key = 8, .vocab = 4000, .spread = 5.0};
  for (const int64_t count : {1, 40, 1024, 1025, 3000}) {
    for (const double temperature : {0.0, 0.9}) {
      SamplingParams params = sampling(temperature, 3);
      for (int64_t i = 0; i < count; ++i) {
        params.allow_tokens.push_back(static_cast<int32_t>(3999 - i));
      }
      params.repetition_penalty = 1.1;
      const std::vector<int32_t> tokens = run_toy(params, kPrompt, model).outputs[0].tokens;
      std::vector<int32_t> history = kPrompt;
      for (const int32_t token : tokens) EXPECT(token > 3999 - count);
      if (temperature > 0 || count == 1) continue;
      const std::vector<float> row = model.logits(kPrompt);
      const auto best = std::max_element(row.end() - count, row.end());
      EXPECT_EQ(tokens[0], static_cast<int32_t>(best - row.begin()));
    }
  }
}

TEST(choices_force_one_of_them) {
  const ToyModel model = {.key = 12, .vocab = 50, .spread = 3.0};
  SamplingParams params = sampling(1.0, 5);
  params.n = 16;
  params.allow_choices = {{5, 6, 7}, {5, 6}, {9}};
  params.stop_token_ids = {2};
  std::set<std::vector<int32_t>> seen;
  for (int64_t s = 0; s < 30; ++s) {
    params.seed = s;
    for (const OutputResult& output : run_toy(params, kPrompt, model).outputs) {
      std::vector<int32_t> tokens = output.tokens;
      EXPECT(output.finish_reason == FinishReason::kStop);
      EXPECT_EQ(tokens.back(), 2);
      tokens.pop_back();
      EXPECT(std::count(params.allow_choices.begin(), params.allow_choices.end(), tokens) == 1);
      seen.insert(tokens);
    }
  }
  EXPECT_EQ(seen.size(), size_t{3});
  params.stop_token_ids.clear();
  params.allow_choices = {{5, 6, 7}, {9}};
  for (const OutputResult& output : run_toy(params, kPrompt, model).outputs) {
    const auto& all = params.allow_choices;
    EXPECT(std::count(all.begin(), all.end(), output.tokens) == 1);
    EXPECT(output.finish_reason == FinishReason::kStop);
    EXPECT_EQ(output.stopped_by_token, -1);
  }
}

TEST(forced_tokens_first_and_last) {
  const ToyModel model = {.key = 12, .vocab = 50, .spread = 3.0};
  SamplingParams params = sampling(0.0, 4);
  params.forced_first_token = 17;
  params.forced_last_token = 18;
  const OutputResult output = run_toy(params, kPrompt, model).outputs[0];
  EXPECT_EQ(output.tokens.size(), size_t{4});
  EXPECT_EQ(output.tokens.front(), 17);
  EXPECT_EQ(output.tokens.back(), 18);
  params.stop_token_ids = {18};
  const OutputResult stopped = run_toy(params, kPrompt, model).outputs[0];
  EXPECT(stopped.finish_reason == FinishReason::kStop);
  EXPECT_EQ(stopped.stopped_by_token, 18);
}

TEST(no_token_left_is_an_error_of_the_request) {
  const LogitsOf model = [](const auto&) { return std::vector<float>(3, 0.0F); };
  SamplingParams params = sampling(0.0, 4);
  params.no_repeat_ngram_size = 1;
  EXPECT_THROWS_CODE(Code::kInvalidOption, run_toy(params, kPrompt, 3, model));
  params.num_beams = 2;
  params.max_tokens = 1;
  EXPECT_EQ(run_toy(params, kPrompt, 3, model).outputs.size(), size_t{1});
}

TEST(bad_logits_are_numeric_errors) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    const LogitsOf model = [bad](const auto&) { return std::vector<float>{0.0F, bad, 1.0F}; };
    SamplingParams params = sampling(0.0, 4);
    EXPECT_THROWS_CODE(Code::kNumeric, run_toy(params, kPrompt, 3, model));
    params.num_beams = 2;
    EXPECT_THROWS_CODE(Code::kNumeric, run_toy(params, kPrompt, 3, model));
  }
  // -inf alone is legal: such a token has no probability.
  const float none = -std::numeric_limits<float>::infinity();
  const LogitsOf masked = [none](const auto&) { return std::vector<float>{none, 0.0F, none}; };
  EXPECT_EQ(run_toy(sampling(1.0, 1), kPrompt, 3, masked).outputs[0].tokens[0], 1);
}

TEST(stop_strings_cut_text_and_keep_tokens) {
  ToyOptions options;
  options.tokenizer = letters();
  SamplingParams params = sampling(0.0, 10);
  params.stop = {"bab", "cc"};
  params.logprobs = 0;
  // "a" "ab" "ab": the second "ab" completes "bab" at its last byte.
  const LogitsOf says = script({3, 5, 5, 7, 7}, kLetters);
  OutputResult output = run_toy(params, {1, 4}, kLetters, says, options).outputs[0];
  EXPECT_EQ(output.text, std::string("aa"));
  EXPECT(output.tokens == (std::vector<int32_t>{3, 5, 5}));
  EXPECT(output.finish_reason == FinishReason::kStop);
  EXPECT_EQ(output.stopped_by_string, 0);
  EXPECT_EQ(output.stopped_by_token, -1);
  EXPECT_EQ(output.logprobs[1].text_begin, 1);
  EXPECT_EQ(output.logprobs[1].text_end, 2);
  EXPECT_EQ(output.logprobs[2].text_begin, 2);
  params.include_stop = true;
  output = run_toy(params, {1, 4}, kLetters, says, options).outputs[0];
  EXPECT_EQ(output.text, std::string("aabab"));
  EXPECT_EQ(output.logprobs[2].text_end, 5);
}

TEST(characters_over_several_tokens_come_whole) {
  const auto byte = [](int32_t value) { return kFirstByte + value; };
  ToyOptions options;
  options.tokenizer = letters();
  SamplingParams params = sampling(0.0, 4);
  params.logprobs = 0;
  const LogitsOf whole = script({byte(0xE4), byte(0xBD), byte(0xA0), 3}, kLetters);
  OutputResult output = run_toy(params, {1, 4}, kLetters, whole, options).outputs[0];
  EXPECT_EQ(output.text, std::string("\xE4\xBD\xA0" "a"));
  EXPECT_EQ(output.logprobs[1].text_end, 0);
  EXPECT_EQ(output.logprobs[2].text_end, 3);
  // Cut off in the middle: replacement characters, and they belong to the last token.
  params.max_tokens = 2;
  const LogitsOf cut = script({byte(0xE4), byte(0xBD)}, kLetters);
  output = run_toy(params, {1, 4}, kLetters, cut, options).outputs[0];
  EXPECT_EQ(output.text, std::string("\xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_EQ(output.logprobs[1].text_end, 6);
  // A stop id shows nothing, whatever it would decode to.
  params.stop_token_ids = {3};
  output = run_toy(params, {1, 4}, kLetters, script({4, 3}, kLetters), options).outputs[0];
  EXPECT_EQ(output.text, std::string("b"));
  EXPECT_EQ(output.stopped_by_token, 3);
  EXPECT_EQ(output.logprobs[1].text_begin, 1);
}

TEST(abort_returns_what_was_produced) {
  ToyOptions options;
  options.tokenizer = letters();
  SamplingParams params = sampling(1.0, 10);
  params.n = 3;
  params.stop = {"zz"};
  const ToyModel model = {.key = 12, .vocab = kLetters, .spread = 3.0};
  for (int64_t steps = 0; steps < 4; ++steps) {
    options.abort_after = steps;
    const ToyRun run = run_toy(params, kPrompt, model, options);
    EXPECT_EQ(run.outputs.size(), size_t{3});
    for (const OutputResult& output : run.outputs) {
      EXPECT(output.finish_reason == FinishReason::kAbort);
      EXPECT_EQ(static_cast<int64_t>(output.tokens.size()), steps);
    }
  }
}

TEST(logprobs_of_model_and_processed) {
  const ToyModel model = {.key = 31, .vocab = 300, .spread = 2.0};
  for (const bool processed : {false, true}) {
    SamplingParams params = sampling(0.7, 5);
    params.top_k = 10;
    params.repetition_penalty = 1.5;
    params.logprobs = 20;
    params.logprobs_processed = processed;
    params.seed = 3;
    const OutputResult output = run_toy(params, kPrompt, model).outputs[0];
    std::vector<int32_t> history = kPrompt;
    for (const TokenInfo& info : output.logprobs) {
      std::vector<float> row = model.logits(history);
      const std::set<int32_t> seen(history.begin(), history.end());
      for (const int32_t id : processed ? seen : std::set<int32_t>{}) {
        float& s = row[static_cast<size_t>(id)];
        s = s < 0 ? s * 1.5F : s / 1.5F;
      }
      SamplingParams plain = processed ? params : sampling(1.0, 1);
      const std::vector<double> q = SlowWarpers(row).run(plain);
      EXPECT_NEAR(static_cast<double>(info.logprob), std::log(q[static_cast<size_t>(info.id)]),
                  1e-5);
      EXPECT_EQ(info.top.size(), processed ? size_t{10} : size_t{20});
      for (const TokenAlternative& other : info.top) {
        const auto id = static_cast<size_t>(other.id);
        EXPECT_NEAR(static_cast<double>(other.logprob), std::log(q[id]), 1e-5);
      }
      std::vector<double> sorted = q;
      std::sort(sorted.rbegin(), sorted.rend());
      EXPECT_NEAR(static_cast<double>(info.top.back().logprob),
                  std::log(sorted[info.top.size() - 1]), 1e-5);
      history.push_back(info.id);
    }
  }
}

}  // namespace polylm::test
