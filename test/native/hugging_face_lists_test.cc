// hugging_face_lists_test.cc: lists as long as Hugging Face takes them: bias rules for every token,
// many sequences, many stop strings; and stop strings as its StopStringCriteria matches them.
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "harness.h"
#include "text/stop_matcher.h"
#include "text/token_stops.h"
#include "tokenizer_fixture.h"
#include "toy_model.h"

namespace polylm::test {
namespace {

constexpr float kBan = -std::numeric_limits<float>::infinity();
constexpr int64_t kVocab = 4000;
const std::vector<int32_t> kPrompt = {1, 2};

// The same rules among so many others that no list is made of them.
SamplingParams widened(SamplingParams params) {
  std::set<int32_t> taken;
  for (const BiasRule& rule : params.bias) taken.insert(rule.tokens.front());
  for (const TokenBias& rule : params.token_bias) taken.insert(rule.id);
  for (int32_t id = 0; id < 2500; ++id) {
    if (taken.count(id) == 0) params.token_bias.push_back({id, 0.0F});
  }
  return params;
}

SamplingParams random_rules(Random* random) {
  SamplingParams p;
  p.max_tokens = 4;
  p.logprobs = 3;
  p.seed = random->below(1000);
  for (int32_t i = 0; i < 40; ++i) {
    const float value = random->chance(0.4) ? kBan : static_cast<float>(6 * random->unit() - 3);
    const auto id = static_cast<int32_t>(100 * i + random->below(100));
    if (random->chance(0.5)) {
      p.token_bias.push_back({id, value});
    } else {
      p.bias.push_back({{id}, value});
    }
    p.bias.push_back({{2, id}, static_cast<float>(3 * random->unit())});
  }
  if (random->chance(0.4)) p.repetition_penalty = 1.3;
  if (random->chance(0.3)) p.presence_penalty = 0.5;
  if (random->chance(0.3)) p.stop_token_ids = {static_cast<int32_t>(random->below(kVocab))};
  if (random->chance(0.3)) p.min_tokens = 2;
  return p;
}

std::shared_ptr<const Tokenizer> bytes_and_words() {
  std::vector<TestPiece> pieces;
  for (const char* text :
       {"a", "b", "ab", "bab", "\xE2\x96\x81", "\xE2\x96\x81" "ab", "\xC3\xA4"}) {
    pieces.push_back({text, -1.0F});
  }
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
    pieces.push_back({text, -1.0F, PieceType::kByte});
  }
  TokenizerTables tables = tables_of(ModelKind::kUnigram, pieces);
  tables.byte_fallback = true;
  tables.id_limit = 300;
  return Tokenizer::create(tables);
}

// Ids of bytes_and_words.
constexpr int32_t kA = 3, kB = 4, kAb = 5, kBab = 6, kSpace = 7, kSpaceAb = 8, kByte = 10;
constexpr int32_t kHole = 290, kEnd = 2;

int32_t push_all(TokenStops* stops, const std::vector<int32_t>& ids) {
  int32_t stop = -1;
  for (const int32_t id : ids) stop = stops->push(id);
  return stop;
}

// A model that says exactly these tokens after the prompt.
LogitsOf script(const std::vector<int32_t>& tokens, size_t prompt) {
  return [tokens, prompt](const std::vector<int32_t>& history) {
    std::vector<float> row(300, 0.0F);
    if (history.size() - prompt < tokens.size()) {
      row[static_cast<size_t>(tokens[history.size() - prompt])] = 20.0F;
    }
    return row;
  };
}

// StopStringCriteria for one stop string over the texts of tokens, from its description: the stop
// string is matched backwards from an overlap of its end with the last token's beginning.
bool matches_backwards(const std::string& stop, const std::vector<std::string>& texts) {
  const auto fits = [&](const std::string& token, size_t end) {  // token ends at stop[0, end)
    const size_t length = std::min(token.size(), end);
    return token.compare(token.size() - length, length, stop, end - length, length) == 0;
  };
  const std::string& last = texts.back();
  for (size_t cut = 0; cut < last.size(); ++cut) {  // what hangs over
    const std::string token = last.substr(0, last.size() - cut);
    if (!fits(token, stop.size())) continue;
    size_t left = stop.size() - std::min(token.size(), stop.size());
    const size_t first = texts.size() - std::min(texts.size(), stop.size());
    for (size_t i = texts.size() - 1; left > 0 && i > first && fits(texts[i - 1], left); --i) {
      left -= std::min(texts[i - 1].size(), left);
    }
    if (left == 0) return true;
  }
  return false;
}

}  // namespace

