// processors_test.cc: processors and warpers against Hugging Face's own rows (fixtures/logits),
// over all entries; the candidate path against the full one is in decoder_test.cc.
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "engine/processors.h"
#include "engine/score_row.h"
#include "engine/warpers.h"
#include "harness.h"
#include "mini_json.h"

namespace polylm::test {
namespace {

constexpr double kTolerance = 1e-4;  // relative, as the fixtures' README asks

struct Case {
  SamplingParams params;
  int64_t prompt = 0;  // tokens of input_ids that are the prompt
};

void ban(const Json& ids, SamplingParams* params) {
  BiasRule rule;
  rule.value = -std::numeric_limits<float>::infinity();
  rule.tokens = ids.kind == Json::Kind::kNumber
                    ? std::vector<int32_t>{static_cast<int32_t>(ids.number)}
                    : ids.numbers<int32_t>();
  params->bias.push_back(rule);
}

// One argument of Hugging Face's generate. False: a name this test does not know.
bool set_argument(const std::string& name, const Json& value, Case* out) {
  SamplingParams& p = out->params;
  const auto integer = static_cast<int64_t>(value.number);
  if (name == "temperature") p.temperature = value.number;
  else if (name == "top_k") p.top_k = integer;
  else if (name == "top_p") p.top_p = value.number;
  else if (name == "min_p") p.min_p = value.number;
  else if (name == "typical_p") p.typical_p = value.number;
  else if (name == "epsilon_cutoff") p.epsilon_cutoff = value.number;
  else if (name == "eta_cutoff") p.eta_cutoff = value.number;
  else if (name == "repetition_penalty") p.repetition_penalty = value.number;
  else if (name == "no_repeat_ngram_size") p.no_repeat_ngram_size = integer;
  else if (name == "renormalize_logits") p.renormalize = value.number != 0;
  else if (name == "prompt_length") out->prompt = integer;
  else if (name == "min_new_tokens") p.min_tokens = integer;
  // The total length: with all of input_ids as the prompt the rest is new.
  else if (name == "min_length") p.min_tokens = integer - out->prompt;
  else if (name == "eos_token_id" && value.array.empty()) {
    p.stop_token_ids = {static_cast<int32_t>(integer)};
  } else if (name == "eos_token_id") {
    p.stop_token_ids = value.numbers<int32_t>();
  } else if (name == "bad_words_ids" || name == "suppress_tokens") {
    for (const Json& ids : value.array) ban(ids, &p);
  } else if (name == "sequence_bias") {
    for (const Json& rule : value.array) {
      p.bias.push_back({rule.at(0).numbers<int32_t>(), static_cast<float>(rule.at(1).number)});
    }
  } else {
    return name == "order";  // prose
  }
  return true;
}

std::vector<std::optional<double>> process(const Case& test, const std::vector<int32_t>& ids,
                                           const std::vector<float>& scores) {
  const auto vocab = static_cast<int64_t>(scores.size());
  Processors processors(test.params, test.prompt, 1000, vocab);
  RowPlan plan;
  processors.plan(ids, &plan);
  ScoreRow row;
  row.build_full(scores.data(), vocab, plan, processors, 0.0);
  if (test.params.temperature > 0.0) EXPECT(Warpers(test.params, 1).run(&row));
  if (test.params.renormalize) renormalize(&row);
  std::vector<std::optional<double>> out(scores.size());
  for (const Entry& e : row.entries()) out[static_cast<size_t>(e.id)] = e.score;
  return out;
}

// Which of several equal scores top-p drops is the order of torch's unstable sort; here it is the
// highest ids. So for the one case where the cut goes through equal scores only their number
// counts: a kept token may stand for a dropped one of the same score.
void trade_ties(const std::vector<float>& scores, const std::vector<Json>& expected,
                std::vector<std::optional<double>>* got) {
  for (size_t a = 0; a < scores.size(); ++a) {
    for (size_t b = 0; b < scores.size(); ++b) {
      const bool extra = (*got)[a].has_value() && expected[a].is_null();
      const bool missing = !(*got)[b].has_value() && !expected[b].is_null();
      if (extra && missing && scores[a] == scores[b]) std::swap((*got)[a], (*got)[b]);
    }
  }
}

int compare_case(const Json& json) {
  Case test;
  const auto width = static_cast<int64_t>(json.at("input_ids").at(0).size());
  test.prompt = width;
  test.params.temperature = 1.0;
  for (const auto& [name, value] : json.at("args").object) {
    if (!set_argument(name, value, &test)) report_failure(__FILE__, __LINE__, "unknown " + name);
  }
  for (size_t r = 0; r < json.at("scores").size(); ++r) {
    std::vector<float> scores;
    for (const Json& value : json.at("scores").at(r).array) {
      scores.push_back(value.is_null() ? -std::numeric_limits<float>::infinity()
                                       : static_cast<float>(value.number));
    }
    auto got = process(test, json.at("input_ids").at(r).numbers<int32_t>(), scores);
    const std::vector<Json>& expected = json.at("expected").at(r).array;
    if (json.at("name").string == "top_p_after_mask") trade_ties(scores, expected, &got);
    for (size_t id = 0; id < scores.size(); ++id) {
      const bool kept = !expected[id].is_null();
      if (got[id].has_value() != kept) {
        report_failure(__FILE__, __LINE__, json.at("name").string + " row " + std::to_string(r) +
                                               ": token " + std::to_string(id) +
                                               (kept ? " was dropped" : " was kept"));
      } else if (kept) {
        EXPECT_NEAR(*got[id], expected[id].number,
                    kTolerance * std::max(1e-2, std::fabs(expected[id].number)));
      }
    }
  }
  return 1;
}

int compare_file(const char* name) {
  const Json file = JsonReader::read_file(std::string(POLYLM_FIXTURES) + "/logits/" + name);
  int cases = 0;
  for (const Json& json : file.at("cases").array) cases += compare_case(json);
  return cases;
}

}  // namespace

TEST(processors_equal_hugging_face) { EXPECT_EQ(compare_file("processors.json"), 156); }
TEST(processors_equal_hugging_face_min_p) { EXPECT_EQ(compare_file("processors-min_p.json"), 24); }

// Presence and frequency penalties have no Hugging Face counterpart: by hand, of generated tokens.
TEST(processors_openai_penalties) {
  Case test;
  test.prompt = 2;
  test.params.presence_penalty = 0.5;
  test.params.frequency_penalty = 0.25;
  test.params.repetition_penalty = 2.0;
  const auto got = process(test, {0, 1, 2, 2, 3}, {4.0F, -4.0F, 4.0F, -1.0F, 1.0F});
  EXPECT_NEAR(got[0].value(), 2.0, 1e-12);
  EXPECT_NEAR(got[1].value(), -8.0, 1e-12);
  EXPECT_NEAR(got[2].value(), 4.0 / 2 - 0.5 - 2 * 0.25, 1e-12);
  EXPECT_NEAR(got[3].value(), -2.0 - 0.5 - 0.25, 1e-12);
  EXPECT_NEAR(got[4].value(), 1.0, 1e-12);
}

// Rules that share their last token add up (4.55); one longer than the row does not apply.
TEST(processors_bias_rules) {
  Case test;
  test.prompt = 2;
  test.params.bias = {{{4}, 1.0F}, {{1, 4}, 2.0F}, {{0, 1, 4}, 4.0F}, {{3, 4}, 8.0F}};
  const auto got = process(test, {0, 1}, {0.0F, 0.0F, 0.0F, 0.0F, 0.5F});
  EXPECT_NEAR(got[4].value(), 0.5 + 1.0 + 2.0, 1e-12);
}

TEST(processors_forced_and_allowed) {
  Case test;
  test.prompt = 2;
  test.params.forced_first_token = 3;
  test.params.allow_tokens = {2, 0};
  const std::vector<float> scores = {1.0F, 2.0F, 3.0F, 4.0F};
  const auto first = process(test, {0, 1}, scores);
  EXPECT(!first[0] && !first[1] && !first[2]);
  EXPECT_NEAR(first[3].value(), 0.0, 0.0);
  const auto second = process(test, {0, 1, 3}, scores);
  EXPECT(!second[1] && !second[3]);
  EXPECT_NEAR(second[0].value(), 1.0, 0.0);
  EXPECT_NEAR(second[2].value(), 3.0, 0.0);
}

TEST(id_map_grows_and_clears) {
  IdMap map(4);
  for (int round = 0; round < 3; ++round) {
    map.clear();
    for (int32_t i = 0; i < 5000; ++i) EXPECT_EQ(map.insert(i * 977, i), i);
    for (int32_t i = 0; i < 5000; ++i) EXPECT_EQ(map.insert(i * 977, -7), i);
    EXPECT_EQ(map.find(976), -1);
  }
  map.clear();
  EXPECT_EQ(map.find(0), -1);
}

}  // namespace polylm::test
