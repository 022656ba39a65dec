// sim_reference.cc: the engine's oracle on the simulated device.
#include "sim_reference.h"

#include <algorithm>
#include <cmath>

#include "engine/decoder.h"
#include "harness.h"
#include "tokenizer_fixture.h"

namespace polylm::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

class RowsOf final : public FullRows {
 public:
  explicit RowsOf(const std::vector<SimRow>* rows) : rows_(rows) {}
  const float* row(int64_t index) override { return (*rows_)[at(index)].logits.data(); }

 private:
  const std::vector<SimRow>* rows_;
};

std::vector<float> logits_after(const SimOptions& options, uint64_t history) {
  std::vector<float> logits(at(options.vocab));
  sim_logits(options, history, logits.data());
  return logits;
}

void reference_generate(const SimOptions& options, const Work& work,
                        std::shared_ptr<const Tokenizer> tokenizer, RequestResult* out) {
  const auto decoder = make_decoder(work.request.params, work.ids, work.max_tokens, options.vocab,
                                    std::move(tokenizer));
  std::vector<uint64_t> histories{sim_start(options)};
  for (const int32_t id : work.ids) histories[0] = sim_extend(histories[0], id, false);
  while (decoder->width() > 0) {
    const int64_t width = decoder->width();
    std::vector<std::vector<int32_t>> listed(at(width));
    std::vector<SimRow> rows(at(width));
    std::vector<SelectResult> results;
    for (int64_t h = 0; h < width; ++h) {
      const SelectNeeds needs = decoder->needs(h, &listed[at(h)]);
      rows[at(h)].logits = logits_after(options, histories[at(h)]);
      SelectRow wanted;
      wanted.listed = listed[at(h)].data();
      wanted.listed_count = static_cast<int64_t>(listed[at(h)].size());
      wanted.temperature = needs.temperature;
      results.push_back(sim_select(wanted, &rows[at(h)]));
      if (!results.back().finite) fail(Code::kNumeric, "not finite");
    }
    RowsOf full(&rows);
    std::vector<Transition> next;
    decoder->advance(results.data(), listed.data(), full, &next);
    std::vector<uint64_t> before = histories;
    histories.clear();
    for (const Transition& t : next) {
      histories.push_back(sim_extend(before[at(t.parent)], t.token, options.roles_matter));
    }
  }
  out->outputs = decoder->finish(false);
}

// From all logits, the plain way.
ScoredToken plain_score(const std::vector<float>& logits, int32_t token, int64_t top) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  std::vector<int32_t> order(logits.size());
  for (size_t v = 0; v < order.size(); ++v) order[v] = static_cast<int32_t>(v);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[at(a)] > logits[at(b)]; });
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[at(id)]) - std::log(sum));
  };
  ScoredToken scored;
  scored.token.id = token;
  scored.token.logprob = logprob(token);
  scored.is_greedy = order[0] == token;
  for (int64_t i = 0; i < std::min(top, static_cast<int64_t>(order.size())); ++i) {
    scored.token.top.push_back({order[at(i)], logprob(order[at(i)])});
  }
  return scored;
}

void reference_rows(const SimOptions& options, const Work& work, RequestResult* out) {
  uint64_t history = sim_start(options);
  const bool score = work.request.kind == RequestKind::kScore;
  out->logits_rows = static_cast<int64_t>(work.positions.size());
  out->logits.resize(work.positions.size() * at(options.vocab));
  if (score) out->prompt_ids = work.ids;
  for (int64_t row = 0; row < work.prompt_rows; ++row) {
    history = sim_extend(history, work.ids[at(row)], false);
    const std::vector<float> logits = logits_after(options, history);
    const bool wanted = score ? row + 1 >= work.request.score_from
                              : std::count(work.kept.begin(), work.kept.end(), row) > 0;
    if (!wanted) continue;
    if (std::isnan(logits[0])) fail(Code::kNumeric, "not finite");
    if (score) {
      out->scored.push_back(
          plain_score(logits, work.ids[at(row + 1)], work.request.score_top));
    }
    for (size_t i = 0; i < work.positions.size(); ++i) {
      if (work.positions[i] == row) {
        std::copy(logits.begin(), logits.end(), &out->logits[at(options.vocab) * i]);
      }
    }
  }
}

bool near(float a, float b) { return std::fabs(a - b) <= 1e-5F; }

std::string token_difference(const TokenInfo& a, const TokenInfo& b, bool exact) {
  if (a.id != b.id) return "token " + show(a.id) + " became " + show(b.id);
  if (a.text_begin != b.text_begin || a.text_end != b.text_end) return "text range of a token";
  if (exact ? a.logprob != b.logprob : !near(a.logprob, b.logprob)) return "logprob of a token";
  if (a.top.size() != b.top.size()) return "number of alternatives";
  for (size_t i = 0; i < a.top.size(); ++i) {
    if (a.top[i].id != b.top[i].id) return "alternative";
    if (exact ? a.top[i].logprob != b.top[i].logprob : !near(a.top[i].logprob, b.top[i].logprob)) {
      return "logprob of an alternative";
    }
  }
  return "";
}

