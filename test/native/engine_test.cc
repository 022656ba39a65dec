// engine_test.cc: the engine's promises one by one, on the simulated device: what is refused and
// how, results, events, the queue, cancelling in every phase. Failures and the end:
// engine_end_test.cc.
#include <cmath>
#include <thread>

#include "engine/engine.h"
#include "engine/scoring.h"
#include "engine_rig.h"
#include "harness.h"
#include "text/tokenizer.h"

namespace polylm::test {
namespace {

using std::chrono::milliseconds;

double field(const Error& error, const std::string& name) {
  for (const ErrorField& f : error.fields()) {
    if (name == f.name) return f.number;
  }
  return -1;
}

Error prepare_error(const Request& request, const EngineOptions& options,
                    const Tokenizer* tokenizer = nullptr) {
  try {
    prepare_request(request, sim_intake_limits({}, options), tokenizer);
  } catch (const Error& error) {
    return error;
  }
  return {Code::kFormatUnknown, "no error"};
}

Work prepared(const Request& request, const Tokenizer* tokenizer = nullptr) {
  return prepare_request(request, sim_intake_limits({}, small_engine()), tokenizer);
}

// ------------------------------------------------------------------------------------- intake

TEST(engine_intake_refuses_bad_prompts) {
  const EngineOptions options = small_engine();
  EXPECT_EQ(prepare_error(Request{}, options).code(), Code::kInvalidPrompt);
  EXPECT_EQ(prepare_error(ids_request({}), options).code(), Code::kTokenizerMissing);
  EXPECT_EQ(prepare_error(text_request("a"), options).code(), Code::kTokenizerMissing);
  const Error range = prepare_error(ids_request({1, 2, 61}), options);
  EXPECT_EQ(range.code(), Code::kInvalidPrompt);
  EXPECT_EQ(field(range, "index"), 2.0);
  EXPECT_EQ(prepare_error(ids_request({-1}), options).code(), Code::kInvalidPrompt);
  const auto tokenizer = sim_tokenizer(61);
  const std::string most(static_cast<size_t>(64 * 96), 'a');
  EXPECT_EQ(prepare_error(text_request(most + "a"), options, tokenizer.get()).code(),
            Code::kContextOverflow);
  EXPECT_EQ(prepare_error(text_request(most), options, tokenizer.get()).code(),
            Code::kContextOverflow);
}

TEST(engine_intake_fits_the_context) {
  const EngineOptions options = small_engine();
  const Error overflow = prepare_error(ids_request(counting(90), 7), options);
  EXPECT_EQ(overflow.code(), Code::kContextOverflow);
  EXPECT_EQ(field(overflow, "promptTokens"), 90.0);
  EXPECT_EQ(field(overflow, "maxTokens"), 7.0);
  EXPECT_EQ(field(overflow, "contextSize"), 96.0);
  EXPECT_EQ(prepared(ids_request(counting(90), 6)).max_tokens, int64_t{6});
  Request open = ids_request(counting(90), 256);
  open.max_tokens_given = false;
  EXPECT_EQ(prepared(open).max_tokens, int64_t{6});
  open.prompt[0].ids = counting(96);
  EXPECT_EQ(prepare_error(open, options).code(), Code::kContextOverflow);
  Request cut = ids_request(counting(120), 10);
  cut.truncate_left = true;
  const Work work = prepared(cut);
  EXPECT_EQ(static_cast<int64_t>(work.ids.size()), int64_t{86});
  EXPECT_EQ(work.truncated, int64_t{34});
  EXPECT_EQ(work.ids.front(), counting(120)[34]);
  cut.params.max_tokens = 96;
  EXPECT_EQ(prepare_error(cut, options).code(), Code::kContextOverflow);
}

TEST(engine_intake_fits_scores_and_logits) {
  const EngineOptions options = small_engine();
  Request score = ids_request(counting(97));
  score.kind = RequestKind::kScore;
  score.score_from = 1;
  EXPECT_EQ(prepared(score).prompt_rows, int64_t{96});  // the last token is never computed
  score.prompt[0].ids = counting(98);
  EXPECT_EQ(prepare_error(score, options).code(), Code::kContextOverflow);
  score.truncate_left = true;
  EXPECT_EQ(prepare_error(score, options).code(), Code::kContextOverflow);  // would lose a score
  score.score_from = 90;
  EXPECT_EQ(prepared(score).request.score_from, int64_t{89});
  score.score_from = 98;
  EXPECT_EQ(prepared(score).prompt_rows, int64_t{0});  // nothing to score
  score.score_from = 99;
  EXPECT_EQ(prepare_error(score, options).code(), Code::kInvalidOption);
  score.score_from = 0;
  EXPECT_EQ(prepare_error(score, options).code(), Code::kInvalidOption);
  Request logits = ids_request(counting(10));
  logits.kind = RequestKind::kLogits;
  logits.logits_positions = {-1, 3, 3};
  const Work work = prepared(logits);
  EXPECT(work.positions == (std::vector<int64_t>{9, 3, 3}));
  EXPECT(work.kept == (std::vector<int64_t>{3, 9}));
  logits.logits_positions = {10};
  EXPECT_EQ(prepare_error(logits, options).code(), Code::kInvalidOption);
  logits.logits_positions = {-11};
  EXPECT_EQ(prepare_error(logits, options).code(), Code::kInvalidOption);
}

TEST(engine_intake_refuses_what_can_never_fit) {
  EngineOptions options = small_engine();
  Request wide = ids_request(counting(8));
  wide.params.num_beams = 9;
  EXPECT_EQ(prepare_error(wide, options).code(), Code::kInvalidOption);
  wide.params.num_beams = 8;
  options.kv_blocks = 17;  // 2 shared, 8 x 2 of their own
  const Error error = prepare_error(wide, options);
  EXPECT_EQ(error.code(), Code::kInsufficientMemory);
  EXPECT_EQ(field(error, "required"), 18.0);
  EXPECT_EQ(field(error, "available"), 17.0);
  EXPECT(!error.hint().empty());
  options.kv_blocks = 18;
  EXPECT_EQ(prepare_error(wide, options).code(), Code::kFormatUnknown);
}

TEST(engine_intake_joins_parts) {
  const auto tokenizer = sim_tokenizer(61);
  Request request = text_request("ab");
  request.prompt[0].parse_special = true;
  EncodeOptions whole;
  EXPECT(prepared(request, tokenizer.get()).ids == tokenizer->encode("ab", whole));
  PromptPart marker;
  marker.ids = {2};
  marker.is_control = true;
  PromptPart tail;
  tail.text = "a</s>b";
  request.prompt = {request.prompt[0], marker, tail};
  std::vector<int32_t> expected = tokenizer->encode("ab", whole);
  expected.push_back(2);
  EncodeOptions behind;
  behind.parse_special = false;
  behind.at_start = false;
  const std::vector<int32_t> rest = tokenizer->encode("a</s>b", behind);
  for (const int32_t id : rest) EXPECT(id != 2);  // text never becomes a control token
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT(prepared(request, tokenizer.get()).ids == expected);
}

// ------------------------------------------------------------------------------------ results

TEST(engine_generates_scores_and_gives_logits) {
  Rig rig;
  Request greedy = ids_request(counting(20), 20);
  greedy.stream = true;
  const Journal::Entry& entry = rig.expect_right(greedy);
  EXPECT(entry.admitted);
  EXPECT_EQ(entry.prefill_done, int64_t{20});
  EXPECT(entry.deltas >= 1);
  const RequestResult& result = *entry.last.result;
  EXPECT_EQ(result.usage.prompt_tokens, int64_t{20});
  EXPECT_EQ(result.usage.completion_tokens, int64_t{20});
  EXPECT(result.timings.queue_ms >= 0 && result.timings.prefill_ms > 0);
  EXPECT(result.timings.time_to_first_token_ms >=
         result.timings.queue_ms + result.timings.prefill_ms - 1e-6);
  EXPECT(result.timings.decode_ms > 0);

  Request beams = ids_request(counting(9), 12);
  beams.params.num_beams = 4;
  beams.params.n = 2;
  beams.stream = true;
  rig.expect_right(beams);
  Request samples = ids_request(counting(9), 12);
  samples.params.temperature = 1;
  samples.params.n = 5;
  samples.params.seed = 77;
  samples.stream = true;
  EXPECT_EQ(rig.expect_right(samples).last.result->seed, uint64_t{77});

  Request score = ids_request(counting(90));
  score.kind = RequestKind::kScore;
  score.score_from = 5;
  score.score_top = 4;
  EXPECT_EQ(rig.expect_right(score).last.result->scored.size(), size_t{85});
  score.score_from = 90;
  EXPECT(rig.expect_right(score).last.result->scored.empty());
  Request logits = ids_request(counting(30));
  logits.kind = RequestKind::kLogits;
  logits.logits_positions = {29, 0, 7, 29};
  EXPECT_EQ(rig.expect_right(logits).last.result->logits_rows, int64_t{4});
}

TEST(engine_score_row_counts_the_listed_token) {
  // Four logits 1, 3, 2, 3: token 3 equals the argmax, which is token 1.
  const float logits[] = {3.0F};
  const int32_t ids[] = {1, 2, 0};
  const float rest[] = {3.0F, 2.0F, 1.0F};
  SelectResult row;
  row.listed_logits = logits;
  row.candidate_count = 3;
  row.candidate_ids = ids;
  row.candidate_logits = rest;
  row.rest_max = 3.0F;
  row.rest_sum_exp = 1 + std::exp(-1.0) + std::exp(-2.0);
  const double log_sum = 3 + std::log(2 + std::exp(-1.0) + std::exp(-2.0));
  ScoredToken scored = score_row(row, 3, 4);
  EXPECT_NEAR(scored.token.logprob, 3 - log_sum, 1e-6);
  EXPECT(!scored.is_greedy);
  EXPECT_EQ(scored.token.top.size(), size_t{4});
  EXPECT_EQ(scored.token.top[0].id, 1);
  EXPECT_EQ(scored.token.top[1].id, 3);
  EXPECT_EQ(scored.token.top[3].id, 0);
  EXPECT_NEAR(scored.token.top[3].logprob, 1 - log_sum, 1e-6);
  // The only token of a vocabulary.
  SelectResult only;
  only.listed_logits = logits;
  only.rest_max = -INFINITY;
  scored = score_row(only, 0, 3);
  EXPECT_NEAR(scored.token.logprob, 0, 0);
  EXPECT(scored.is_greedy);
  EXPECT_EQ(scored.token.top.size(), size_t{1});
  row.finite = false;
  EXPECT_THROWS_CODE(Code::kNumeric, score_row(row, 3, 0));
}

TEST(engine_streams_text_with_stop_strings) {
  SimOptions sim;
  const auto tokenizer = sim_tokenizer(sim.vocab);
  Rig rig(sim, small_engine(), tokenizer);
  int64_t stopped = 0;
  for (int32_t i = 0; i < 40; ++i) {
    Request request = ids_request({3, 4, i}, 40);
    request.params.temperature = 1;
    request.params.seed = i;
    request.params.n = 2;
    request.params.stop = {"ab", "xam"};
    request.params.include_stop = i % 2 == 0;
    request.stream = true;
    const RequestResult& result = *rig.expect_right(request).last.result;
    for (const OutputResult& output : result.outputs) stopped += output.stopped_by_string >= 0;
  }
  EXPECT(stopped > 5);
}

TEST(engine_wakes_at_most_once_for_what_waits) {
  Rig rig;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 30; ++i) {
    Request request = ids_request(counting(20), 30);
    request.stream = true;
    ids.push_back(rig.engine->submit(request));
  }
  while (rig.engine->stats().running + rig.engine->stats().waiting > 0) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(rig.wakes.load(), int64_t{1});  // nobody took anything
  for (const uint64_t id : ids) rig.wait(id);
}

// ------------------------------------------------------------------------------------- queue

TEST(engine_queue_is_bounded) {
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  options.max_queue = 3;
  SimOptions sim;
  sim.layer_us = 2000;
  Rig rig(sim, options);
  int64_t accepted = 0;
  Code refused = Code::kFormatUnknown;
  double waiting = 0;
  for (int i = 0; i < 10; ++i) {
    try {
      rig.engine->submit(ids_request(counting(5), 50));
      ++accepted;
    } catch (const Error& error) {
      refused = error.code();
      waiting = field(error, "waiting");
      EXPECT(field(error, "retryAfterMs") > 0);
    }
  }
  EXPECT_EQ(refused, Code::kQueueFull);
  EXPECT_EQ(waiting, 3.0);
  EXPECT(accepted >= 3 && accepted <= 4);
  EXPECT_EQ(rig.engine->stats().rejected, 10 - accepted);
}

TEST(engine_queue_timeout) {
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  SimOptions sim;
  sim.layer_us = 1000;
  Rig rig(sim, options);
  const uint64_t first = rig.engine->submit(ids_request(counting(5), 80));
  Request hasty = ids_request(counting(5), 50);
  hasty.queue_timeout_ms = 10;
  const uint64_t second = rig.engine->submit(hasty);
  EXPECT_EQ(rig.failure_of(second), Code::kQueueTimeout);
  EXPECT(!rig.journal.ended(first));
  EXPECT(rig.wait(first).last.result != nullptr);
  hasty.queue_timeout_ms = 10000;
  EXPECT(rig.wait(rig.engine->submit(hasty)).last.result != nullptr);
}

TEST(engine_interactive_requests_go_before_batch_requests) {
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  SimOptions sim;
  sim.layer_us = 300;
  Rig rig(sim, options);
  const uint64_t running = rig.engine->submit(ids_request(counting(5), 30));
  Request batch = ids_request(counting(5), 20);
  batch.batch = true;
  const uint64_t later = rig.engine->submit(batch);
  const uint64_t sooner = rig.engine->submit(ids_request(counting(5), 20));
  rig.wait(sooner);
  EXPECT(rig.journal.ended(running));
  EXPECT(!rig.journal.ended(later));
  rig.wait(later);
}

// ------------------------------------------------------------------------------------ cancel

TEST(engine_cancel_before_the_first_token) {
  EngineOptions options = small_engine();
  options.max_sequences = 1;
  options.budget_prefill = 4;
  SimOptions sim;
  sim.layer_us = 1000;
  Rig rig(sim, options);
  for (const bool with_result : {false, true}) {
    Request request = ids_request(counting(60), 30);
    request.return_on_abort = with_result;
    request.stream = true;
    const uint64_t running = rig.engine->submit(request);
    const uint64_t waiting = rig.engine->submit(request);
    std::this_thread::sleep_for(milliseconds(5));  // its prefill takes 15 steps of 2 ms
    rig.engine->cancel(waiting);
    rig.engine->cancel(running);
    for (const uint64_t id : {waiting, running}) {
      const Journal::Entry& entry = rig.wait(id);
      EXPECT_EQ(entry.last.result != nullptr, with_result);
      if (!with_result) {
        EXPECT_EQ(entry.last.error->code(), Code::kAborted);
        continue;
      }
      EXPECT_EQ(entry.last.result->outputs.size(), size_t{1});
      EXPECT(entry.last.result->outputs[0].finish_reason == FinishReason::kAbort);
      EXPECT(entry.last.result->outputs[0].tokens.empty());
    }
  }
  rig.engine->cancel(1);     // ended
  rig.engine->cancel(9999);  // never was
  rig.engine->cancel(0);
  EXPECT(rig.wait(rig.engine->submit(ids_request(counting(3)))).last.result != nullptr);
  EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});
  EXPECT_EQ(rig.engine->stats().aborted, int64_t{4});
}

TEST(engine_cancel_while_decoding) {
  SimOptions sim;
  sim.layer_us = 1000;
  Rig rig(sim);
  for (const bool with_result : {false, true}) {
    Request request = ids_request(counting(3), 90);
    request.stream = true;
    request.return_on_abort = with_result;
    const uint64_t id = rig.engine->submit(request);
    rig.wait_for_delta(id);
    rig.engine->cancel(id);
    const Journal::Entry& entry = rig.wait(id);
    EXPECT_EQ(entry.last.result != nullptr, with_result);
    if (!with_result) continue;
    const OutputResult& output = entry.last.result->outputs[0];
    EXPECT(output.finish_reason == FinishReason::kAbort);
    EXPECT(!output.tokens.empty() && output.tokens.size() < 90);
    EXPECT_EQ(abort_difference(rig.alone(request), request, entry.last), std::string());
    EXPECT_EQ(Journal::delta_difference(entry, request), std::string());
  }
}

}  // namespace
}  // namespace polylm::test
