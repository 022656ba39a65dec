// beam_test.cc: beam search against a slow second implementation over random options, the 4.31
// quirks one by one, stop strings, streaming, and the exact distribution of beam sampling.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "beam_reference.h"
#include "harness.h"
#include "tokenizer_fixture.h"
#include "toy_model.h"

namespace polylm::test {
namespace {

SamplingParams random_beam_params(Random* random, int64_t vocab) {
  SamplingParams p;
  p.beam_scoring = random->chance(0.5) ? BeamScoring::kHf431 : BeamScoring::kHf455;
  p.num_beams = random->chance(0.1) ? 17 + random->below(16) : 2 + random->below(5);
  p.n = 1 + random->below(std::min<int64_t>(16, p.num_beams));
  p.max_tokens = 1 + random->below(12);
  p.length_penalty = random->pick(std::vector<double>{-1.0, 0.0, 0.6, 1.0, 1.0, 2.0});
  p.early_stopping = random->pick(std::vector<EarlyStopping>{
      EarlyStopping::kFalse, EarlyStopping::kTrue, EarlyStopping::kNever});
  std::set<int32_t> stops;
  for (int64_t i = random->below(4); i > 0; --i) {
    stops.insert(static_cast<int32_t>(random->below(vocab)));
  }
  p.stop_token_ids.assign(stops.begin(), stops.end());
  // Stop ids must win now and then, also in large vocabularies.
  for (const int32_t id : stops) {
    const double most = std::log(static_cast<double>(vocab));
    p.bias.push_back({{id}, static_cast<float>(random->unit() * most)});
  }
  if (random->chance(0.3)) p.min_tokens = random->below(p.max_tokens + 1);
  if (random->chance(0.3)) p.repetition_penalty = 0.7 + random->unit();
  if (random->chance(0.3)) p.no_repeat_ngram_size = 1 + random->below(3);
  if (random->chance(0.2)) p.renormalize = true;
  if (random->chance(0.3)) {
    p.pad_to_length = 4 + random->below(6);
    p.pad_to_token = random->below(vocab);
  }
  return p;
}

std::string describe(const SamplingParams& p, int64_t vocab) {
  return "V " + std::to_string(vocab) + " beams " + std::to_string(p.num_beams) + " n " +
         std::to_string(p.n) + " max " + std::to_string(p.max_tokens) + " lp " +
         std::to_string(p.length_penalty) + " early " +
         std::to_string(static_cast<int>(p.early_stopping)) + " old " +
         std::to_string(p.beam_scoring == BeamScoring::kHf431) + " stops " +
         std::to_string(p.stop_token_ids.size()) + " pen " + std::to_string(p.repetition_penalty) +
         " ngram " + std::to_string(p.no_repeat_ngram_size) + " pad " +
         std::to_string(p.pad_to_length);
}

bool equal(const std::vector<OutputResult>& got, const std::vector<ReferenceHypothesis>& want) {
  if (got.size() != want.size()) return false;
  for (size_t k = 0; k < got.size(); ++k) {
    if (got[k].tokens != want[k].tokens || std::fabs(got[k].score - want[k].score) > 1e-9) {
      return false;
    }
  }
  return true;
}

std::shared_ptr<const Tokenizer> letters() {
  std::vector<TestPiece> pieces;
  for (const char* text : {"a", "b", "ab", "ba", "aab", "\xC3\xA4", "\xE4\xBD\xA0", "c", "cc"}) {
    pieces.push_back({text, -1.0F});
  }
  TokenizerTables tables = tables_of(ModelKind::kUnigram, pieces);
  tables.id_limit = 12;
  return Tokenizer::create(tables);
}

}  // namespace

TEST(beam_search_equals_the_slow_reference) {
  Random random(seed());
  int compared = 0;
  int raised = 0;
  int full_rows = 0;
  for (int round = 0; round < 4000; ++round) {
    const int64_t vocab = random.chance(0.5) ? 5 + random.below(20) : 20 + random.below(281);
    const ToyModel model = {.key = static_cast<uint64_t>(round) * 2 + 1000, .vocab = vocab,
                            .spread = 1.0 + 4.0 * random.unit()};
    SamplingParams params = random_beam_params(&random, vocab);
    if (round % 20 == 0) {
      params.num_beams = 24 + random.below(9);  // times 1 + three stop ids: more than 64
      params.beam_scoring = BeamScoring::kHf455;
      params.stop_token_ids = {1, 2, 4};
    }
    const std::vector<int32_t> prompt = {static_cast<int32_t>(random.below(vocab)),
                                         static_cast<int32_t>(random.below(vocab))};
    const auto logits = [&](const std::vector<int32_t>& h) { return model.logits(h); };
    std::vector<ReferenceHypothesis> want;
    bool raises = false;
    try {
      want = BeamReference(params, prompt, logits, [](const auto&) { return false; }).run();
    } catch (const std::runtime_error&) {
      raises = true;
    }
    // No token is left for any beam, and none had finished.
    raises = raises || want.empty();
    try {
      const ToyRun run = run_toy(params, prompt, model);
      full_rows += run.full_rows > 0;
      if (raises || !equal(run.outputs, want)) {
        report_failure(__FILE__, __LINE__, "differs: " + describe(params, vocab));
      }
      for (const OutputResult& output : run.outputs) {
        const bool stopped = output.stopped_by_token >= 0;
        EXPECT_EQ(stopped, output.finish_reason == FinishReason::kStop);
        if (stopped) EXPECT_EQ(output.tokens.back(), output.stopped_by_token);
      }
      ++compared;
    } catch (const Error& e) {
      if (!raises) report_failure(__FILE__, __LINE__, e.message() + ": " + describe(params, vocab));
      EXPECT_EQ(e.code(), Code::kInvalidOption);
      ++raised;
    }
  }
  EXPECT(compared > 3000);
  EXPECT(raised > 3);      // 4.31's own error was met
  EXPECT(full_rows > 50);  // and more than 64 candidates
}

TEST(beam_stop_strings_equal_the_slow_reference) {
  const auto tokenizer = letters();
  Random random(seed() + 1);
  int stopped = 0;
  for (int round = 0; round < 1500; ++round) {
    ToyModel model = {.key = static_cast<uint64_t>(round) + 90000, .vocab = 12, .spread = 3.0};
    SamplingParams params = random_beam_params(&random, 12);
    params.beam_scoring = BeamScoring::kHf455;
    params.num_beams = 2 + random.below(3);
    params.n = params.num_beams;
    params.include_stop = random.chance(0.5);
    params.stop = {random.pick(std::vector<std::string>{"ab", "aa", "bab", "c", "\xE4\xBD\xA0"})};
    const std::vector<int32_t> prompt = {static_cast<int32_t>(3 + random.below(2)), 4};
    const auto text_of = [&](const std::vector<int32_t>& tokens) {
      std::vector<int32_t> all = prompt;
      all.insert(all.end(), tokens.begin(), tokens.end());
      const auto size = static_cast<int64_t>(all.size());
      return tokenizer->decode(all.data(), size, true)
          .substr(tokenizer->decode(prompt.data(), 2, true).size());
    };
    const auto stops = [&](const std::vector<int32_t>& tokens) {
      return text_of(tokens).find(params.stop[0]) != std::string::npos;
    };
    const auto logits = [&](const std::vector<int32_t>& h) { return model.logits(h); };
    std::vector<ReferenceHypothesis> want = BeamReference(params, prompt, logits, stops).run();
    if (want.empty()) continue;  // every token banned
    ToyOptions options;
    options.tokenizer = tokenizer;
    const ToyRun run = run_toy(params, prompt, model, options);
    if (!equal(run.outputs, want)) {
      report_failure(__FILE__, __LINE__, "differs: " + describe(params, 12) + " " + params.stop[0]);
    }
    for (const OutputResult& output : run.outputs) {
      std::vector<int32_t> shown = output.tokens;
      if (output.stopped_by_token >= 0) shown.pop_back();
      std::string text = text_of(shown);
      const size_t at = text.find(params.stop[0]);
      const bool found = at != std::string::npos;
      EXPECT_EQ(output.stopped_by_string, found ? 0 : -1);
      if (found) text.resize(at + (params.include_stop ? params.stop[0].size() : 0));
      EXPECT_EQ(output.text, text);
      stopped += found;
    }
  }
  EXPECT(stopped > 300);
}

// Log-probabilities follow the parents: each is that of the token after the tokens before it.
TEST(beam_logprobs_follow_the_parents) {
  for (const auto scoring : {BeamScoring::kHf431, BeamScoring::kHf455}) {
    const ToyModel model = {.key = 77, .vocab = 150, .spread = 2.0};
    SamplingParams params;
    params.beam_scoring = scoring;
    params.num_beams = 4;
    params.n = 4;
    params.max_tokens = 9;
    params.logprobs = 3;
    params.length_penalty = 0.0;
    params.stop_token_ids = {5};
    params.min_tokens = 2;
    const std::vector<int32_t> prompt = {1, 2};
    const ToyRun run = run_toy(params, prompt, model);
    EXPECT_EQ(run.outputs.size(), size_t{4});
    for (const OutputResult& output : run.outputs) {
      std::vector<int32_t> history = prompt;
      double sum = 0.0;
      EXPECT_EQ(output.logprobs.size(), output.tokens.size());
      for (const TokenInfo& info : output.logprobs) {
        const std::vector<float> row = model.logits(history);
        double total = 0.0;
        for (const float logit : row) total += std::exp(static_cast<double>(logit));
        const double expected =
            static_cast<double>(row[static_cast<size_t>(info.id)]) - std::log(total);
        EXPECT_NEAR(static_cast<double>(info.logprob), expected, 1e-5);
        EXPECT_EQ(info.top.size(), size_t{3});
        const float best = *std::max_element(row.begin(), row.end());
        EXPECT_EQ(row[static_cast<size_t>(info.top[0].id)], best);
        EXPECT(info.top[0].logprob >= info.top[1].logprob);
        sum += static_cast<double>(info.logprob);
        history.push_back(info.id);
      }
      EXPECT_NEAR(sum, output.score, 1e-4);
    }
  }
}

// Two beams, one step, V tokens: 4.55 draws four, the first two drawn are the outputs.
TEST(beam_sampling_has_the_exact_distribution) {
  const ToyModel model = {.key = 3, .vocab = 5, .spread = 1.5};
  const std::vector<int32_t> prompt = {1, 2};
  const std::vector<float> row = model.logits(prompt);
  SamplingParams params;
  params.beam_scoring = BeamScoring::kHf455;
  params.num_beams = 2;
  params.n = 2;
  params.max_tokens = 1;
  params.temperature = 0.7;
  params.sample_beams = true;
  std::vector<double> p;
  double total = 0.0;
  for (const float logit : row) p.push_back(std::exp(static_cast<double>(logit) / 0.7));
  for (const double weight : p) total += weight;
  std::map<std::pair<int32_t, int32_t>, int> seen;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    params.seed = i;
    ToyOptions options;
    options.candidates = i % 2 == 0 ? 64 : 2;  // with and without a tail
    const ToyRun run = run_toy(params, prompt, model, options);
    auto pair = std::minmax(run.outputs[0].tokens[0], run.outputs[1].tokens[0]);
    ++seen[{pair.first, pair.second}];
    EXPECT(run.outputs[0].score >= run.outputs[1].score);
  }
  double chi2 = 0.0;
  for (int32_t a = 0; a < 5; ++a) {
    for (int32_t b = a + 1; b < 5; ++b) {
      const double pa = p[static_cast<size_t>(a)] / total;
      const double pb = p[static_cast<size_t>(b)] / total;
      const double expected = kDraws * (pa * pb / (1 - pa) + pa * pb / (1 - pb));
      const double difference = seen[{a, b}] - expected;
      chi2 += difference * difference / expected;
    }
  }
  EXPECT(chi2 < 27.9);  // 9 degrees of freedom, p = 0.001
}