std::string output_difference(const OutputResult& a, const OutputResult& b) {
  if (a.tokens != b.tokens) {
    size_t i = 0;
    while (i < a.tokens.size() && i < b.tokens.size() && a.tokens[i] == b.tokens[i]) ++i;
    return "tokens differ from " + show(i) + " on";
  }
  if (a.text != b.text) return "text " + quoted(a.text) + " became " + quoted(b.text);
  if (a.finish_reason != b.finish_reason) return "finish reason";
  if (a.stopped_by_token != b.stopped_by_token || a.stopped_by_string != b.stopped_by_string) {
    return "what stopped it";
  }
  if (!(a.score == b.score || (std::isnan(a.score) && std::isnan(b.score)))) return "score";
  if (a.logprobs.size() != b.logprobs.size()) return "number of log-probabilities";
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    const std::string found = token_difference(a.logprobs[i], b.logprobs[i], true);
    if (!found.empty()) return found;
  }
  return "";
}

std::string result_difference(const RequestResult& a, const RequestResult& b) {
  if (a.outputs.size() != b.outputs.size()) return "number of outputs";
  for (size_t i = 0; i < a.outputs.size(); ++i) {
    const std::string found = output_difference(a.outputs[i], b.outputs[i]);
    if (!found.empty()) return "output " + show(i) + ": " + found;
  }
  if (a.scored.size() != b.scored.size()) return "number of scored tokens";
  for (size_t i = 0; i < a.scored.size(); ++i) {
    const std::string found = token_difference(a.scored[i].token, b.scored[i].token, false);
    if (!found.empty()) return "scored token " + show(i) + ": " + found;
    if (a.scored[i].is_greedy != b.scored[i].is_greedy) return "is_greedy";
  }
  if (a.prompt_ids != b.prompt_ids) return "prompt ids";
  if (a.logits_rows != b.logits_rows || a.logits != b.logits) return "logits";
  return "";
}

void random_sampling(Rng& rng, const SimOptions& options, const RequestMix& mix,
                     SamplingParams* params) {
  if (chance(rng, 0.7)) params->stop_token_ids = {2};
  if (chance(rng, 0.2)) params->stop_token_ids.push_back(static_cast<int32_t>(options.vocab - 1));
  if (chance(rng, 0.3)) params->logprobs = pick(rng, 0, 3);
  if (chance(rng, mix.plain)) return;
  params->seed = pick(rng, 0, 1000000);
  const int64_t style = pick(rng, 0, 9);
  if (style >= 8) {
    params->num_beams = pick(rng, 2, mix.most_width);
    params->n = pick(rng, 1, params->num_beams);
    params->early_stopping = static_cast<EarlyStopping>(pick(rng, 0, 2));
    params->length_penalty = chance(rng, 0.5) ? 1.0 : 0.3;
  } else if (style >= 4) {
    params->temperature = 0.3 + 0.2 * static_cast<double>(pick(rng, 0, 5));
    params->n = chance(rng, 0.4) ? pick(rng, 2, mix.most_width) : 1;
    if (chance(rng, 0.3)) params->top_k = pick(rng, 1, 80);
    if (chance(rng, 0.3)) params->top_p = 0.8;
    if (chance(rng, 0.1)) params->min_p = 0.05;
    if (chance(rng, 0.1)) params->typical_p = 0.7;
  }
  if (chance(rng, 0.2)) params->repetition_penalty = 1.3;
  if (chance(rng, 0.1)) params->no_repeat_ngram_size = 2;
  if (chance(rng, 0.1) && params->num_beams == 1) params->frequency_penalty = 0.5;
  if (mix.text && chance(rng, 0.4)) params->stop = {chance(rng, 0.5) ? "ab" : "e c"};
}

}  // namespace

int64_t pick(Rng& rng, int64_t least, int64_t most) {
  return least + static_cast<int64_t>(rng() % static_cast<uint64_t>(most - least + 1));
}

bool chance(Rng& rng, double probability) {
  return static_cast<double>(rng() >> 11) * 0x1.0p-53 < probability;
}

Outcome sim_reference(const SimOptions& options, const Work& work,
                      std::shared_ptr<const Tokenizer> tokenizer) {
  Outcome outcome;
  try {
    if (work.request.kind == RequestKind::kGenerate) {
      reference_generate(options, work, std::move(tokenizer), &outcome.result);
    } else {
      reference_rows(options, work, &outcome.result);
    }
  } catch (const Error& error) {
    outcome.error = error.code();
  }
  return outcome;
}

