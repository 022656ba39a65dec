// extremes_test.cc: options at the ends of their ranges, one by one, and the result they must give:
// temperatures whose float is 0, biases and sums that swallow everything else, powers of lengths
// that no double holds, log-probabilities beyond float. Random combinations are in sweep_test.cc.
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "engine/logprobs.h"
#include "engine/step_batch.h"
#include "harness.h"
#include "toy_model.h"

namespace polylm::test {
namespace {

const std::vector<int32_t> kPrompt = {1, 2};
constexpr float kMostFloat = std::numeric_limits<float>::max();

// The same logits after every history.
LogitsOf always(const std::vector<float>& row) {
  return [row](const std::vector<int32_t>&) { return row; };
}

SamplingParams sampling(double temperature) {
  SamplingParams p;
  p.temperature = temperature;
  p.max_tokens = 1;
  return p;
}

void expect_refused(const SamplingParams& params, const std::string& option) {
  try {
    check_params(params, 100, 2048, 8, false);
    report_failure(__FILE__, __LINE__, "accepted: " + option);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidOption);
    EXPECT_EQ(error.message().substr(0, option.size() + 1), option + ":");
  }
}

// Asks for what no device takes.
class BrokenDecoder final : public Decoder {
 public:
  SelectNeeds asked;
  std::vector<int32_t> listed_tokens;
  int64_t width_max() const override { return 1; }
  int64_t width() const override { return 1; }
  SelectNeeds needs(int64_t, std::vector<int32_t>* listed) override {
    *listed = listed_tokens;
    return asked;
  }
  void advance(const SelectResult*, const std::vector<int32_t>*, FullRows&,
               std::vector<Transition>*) override {}
  void drain(std::vector<OutputDelta>*) override {}
  std::vector<OutputResult> finish(bool) override { return {}; }
};

}  // namespace

TEST(extremes_tiny_temperatures_take_the_best_and_share_among_equals) {
  for (const double temperature : {5e-324, 1e-320, 1e-46, 1e-45, 1e-38, 1e-30, 1e-20, 1e-9}) {
    for (const int64_t top_k : {0, 3}) {
      SamplingParams params = sampling(temperature);
      params.top_k = top_k;
      params.logprobs = 2;
      params.logprobs_processed = true;
      std::set<int32_t> seen;
      for (int64_t s = 0; s < 40; ++s) {
        params.seed = s;
        const ToyRun run = run_toy(params, kPrompt, 5, always({1.0F, 3.0F, 2.0F, 3.0F, -60.0F}));
        const TokenInfo& token = run.outputs[0].logprobs[0];
        seen.insert(token.id);
        EXPECT_NEAR(static_cast<double>(token.logprob), std::log(0.5), 1e-6);
        EXPECT(std::isfinite(token.top[1].logprob));
      }
      EXPECT(seen == (std::set<int32_t>{1, 3}));
    }
  }
}

TEST(extremes_a_bias_beyond_all_logits_leaves_its_tokens_equal) {
  const std::vector<float> row = {1.0F, 3.0F, 2.0F, 3.5F, -60.0F};
  SamplingParams params = sampling(1.0);
  params.logprobs = 4;
  params.logprobs_processed = true;
  params.bias = {{{0}, kMostFloat}, {{2, 0}, kMostFloat}, {{2}, kMostFloat}, {{2, 2}, kMostFloat}};
  std::set<int32_t> seen;
  for (int64_t s = 0; s < 40; ++s) {
    params.seed = s;
    const TokenInfo token = run_toy(params, kPrompt, 5, always(row)).outputs[0].logprobs[0];
    seen.insert(token.id);
    EXPECT_NEAR(static_cast<double>(token.logprob), std::log(0.5), 1e-6);
    EXPECT_EQ(token.top.back().logprob, -kMostFloat);  // -6.8e38: not -inf
  }
  EXPECT(seen == (std::set<int32_t>{0, 2}));
  params.temperature = 0.0;
  const TokenInfo greedy = run_toy(params, kPrompt, 5, always(row)).outputs[0].logprobs[0];
  EXPECT_EQ(greedy.id, 2);  // the better logit among equals
  EXPECT_NEAR(static_cast<double>(greedy.logprob), std::log(0.5), 1e-6);
}

// The same as rules of one token, which come as a list of their own.
TEST(extremes_a_huge_bias_of_single_tokens_keeps_the_logarithm) {
  const std::vector<float> row = {1.0F, 3.0F, 2.0F, 3.5F, -60.0F};
  SamplingParams params = sampling(1.0);
  params.logprobs = 4;
  params.logprobs_processed = true;
  params.token_bias = {{0, kMostFloat}, {2, kMostFloat}};
  const TokenInfo token = run_toy(params, kPrompt, 5, always(row)).outputs[0].logprobs[0];
  EXPECT_NEAR(static_cast<double>(token.logprob), std::log(0.5), 1e-6);
}