TEST(bias_of_many_tokens_is_the_bias_of_few) {
  Random random(seed());
  for (int round = 0; round < 60; ++round) {
    const ToyModel model = {
        .key = static_cast<uint64_t>(round) + 3, .vocab = kVocab, .spread = 4.0};
    SamplingParams few = random_rules(&random);
    if (round % 3 == 1) few.temperature = 0.9, few.top_p = 0.9;
    if (round % 3 == 2) few.num_beams = 3, few.n = 2;
    if (round % 5 == 4) few.allow_tokens = {7, 8, 9, 107, 250, 1033, 3999};
    const ToyRun a = run_toy(few, kPrompt, model);
    const ToyRun b = run_toy(widened(few), kPrompt, model);
    EXPECT_EQ(a.outputs.size(), b.outputs.size());
    for (size_t k = 0; k < a.outputs.size(); ++k) {
      EXPECT(a.outputs[k].tokens == b.outputs[k].tokens);
      for (size_t i = 0; i < a.outputs[k].logprobs.size(); ++i) {
        const TokenInfo& x = a.outputs[k].logprobs[i];
        const TokenInfo& y = b.outputs[k].logprobs[i];
        EXPECT_NEAR(static_cast<double>(x.logprob), static_cast<double>(y.logprob), 1e-5);
        EXPECT(x.top.front().id == y.top.front().id);
      }
    }
    EXPECT((b.full_rows > 0) == few.allow_tokens.empty());
  }
}

TEST(all_tokens_but_one_are_banned) {
  const ToyModel model = {.key = 8, .vocab = kVocab, .spread = 5.0};
  for (const int64_t beams : {1, 3}) {
    for (const double temperature : {0.0, 1.0}) {
      SamplingParams params;
      params.max_tokens = 3;
      params.num_beams = beams;
      params.temperature = temperature;
      params.sample_beams = beams > 1 && temperature > 0;
      for (int32_t id = 0; id < kVocab; ++id) {
        if (id != 1234) params.token_bias.push_back({id, kBan});
      }
      check_params(params, kVocab, 100, 8, false);
      const OutputResult output = run_toy(params, kPrompt, model).outputs[0];
      EXPECT(output.tokens == (std::vector<int32_t>{1234, 1234, 1234}));
      params.token_bias.push_back({1234, kBan});
      EXPECT_THROWS_CODE(Code::kInvalidOption, run_toy(params, kPrompt, model));
    }
  }
}

// Rules that share their last token add up (4.55), found among thousands by the token before it.
TEST(thousands_of_bias_sequences) {
  SamplingParams params;
  params.max_tokens = 1;
  for (int32_t id = 0; id < 3000; ++id) params.bias.push_back({{id, 5}, id == 2 ? 2.0F : 50.0F});
  params.bias.push_back({{1, 2, 5}, 4.0F});
  params.bias.push_back({{9, 1, 2, 5}, 50.0F});  // longer than the row
  const auto best = [&](float other) {
    const LogitsOf model = [other](const auto&) {
      std::vector<float> row(3000, 0.0F);
      row[7] = other;
      return row;
    };
    return run_toy(params, {0, 1, 2}, 3000, model).outputs[0].tokens[0];
  };
  EXPECT_EQ(best(5.9F), 5);
  EXPECT_EQ(best(6.1F), 7);
}

TEST(bias_lists_are_checked_whole) {
  const auto refused = [](const SamplingParams& p) {
    EXPECT_THROWS_CODE(Code::kInvalidOption, check_params(p, 100, 1000, 8, true));
  };
  SamplingParams p;
  p.token_bias = {{5, 1.0F}, {6, 1.0F}, {5, 2.0F}};
  refused(p);
  p.token_bias = {{5, 1.0F}};
  p.bias = {{{5}, 1.0F}};
  refused(p);
  p.bias = {{{5, 6}, 1.0F}, {{5, 6}, 1.0F}};
  refused(p);
  p.bias.pop_back();
  check_params(p, 100, 1000, 8, true);
  for (const float wrong : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    p.token_bias = {{5, wrong}};
    refused(p);
  }
  p.token_bias = {{100, 1.0F}};
  refused(p);
}

TEST(stop_matcher_with_a_thousand_strings) {
  std::vector<std::string> stops;
  for (int i = 0; i < 1000; ++i) stops.push_back("<" + std::to_string(i) + ">");
  StopMatcher matcher(stops);
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(matcher.push("<" + std::to_string(i) + ".", &text), -1);
  }
  EXPECT_EQ(matcher.push("<<99<998>", &text), 998);
  EXPECT_EQ(text.substr(text.size() - 4), std::string("<<99"));
}

TEST(token_stops_see_the_prompt_and_whole_tokens) {
  const auto tokenizer = bytes_and_words();
  const TokenStops fresh({"bab", " a"}, tokenizer);
  const auto after = [&](const std::vector<int32_t>& prompt, const std::vector<int32_t>& ids) {
    TokenStops stops = fresh;
    for (const int32_t id : prompt) stops.seed(id);
    return push_all(&stops, ids);
  };
  EXPECT_EQ(after({}, {kAb}), -1);
  EXPECT_EQ(after({kB}, {kAb}), 0);           // across the end of the prompt
  EXPECT_EQ(after({kBab}, {kA}), -1);         // complete in the prompt
  EXPECT_EQ(after({}, {kBab, kA}), -1);       // and before the last token
  EXPECT_EQ(after({kB, kA}, {kBab}), 0);      // ends inside the token
  EXPECT_EQ(after({}, {kSpaceAb}), 1);        // the token's text has its space
  EXPECT_EQ(after({kSpace}, {kA}), 1);
  EXPECT_EQ(after({kB}, {kHole, kAb}), -1);   // nothing goes through an id that is no token
  EXPECT_EQ(after({kB}, {kEnd, kAb}), -1);    // nor through the name of a special one
  EXPECT_EQ(after({kB, kA, kByte + 'b'}, {kA}), -1);
  EXPECT_EQ(after({kB, kA}, {kByte + 'b'}), 0);
}

