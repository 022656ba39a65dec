// check_params.cc: every rule about decoding options that does not depend on the prompt. Each
// message is "<public option name>: <found>, expected <what>".
// Trap: neutral values are always fine, also where an option has no effect (explain.cc lists it).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>

#include "engine/decoder.h"
#include "platform/error.h"

namespace polylm {
namespace {

#define LIMIT(name, js_name, value) constexpr size_t name = value;
#include "engine/option_limits.def"
#undef LIMIT

std::string text(int64_t value) { return std::to_string(value); }
std::string text(double value) {
  char shown[32];
  std::snprintf(shown, sizeof shown, "%.9g", value);
  return shown;
}
std::string text(bool value) { return value ? "true" : "false"; }

[[noreturn]] void refuse(const char* option, const std::string& found,
                         const std::string& expected) {
  fail(Code::kInvalidOption, std::string(option) + ": " + found + ", expected " + expected);
}

void check_range(const char* option, double value, double low, double high,
                 const std::string& shown) {
  if (value >= low && value <= high) return;  // false for NaN
  refuse(option, "found " + shown, text(low) + ".." + text(high));
}

void check_ranges(const SamplingParams& params) {
#define ROW(name, js_name, type, min, max, value, meaning)                                     \
  check_range(js_name, static_cast<double>(params.name), static_cast<double>(min),             \
              static_cast<double>(max), text(params.name));
#include "engine/sampling_params.def"
#undef ROW
}

void check_id(const char* option, int64_t id, int64_t vocab) {
  if (id >= 0 && id < vocab) return;
  refuse(option, "found token " + text(id), "0.." + text(vocab - 1));
}

void check_ids(const char* option, const std::vector<int32_t>& ids, int64_t vocab) {
  std::set<int32_t> seen;
  for (const int32_t id : ids) {
    check_id(option, id, vocab);
    if (!seen.insert(id).second) {
      refuse(option, "found token " + text(int64_t{id}) + " twice", "distinct tokens");
    }
  }
}

void check_sequence(const char* option, const std::vector<int32_t>& ids, int64_t vocab) {
  if (ids.empty()) refuse(option, "found an empty token sequence", "at least one token");
  for (const int32_t id : ids) check_id(option, id, vocab);
}

// The power of the length that divides a beam's score must be a double that has an inverse. Hugging
// Face raises OverflowError where it is not.
void check_length_penalty(const SamplingParams& params, int64_t context) {
  constexpr double kMostExponent = 300.0;  // of 10
  const int64_t tokens = std::min(params.max_tokens, context);
  const bool prompt_counts = params.beam_scoring == BeamScoring::kHf431;
  const int64_t longest = !prompt_counts                ? tokens
                          : params.pad_to_length == 0 ? context
                                                      : params.pad_to_length + tokens;
  const auto length = static_cast<double>(std::max<int64_t>(2, longest));
  const double most = kMostExponent / std::log10(length);
  if (std::fabs(params.length_penalty) <= most) return;
  refuse("lengthPenalty", "found " + text(params.length_penalty) + " with lengths of up to " +
             text(longest) + " tokens, whose power overflows",
         text(-most) + ".." + text(most) + ", or a smaller maxTokens");
}

void check_beams(const SamplingParams& params, int64_t context, int64_t max_sequences) {
  const bool beams = params.num_beams > 1;
  if (params.num_beams > max_sequences) {
    refuse("numBeams", "found " + text(params.num_beams),
           "at most maxSequences (" + text(max_sequences) + ")");
  }
  if (beams && params.temperature > 0.0 && !params.sample_beams) {
    refuse("temperature", "found " + text(params.temperature) + " with numBeams " +
               text(params.num_beams), "0, or sampleBeams: true to sample the candidates of beams");
  }
  if (beams && params.n > params.num_beams) {
    refuse("n", "found " + text(params.n), "at most numBeams (" + text(params.num_beams) + ")");
  }
  if (params.speculate_lookup && (beams || params.n > 1)) {
    refuse("speculate", "found lookup with " + std::string(beams ? "numBeams " : "n ") +
               text(beams ? params.num_beams : params.n), "false, or one output without beams");
  }
  if (!beams && params.n > 1 && params.temperature == 0.0) {
    refuse("n", "found " + text(params.n) + " with temperature 0, where all outputs are equal",
           "1, or a temperature above 0, or numBeams");
  }
  if (params.n > max_sequences) {
    refuse("n", "found " + text(params.n), "at most maxSequences (" + text(max_sequences) + ")");
  }
  if (!beams) return;
  check_length_penalty(params, context);
  if (params.beam_scoring != BeamScoring::kHf431) return;
  if (!params.stop.empty()) {
    refuse("stop", "found " + text(static_cast<int64_t>(params.stop.size())) +
               " strings with numBeams and beamScoring 'hf-4.31', which has no such thing",
           "none, or beamScoring 'hf-4.55'");
  }
  if (!params.allow_choices.empty() && params.stop_token_ids.empty()) {
    refuse("allow", "found choices without stopTokenIds with beamScoring 'hf-4.31', which can " +
               std::string("finish a beam only by a stop id"),
           "stopTokenIds, or beamScoring 'hf-4.55'");
  }
}

void check_lengths(const SamplingParams& params, int64_t vocab, int64_t context) {
  if (params.min_tokens > params.max_tokens) {
    refuse("minTokens", "found " + text(params.min_tokens),
           "at most maxTokens (" + text(params.max_tokens) + ")");
  }
  if (params.pad_to_length > context) {
    refuse("padTo", "found length " + text(params.pad_to_length),
           "at most the context of " + text(context) + " tokens");
  }
  if (params.pad_to_length > 0) check_id("padTo", params.pad_to_token, vocab);
  const int64_t first = params.forced_first_token;
  const int64_t last = params.forced_last_token;
  if (first >= 0) check_id("forcedFirstToken", first, vocab);
  if (last >= 0) check_id("forcedLastToken", last, vocab);
}

void check_stops(const SamplingParams& params, int64_t vocab, bool has_tokenizer) {
  check_ids("stopTokenIds", params.stop_token_ids, vocab);
  if (params.stop_token_ids.size() > kMaxStopIds) {
    refuse("stopTokenIds", "found " + text(static_cast<int64_t>(params.stop_token_ids.size())) +
               " ids", "at most " + text(static_cast<int64_t>(kMaxStopIds)));
  }
  if (params.stop.size() > kMaxStops) {
    refuse("stop", "found " + text(static_cast<int64_t>(params.stop.size())) + " strings",
           "at most " + text(static_cast<int64_t>(kMaxStops)));
  }
  std::set<std::string> seen;
  size_t bytes = 0;
  for (const std::string& stop : params.stop) {
    bytes += stop.size();
    if (stop.empty() || bytes > kMaxStopBytes) {
      refuse("stop", "found " + text(static_cast<int64_t>(bytes)) + " bytes",
             "no empty string, and at most " + text(static_cast<int64_t>(kMaxStopBytes)) +
                 " bytes of UTF-8 in all");
    }
    if (!seen.insert(stop).second) {
      refuse("stop", "found " + quoted(stop) + " twice", "distinct strings");
    }
  }
  if (!params.stop.empty() && !has_tokenizer) {
    fail(Code::kTokenizerMissing,
         "stop: found strings with a model without tokenizer, expected none", "use stopTokenIds");
  }
}

void check_bias_value(float value) {
  if (!std::isnan(value) && !(std::isinf(value) && value > 0.0F)) return;
  refuse("bias", std::string("found the value ") + (std::isnan(value) ? "NaN" : "Infinity"),
         "a finite number or -Infinity");
}

// Sorted, not put into a set: there may be a rule for every token.
void check_bias_once(const SamplingParams& params) {
  std::vector<int32_t> ids;
  std::vector<const std::vector<int32_t>*> sequences;
  for (const TokenBias& rule : params.token_bias) ids.push_back(rule.id);
  for (const BiasRule& rule : params.bias) {
    if (rule.tokens.size() == 1) {
      ids.push_back(rule.tokens.front());
    } else {
      sequences.push_back(&rule.tokens);
    }
  }
  std::sort(ids.begin(), ids.end());
  std::sort(sequences.begin(), sequences.end(), [](auto* a, auto* b) { return *a < *b; });
  const auto same = [](auto* a, auto* b) { return *a == *b; };
  if (std::adjacent_find(ids.begin(), ids.end()) != ids.end() ||
      std::adjacent_find(sequences.begin(), sequences.end(), same) != sequences.end()) {
    refuse("bias", "found the same token sequence twice", "one entry for each sequence");
  }
}

void check_bias(const SamplingParams& params, int64_t vocab, int64_t context) {
  size_t count = params.token_bias.size();
  for (const BiasRule& rule : params.bias) count += rule.tokens.size();
  if (count > kMaxBiasTokens) {
    refuse("bias", "found " + text(static_cast<int64_t>(count)) + " token ids",
           "at most " + text(static_cast<int64_t>(kMaxBiasTokens)));
  }
  for (const TokenBias& rule : params.token_bias) {
    check_id("bias", rule.id, vocab);
    check_bias_value(rule.value);
  }
  for (const BiasRule& rule : params.bias) {
    check_sequence("bias", rule.tokens, vocab);
    if (static_cast<int64_t>(rule.tokens.size()) > context) {
      refuse("bias", "found a sequence of " + text(static_cast<int64_t>(rule.tokens.size())) +
                 " tokens", "at most the context of " + text(context));
    }
    check_bias_value(rule.value);
  }
  check_bias_once(params);
}

// A choice that is the beginning of another can end only by a stop id.
void check_choice(const SamplingParams& params, const std::vector<int32_t>& choice, int64_t vocab) {
  const auto size = static_cast<int64_t>(choice.size());
  check_sequence("allow", choice, vocab);
  if (size > params.max_tokens) {
    refuse("allow", "found a choice of " + text(size) + " tokens",
           "at most maxTokens (" + text(params.max_tokens) + ")");
  }
  if (size < params.min_tokens) {
    refuse("minTokens", "found " + text(params.min_tokens) + " with a choice of " + text(size) +
               " tokens", "at most the length of the shortest choice");
  }
  for (const int32_t id : choice) {
    if (std::find(params.stop_token_ids.begin(), params.stop_token_ids.end(), id) !=
        params.stop_token_ids.end()) {
      refuse("allow", "found the stop id " + text(int64_t{id}) + " in a choice",
             "choices without stop ids");
    }
  }
  for (const std::vector<int32_t>& other : params.allow_choices) {
    const bool begins = other.size() > choice.size() &&
                        std::equal(choice.begin(), choice.end(), other.begin());
    if (begins && params.stop_token_ids.empty()) {
      refuse("allow", "found a choice that begins another one while stopTokenIds is empty",
             "stopTokenIds, so that the shorter one can end");
    }
  }
}

void check_allow(const SamplingParams& params, int64_t vocab) {
  check_ids("allow", params.allow_tokens, vocab);
  if (params.allow_choices.empty() && params.allow_tokens.empty()) return;
  if (!params.allow_choices.empty() && !params.allow_tokens.empty()) {
    refuse("allow", "found tokens and choices", "one of them");
  }
  if (params.allow_choices.size() > kMaxChoices) {
    refuse("allow", "found " + text(static_cast<int64_t>(params.allow_choices.size())) + " choices",
           "at most " + text(static_cast<int64_t>(kMaxChoices)));
  }
  std::set<std::vector<int32_t>> seen;
  for (const std::vector<int32_t>& choice : params.allow_choices) {
    check_choice(params, choice, vocab);
    if (!seen.insert(choice).second) refuse("allow", "found a choice twice", "distinct choices");
  }
  const auto allowed = [&](int64_t id) {
    return id < 0 || (params.allow_choices.empty() &&
                      std::find(params.allow_tokens.begin(), params.allow_tokens.end(), id) !=
                          params.allow_tokens.end());
  };
  if (!allowed(params.forced_first_token)) {
    refuse("forcedFirstToken", "found a token that allow excludes", "a token of allow");
  }
  if (!allowed(params.forced_last_token)) {
    refuse("forcedLastToken", "found a token that allow excludes", "a token of allow");
  }
}

}  // namespace

void check_params(const SamplingParams& params, int64_t vocab, int64_t context,
                  int64_t max_sequences, bool has_tokenizer) {
  check_ranges(params);
  check_lengths(params, vocab, context);
  check_stops(params, vocab, has_tokenizer);
  check_bias(params, vocab, context);
  check_allow(params, vocab);
  check_beams(params, context, max_sequences);
}

}  // namespace polylm