std::string difference(const Outcome& expected, const Event& last) {
  if (last.error.has_value()) {
    if (!expected.error.has_value()) return "failed: " + last.error->message();
    if (*expected.error != last.error->code()) return "failed otherwise: " + last.error->message();
    return "";
  }
  if (expected.error.has_value()) return std::string("no error ") + code_name(*expected.error);
  return result_difference(expected.result, *last.result);
}

std::string abort_difference(const Outcome& expected, const Request& request, const Event& last) {
  if (last.error.has_value()) return difference(expected, last);
  const std::vector<OutputResult>& got = last.result->outputs;
  const bool aborted = std::any_of(got.begin(), got.end(), [](const OutputResult& output) {
    return output.finish_reason == FinishReason::kAbort;
  });
  if (!aborted) return difference(expected, last);
  if (request.params.num_beams > 1) {  // the whole run may outdo what had finished
    const bool all = std::all_of(got.begin(), got.end(), [](const OutputResult& output) {
      return output.finish_reason == FinishReason::kAbort;
    });
    return all ? "" : "an aborted search with a finished output";
  }
  if (expected.error.has_value()) return "";
  for (size_t i = 0; i < got.size(); ++i) {
    const OutputResult& whole = expected.result.outputs[i];
    if (got[i].tokens.size() > whole.tokens.size() ||
        !std::equal(got[i].tokens.begin(), got[i].tokens.end(), whole.tokens.begin())) {
      return "the aborted output is no beginning of the whole one";
    }
  }
  return "";
}

Request random_request(Rng& rng, const SimOptions& options, const RequestMix& mix) {
  Request request;
  PromptPart part;
  const int64_t length = pick(rng, 1, chance(rng, 0.8) ? mix.most_prompt / 3 : mix.most_prompt);
  for (int64_t i = 0; i < length; ++i) {
    part.ids.push_back(static_cast<int32_t>(pick(rng, 0, options.vocab - 1)));
  }
  if (mix.alike && chance(rng, 0.8)) {  // one of three beginnings, then on its own
    const int64_t family = pick(rng, 1, 3);
    for (int64_t i = 0; i < std::min(length, pick(rng, 1, mix.most_prompt)); ++i) {
      part.ids[at(i)] = static_cast<int32_t>(i * family % options.vocab);
    }
    if (chance(rng, 0.2)) request.cache_salt = "tenant";
  }
  request.prompt.push_back(part);
  request.batch = chance(rng, 0.3);
  if (chance(rng, 0.5)) request.caller = show(pick(rng, 1, 4));
  request.stream = chance(rng, 0.5);
  request.return_on_abort = chance(rng, 0.3);
  request.max_tokens_given = true;
  const int64_t kind = chance(rng, mix.plain) ? 9 : pick(rng, 0, 9);
  if (kind == 0) {
    request.kind = RequestKind::kScore;
    request.score_from = pick(rng, 1, length);
    request.score_top = pick(rng, 0, 5);
  } else if (kind == 1) {
    request.kind = RequestKind::kLogits;
    for (int64_t i = pick(rng, 1, 6); i > 0; --i) {
      request.logits_positions.push_back(pick(rng, -length, length - 1));
    }
  } else {
    request.params.max_tokens = pick(rng, 1, mix.most_tokens);
    random_sampling(rng, options, mix, &request.params);
  }
  return request;
}

IntakeLimits sim_intake_limits(const SimOptions& options, const EngineOptions& engine) {
  IntakeLimits limits;
  limits.context_size = engine.context_size;
  limits.vocab_size = options.vocab;
  limits.max_sequences = engine.max_sequences;
  limits.block_tokens = options.block_tokens;
  limits.kv_blocks = engine.kv_blocks;
  limits.block_bytes = 1;
  return limits;
}

std::shared_ptr<const Tokenizer> sim_tokenizer(int64_t vocab) {
  std::vector<TestPiece> pieces;
  const char* const texts[] = {"a", "b", "c", "d", "e", "\xE2\x96\x81", "\xE2\x96\x81""a",
                               "\xE2\x96\x81""c", "ab", "cd", "\xC3\xA9", "\xE4\xB8\xAD"};
  for (int64_t i = 0; static_cast<int64_t>(pieces.size()) + 3 < vocab; ++i) {
    std::string text;
    if (i < 12) {
      text = texts[i];
    } else {
      text = std::string("x") + static_cast<char>('a' + i % 26) + static_cast<char>('a' + i / 26);
    }
    pieces.push_back({text, -1.0F - 0.01F * static_cast<float>(i)});
  }
  TokenizerTables tables = tables_of(ModelKind::kUnigram, pieces);
  tables.id_limit = static_cast<int32_t>(vocab);
  return Tokenizer::create(std::move(tables));
}

}  // namespace polylm::test