// 4.31 starts beam sampling with equal beams: the same token can come twice, and does.
TEST(beam_sampling_431_draws_equal_beams) {
  const ToyModel model = {.key = 9, .vocab = 6, .spread = 1.0};
  SamplingParams params;
  params.beam_scoring = BeamScoring::kHf431;
  params.num_beams = 2;
  params.n = 2;
  params.max_tokens = 1;
  params.temperature = 1.0;
  params.sample_beams = true;
  int twice = 0;
  for (int i = 0; i < 2000; ++i) {
    params.seed = i;
    const ToyRun run = run_toy(params, {1, 2}, model);
    EXPECT_EQ(run.outputs.size(), size_t{2});
    twice += run.outputs[0].tokens == run.outputs[1].tokens;
  }
  EXPECT(twice > 50);
}

// With topK 1 (and Hugging Face's min_tokens_to_keep 2) two beams have four candidates, and four
// are drawn: nothing is left to chance but the order. So scores can be followed: 4.31 divides the
// sums by the temperature at every step, 4.55 the log-probabilities before they are added.
TEST(beam_sampling_warps_sums_or_log_probabilities) {
  constexpr double kTemperature = 0.5;
  for (const bool old : {true, false}) {
    const ToyModel model = {.key = 21, .vocab = 30, .spread = 3.0};
    SamplingParams params;
    params.beam_scoring = old ? BeamScoring::kHf431 : BeamScoring::kHf455;
    params.num_beams = 2;
    params.n = 2;
    params.max_tokens = 4;
    params.length_penalty = 0.0;
    params.temperature = kTemperature;
    params.top_k = 1;
    params.sample_beams = true;
    const std::vector<int32_t> prompt = {1, 2};
    std::vector<ReferenceHypothesis> all = {{{}, 0.0}};
    if (old) all.push_back(all.front());
    for (int64_t step = 0; step < params.max_tokens; ++step) {
      std::vector<ReferenceHypothesis> next;
      for (const ReferenceHypothesis& beam : all) {
        std::vector<int32_t> history = prompt;
        history.insert(history.end(), beam.tokens.begin(), beam.tokens.end());
        const std::vector<float> row = model.logits(history);
        double sum = 0.0;
        for (const float logit : row) sum += std::exp(static_cast<double>(logit));
        std::vector<float> sorted = row;
        std::sort(sorted.rbegin(), sorted.rend());
        for (size_t id = 0; id < row.size(); ++id) {
          if (row[id] < sorted[1]) continue;
          const double log_p = static_cast<double>(row[id]) - std::log(sum);
          next.push_back(beam);
          next.back().tokens.push_back(static_cast<int32_t>(id));
          next.back().score =
              old ? (beam.score + log_p) / kTemperature : beam.score + log_p / kTemperature;
        }
      }
      std::stable_sort(next.begin(), next.end(), [](const auto& a, const auto& b) {
        return a.score > b.score;
      });
      const bool last = step + 1 == params.max_tokens;
      if (old || !last) next.resize(std::min<size_t>(next.size(), 2));
      all = next;
    }
    for (int64_t s = 0; s < 20; ++s) {
      params.seed = s;
      for (const OutputResult& output : run_toy(params, prompt, model).outputs) {
        const bool found = std::any_of(all.begin(), all.end(), [&](const auto& h) {
          return h.tokens == output.tokens && std::fabs(h.score - output.score) < 1e-9;
        });
        EXPECT(found);
      }
    }
  }
}

