// params_test.cc: which options are refused, with what words, and what explain says of the others.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "harness.h"

namespace polylm::test {
namespace {

// A change that breaks a rule, and the option that the message must begin with.
struct Rule {
  const char* option;
  std::function<void(SamplingParams*)> change;
};

std::vector<Rule> scalar_rules() {
  return {
      {"maxTokens", [](auto* p) { p->max_tokens = 0; }},
      {"minTokens", [](auto* p) { p->min_tokens = 300; }},
      {"temperature", [](auto* p) { p->temperature = -0.1; }},
      {"temperature", [](auto* p) { p->temperature = std::nan(""); }},
      {"temperature", [](auto* p) { p->temperature = 1, p->num_beams = 2; }},
      {"topP", [](auto* p) { p->top_p = 1.5; }},
      {"logprobs", [](auto* p) { p->logprobs = 21; }},
      {"numBeams", [](auto* p) { p->num_beams = 9; }},
      {"n", [](auto* p) { p->n = 2; }},
      {"n", [](auto* p) { p->n = 3, p->num_beams = 2; }},
      {"n", [](auto* p) { p->n = 9, p->temperature = 1; }},
      {"stopTokenIds", [](auto* p) { p->stop_token_ids = {100}; }},
      {"stopTokenIds", [](auto* p) { p->stop_token_ids = {-1}; }},
      {"stopTokenIds", [](auto* p) { p->stop_token_ids = {1, 1}; }},
      {"stop", [](auto* p) { p->stop = {""}; }},
      {"stop", [](auto* p) { p->stop = {"a", "a"}; }},
      {"stop", [](auto* p) { p->stop = {std::string(65000, 'a'), std::string(537, 'b')}; }},
      {"stop", [](auto* p) {
         for (int i = 0; i < 1025; ++i) p->stop.push_back(std::to_string(i));
       }},
      {"stop", [](auto* p) {
         p->stop = {"a"}, p->num_beams = 2, p->beam_scoring = BeamScoring::kHf431;
       }},
  };
}

std::vector<Rule> list_rules() {
  const float inf = std::numeric_limits<float>::infinity();
  return {
      {"bias", [](auto* p) { p->bias = {{{}, 1.0F}}; }},
      {"bias", [](auto* p) { p->bias = {{{100}, 1.0F}}; }},
      {"bias", [](auto* p) { p->bias = {{{1}, 1.0F}, {{1}, 2.0F}}; }},
      {"bias", [inf](auto* p) { p->bias = {{{1}, inf}}; }},
      {"bias", [](auto* p) { p->bias = {{{1}, std::nanf("")}}; }},
      {"bias", [](auto* p) {
         for (int32_t i = 0; i < 1049; ++i) {
           p->bias.push_back({std::vector<int32_t>(1000, i % 100), 1.0F});
           p->bias.back().tokens[0] = i / 100;
         }
       }},
      {"allow", [](auto* p) { p->allow_tokens = {1, 1}; }},
      {"allow", [](auto* p) { p->allow_tokens = {100}; }},
      {"allow", [](auto* p) { p->allow_tokens = {1}, p->allow_choices = {{2}}; }},
      {"allow", [](auto* p) { p->allow_choices = {{}}; }},
      {"allow", [](auto* p) { p->allow_choices = {{1}, {1}}; }},
      {"allow", [](auto* p) { p->allow_choices = {{1}, {1, 2}}; }},
      {"allow", [](auto* p) { p->allow_choices = {{1, 2}}, p->stop_token_ids = {2}; }},
      {"allow", [](auto* p) { p->allow_choices = {{1, 2, 3}}, p->max_tokens = 2; }},
      {"allow", [](auto* p) {
         p->allow_choices = {{1}}, p->num_beams = 2, p->beam_scoring = BeamScoring::kHf431;
       }},
      {"minTokens", [](auto* p) { p->allow_choices = {{1}}, p->min_tokens = 2; }},
      {"forcedFirstToken", [](auto* p) { p->forced_first_token = 100; }},
      {"forcedFirstToken", [](auto* p) { p->forced_first_token = 5, p->allow_tokens = {4}; }},
      {"forcedLastToken", [](auto* p) { p->forced_last_token = 5, p->allow_choices = {{5}}; }},
      {"padTo", [](auto* p) { p->pad_to_length = 2000; }},
      {"padTo", [](auto* p) { p->pad_to_length = 20, p->pad_to_token = 100; }},
      {"repetitionPenalty", [](auto* p) { p->repetition_penalty = 0; }},
      {"seed", [](auto* p) { p->seed = -1; }},
  };
}

void expect_refused(const Rule& rule) {
  SamplingParams params;
  rule.change(&params);
  try {
    check_params(params, 100, 1000, 8, true);
    report_failure(__FILE__, __LINE__, std::string("accepted: ") + rule.option);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidOption);
    if (e.message().rfind(std::string(rule.option) + ": ", 0) != 0) {
      report_failure(__FILE__, __LINE__, std::string(rule.option) + " got: " + e.message());
    }
    EXPECT(e.message().find("expected") != std::string::npos);
  }
}

}  // namespace

TEST(check_params_refuses_what_is_contradictory) {
  for (const Rule& rule : scalar_rules()) expect_refused(rule);
  for (const Rule& rule : list_rules()) expect_refused(rule);
  check_params(SamplingParams{}, 100, 1000, 8, false);
  SamplingParams stops;
  stops.stop = {"a"};
  EXPECT_THROWS_CODE(Code::kTokenizerMissing, check_params(stops, 100, 1000, 8, false));
}

TEST(explain_lists_processors_in_order_and_inert_options) {
  SamplingParams p;
  p.temperature = 0.8;
  p.top_k = 40;
  p.min_p = 0.1;
  p.typical_p = 0.9;
  p.top_p = 0.9;
  p.repetition_penalty = 1.1;
  p.no_repeat_ngram_size = 3;
  p.length_penalty = 2;
  p.bias = {{{1}, 1.0F}};
  const Explanation e = explain(p);
  const std::vector<std::string> order = {
      "SequenceBiasLogitsProcessor", "RepetitionPenaltyLogitsProcessor",
      "NoRepeatNGramLogitsProcessor", "TemperatureLogitsWarper", "TopKLogitsWarper",
      "TopPLogitsWarper", "MinPLogitsWarper", "TypicalLogitsWarper"};
  EXPECT(e.processors == order);
  EXPECT(e.inert == (std::vector<std::string>{"lengthPenalty"}));
  SamplingParams greedy;
  greedy.top_p = 0.5;
  greedy.seed = 3;
  greedy.num_beams = 2;
  greedy.length_penalty = 2;
  EXPECT(explain(greedy).inert == (std::vector<std::string>{"topP", "seed"}));
  EXPECT(explain(SamplingParams{}).inert.empty() && explain(SamplingParams{}).processors.empty());
}

}  // namespace polylm::test