// A sum of 3e38 makes the scores of all other tokens equal: the candidates must still do.
TEST(extremes_beams_whose_sums_swallow_log_probabilities) {
  for (const BeamScoring scoring : {BeamScoring::kHf455, BeamScoring::kHf431}) {
    for (const bool sampled : {false, true}) {
      const ToyModel model = {.key = 5, .vocab = 300, .spread = 4.0};
      SamplingParams params;
      params.beam_scoring = scoring;
      params.num_beams = 3;
      params.n = 3;
      params.max_tokens = 4;
      params.logprobs = 1;
      params.bias = {{{7}, kMostFloat}, {{7, 9}, -kMostFloat}};
      params.temperature = sampled ? 1.0 : 0.0;
      params.top_k = sampled ? 50 : 0;
      params.sample_beams = sampled;
      const ToyRun run = run_toy(params, kPrompt, model);
      EXPECT_EQ(run.outputs.size(), size_t{3});
      for (const OutputResult& output : run.outputs) {
        EXPECT(std::isfinite(output.score));
        EXPECT_EQ(output.tokens[0], 7);
      }
    }
  }
}

// Where only one candidate has weight, the others are drawn when it is gone.
TEST(extremes_sampled_beams_at_low_temperatures_are_all_there) {
  const ToyModel model = {.key = 8, .vocab = 200, .spread = 4.0};
  for (const double temperature : {1e-46, 1e-20, 1e-3}) {
    SamplingParams params;
    params.num_beams = 4;
    params.n = 4;
    params.max_tokens = 5;
    params.temperature = temperature;
    params.sample_beams = true;
    EXPECT_EQ(run_toy(params, kPrompt, model).outputs.size(), size_t{4});
  }
}

TEST(extremes_sums_that_overflow_in_beam_sampling_431_end_the_request) {
  SamplingParams params;
  params.beam_scoring = BeamScoring::kHf431;
  params.num_beams = 2;
  params.max_tokens = 40;
  params.temperature = 1e-12;
  params.sample_beams = true;
  params.typical_p = 0.5;
  const ToyModel model = {.key = 8, .vocab = 50, .spread = 4.0};
  try {
    run_toy(params, kPrompt, model);
    report_failure(__FILE__, __LINE__, "no overflow");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidOption);
    EXPECT_EQ(error.message().rfind("temperature: the scores of the beams overflow", 0), size_t{0});
  }
}

TEST(extremes_powers_of_lengths_stay_numbers) {
  SamplingParams params;
  params.num_beams = 2;
  for (const double penalty : {100.0, -100.0}) {
    params.length_penalty = penalty;
    params.max_tokens = 2000;
    expect_refused(params, "lengthPenalty");
    params.max_tokens = 500;
    check_params(params, 100, 2048, 8, false);
    params.beam_scoring = BeamScoring::kHf431;  // lengths count the prompt
    expect_refused(params, "lengthPenalty");
    params.beam_scoring = BeamScoring::kHf455;
    params.max_tokens = 6;
    const ToyModel model = {.key = 8, .vocab = 50, .spread = 4.0};
    const ToyRun run = run_toy(params, kPrompt, model);
    EXPECT(std::isfinite(run.outputs[0].score));
    EXPECT(run.outputs[0].score != 0.0);
  }
  params.num_beams = 1;  // without beams it does nothing
  params.max_tokens = 2000;
  check_params(params, 100, 2048, 8, false);
}

TEST(extremes_reported_log_probabilities_are_finite) {
  EXPECT_EQ(reported_logprob(-std::numeric_limits<double>::infinity()), -kMostFloat);
  EXPECT_EQ(reported_logprob(-1e300), -kMostFloat);
  EXPECT_EQ(reported_logprob(-1.5), -1.5F);
}

TEST(extremes_messages_show_small_numbers) {
  SamplingParams params;
  params.repetition_penalty = 1e-46;
  try {
    check_params(params, 100, 2048, 8, false);
    report_failure(__FILE__, __LINE__, "accepted");
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "repetitionPenalty: found 1e-46, expected 0.0001..1000");
  }
}

// Whatever a decoder asks: what the device would refuse ends the request, not the step.
TEST(extremes_a_decoder_that_asks_for_nonsense_is_found_before_the_step) {
  StepLimits limits;
  limits.rows = limits.sequences = limits.select_rows = limits.full_rows = 8;
  limits.vocab = 100;
  limits.context = 50;
  for (const float temperature : {0.0F, -1.0F, std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN()}) {
    StepBatch batch(limits, 8);
    BrokenDecoder decoder;
    decoder.asked.temperature = temperature;
    EXPECT_THROWS_CODE(Code::kInternal, batch.ask(decoder, 1));
  }
  for (const int32_t token : {-1, 100}) {
    StepBatch batch(limits, 8);
    BrokenDecoder decoder;
    decoder.listed_tokens = {token};
    EXPECT_THROWS_CODE(Code::kInternal, batch.ask(decoder, 1));
    EXPECT_EQ(batch.select_count(), int64_t{0});
  }
}

}  // namespace polylm::test