TEST(beam_sampling_is_a_function_of_the_seed) {
  Random random(seed() + 5);
  for (int round = 0; round < 300; ++round) {
    const ToyModel model = {.key = static_cast<uint64_t>(round), .vocab = 200, .spread = 3.0};
    SamplingParams params = random_beam_params(&random, 200);
    params.num_beams = 2 + random.below(4);
    params.n = params.num_beams;
    params.stop_token_ids.resize(std::min<size_t>(1, params.stop_token_ids.size()));
    params.temperature = 0.5 + random.unit();
    params.sample_beams = true;
    params.seed = random.below(1 << 20);
    if (random.chance(0.5)) params.top_k = 1 + random.below(80);
    if (random.chance(0.5)) params.top_p = 0.3 + 0.6 * random.unit();
    if (random.chance(0.2)) params.typical_p = 0.5;
    if (random.chance(0.2)) params.min_p = 0.05;
    const ToyRun a = run_toy(params, {1, 2}, model);
    const ToyRun b = run_toy(params, {1, 2}, model);
    EXPECT_EQ(a.outputs.size(), b.outputs.size());
    for (size_t k = 0; k < a.outputs.size(); ++k) {
      EXPECT(a.outputs[k].tokens == b.outputs[k].tokens);
    }
  }
}