TEST(token_stops_of_special_tokens_and_characters_in_bytes) {
  const auto tokenizer = bytes_and_words();
  TokenStops stops({"</s>", "\xC3\xA4", "\xEF\xBF\xBD\xEF\xBF\xBD"}, tokenizer);
  EXPECT_EQ(push_all(&stops, {kA, kEnd}), 0);
  EXPECT_EQ(push_all(&stops, {kByte + 0xC3}), -1);
  EXPECT_EQ(push_all(&stops, {kByte + 0xA4}), 2);  // two U+FFFD, as transformers sees it
  EXPECT_EQ(push_all(&stops, {9}), 1);             // the piece itself
}

TEST(token_stops_equal_the_backward_search) {
  const auto tokenizer = bytes_and_words();
  const std::vector<std::pair<int32_t, std::string>> tokens = {
      {kA, "a"}, {kB, "b"}, {kAb, "ab"}, {kBab, "bab"}, {kSpace, " "}, {kSpaceAb, " ab"}};
  Random random(seed());
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> all;
    for (int64_t i = 1 + random.below(3); i > 0; --i) {
      std::string stop;
      for (int64_t n = 1 + random.below(6); n > 0; --n) stop += "ab "[random.below(3)];
      all.push_back(stop);
    }
    TokenStops stops(all, tokenizer);
    const int64_t prompt = random.below(6);
    std::vector<std::string> texts;
    for (int64_t i = 0; i < 12; ++i) {
      const auto& [id, text] = random.pick(tokens);
      texts.push_back(text);
      if (i < prompt) {
        stops.seed(id);
        continue;
      }
      // The window is the longest stop string's, for all of them.
      size_t reach = 0;
      for (const std::string& stop : all) reach = std::max(reach, stop.size());
      const auto from = texts.end() - static_cast<int64_t>(std::min(reach, texts.size()));
      const std::vector<std::string> window(from, texts.end());
      bool any = false;
      for (const std::string& stop : all) any = any || matches_backwards(stop, window);
      const int32_t got = stops.push(id);
      EXPECT_EQ(got >= 0, any);
      if (got >= 0) EXPECT(matches_backwards(all[static_cast<size_t>(got)], window));
      found += any;
    }
  }
  EXPECT(found > 1000);
}

TEST(stop_strings_as_hugging_face_has_them) {
  ToyOptions options;
  options.tokenizer = bytes_and_words();
  const std::vector<int32_t> prompt = {1, kB};
  const LogitsOf says = script({kAb, kA, kBab, kA, kB, kB}, prompt.size());
  for (const int64_t beams : {1, 2}) {
    SamplingParams params;
    params.max_tokens = 6;
    params.num_beams = beams;
    params.stop = {"bab"};
    OutputResult output = run_toy(params, prompt, 300, says, options).outputs[0];
    EXPECT_EQ(output.text, std::string("a"));  // up to the "bab" of the output
    EXPECT_EQ(output.tokens.size(), size_t{3});
    params.stop_hf = true;
    output = run_toy(params, prompt, 300, says, options).outputs[0];
    EXPECT(output.tokens == (std::vector<int32_t>{kAb}));
    EXPECT_EQ(output.text, std::string("ab"));
    EXPECT(output.finish_reason == FinishReason::kStop);
    EXPECT_EQ(output.stopped_by_string, 0);
    params.stop = {"baba"};  // the token that completes it stays whole
    const LogitsOf over = script({kA, kBab, kB}, prompt.size());
    output = run_toy(params, prompt, 300, over, options).outputs[0];
    EXPECT_EQ(output.text, std::string("abab"));
    EXPECT_EQ(output.tokens.size(), size_t{2});
  }
}

TEST(pads_count_for_stop_strings_as_in_a_padded_row) {
  ToyOptions options;
  options.tokenizer = bytes_and_words();
  SamplingParams params;
  params.max_tokens = 2;
  params.stop = {"bab"};
  params.stop_hf = true;
  const std::vector<int32_t> prompt = {kA};
  const LogitsOf says = script({kB, kB}, prompt.size());
  EXPECT_EQ(run_toy(params, prompt, 300, says, options).outputs[0].tokens.size(), size_t{2});
  params.pad_to_length = 5;
  params.pad_to_token = kB;
  EXPECT_EQ(run_toy(params, prompt, 300, says, options).outputs[0].tokens.size(), size_t{1});
}

}  // namespace polylm::test