TEST(beam_choices_come_out_whole) {
  const ToyModel model = {.key = 4, .vocab = 40, .spread = 3.0};
  SamplingParams params;
  params.num_beams = 3;
  params.n = 3;
  params.max_tokens = 6;
  params.allow_choices = {{5, 6, 7}, {5, 6, 8}, {9}, {10, 11}};
  const ToyRun run = run_toy(params, {1, 2}, model);
  EXPECT_EQ(run.outputs.size(), size_t{3});
  for (const OutputResult& output : run.outputs) {
    const auto& all = params.allow_choices;
    EXPECT(std::count(all.begin(), all.end(), output.tokens) == 1);
    EXPECT(output.finish_reason == FinishReason::kStop);
  }
}

TEST(beam_abort_returns_the_best_running_ones) {
  const ToyModel model = {.key = 6, .vocab = 80, .spread = 3.0};
  for (const auto scoring : {BeamScoring::kHf431, BeamScoring::kHf455}) {
    SamplingParams params;
    params.beam_scoring = scoring;
    params.num_beams = 4;
    params.n = 2;
    params.max_tokens = 20;
    for (int64_t steps = 0; steps < 5; ++steps) {
      ToyOptions options;
      options.abort_after = steps;
      const ToyRun run = run_toy(params, {1, 2}, model, options);
      EXPECT_EQ(run.outputs.size(), size_t{steps == 0 ? 1U : 2U});
      for (const OutputResult& output : run.outputs) {
        EXPECT(output.finish_reason == FinishReason::kAbort);
        EXPECT_EQ(static_cast<int64_t>(output.tokens.size()), steps);
      }
    }
  }
}

}  // namespace polylm::test
