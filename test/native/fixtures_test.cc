// fixtures_test.cc: the whole engine against Hugging Face's tokens. The reference in fp32 must
// reproduce every case of the fixtures, both beam algorithms included; the fast paths in bf16 must
// wherever the fixtures' own bf16 simulation does and the margins allow a verdict.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "backends.h"
#include "engine/engine.h"
#include "flat_model.h"
#include "harness.h"

#ifdef POLYLM_ONLY_CUDA
#include <cuda_runtime.h>
#endif

namespace polylm::test {
namespace {

// An engine over a fixture on one device, and a blocking call into it.
class Runner {
 public:
  Runner(const FlatModel& flat, const std::string& device, Precision precision)
      : engine_(flat.load(make_ops({.device = device, .precision = precision, .threads = 2})),
                nullptr, options(flat), [this] { wake(); }) {}

  // Runs requests together; results in their order.
  std::vector<RequestResult> run(std::vector<Request> requests) {
    std::vector<uint64_t> ids;
    for (Request& request : requests) ids.push_back(engine_.submit(std::move(request)));
    std::vector<RequestResult> results(ids.size());
    for (size_t open = ids.size(); open > 0;) {
      for (const Event& event : wait()) {
        const auto at = std::find(ids.begin(), ids.end(), event.request) - ids.begin();
        if (event.kind == EventKind::kFailed) throw *event.error;
        if (event.kind != EventKind::kFinished) continue;
        results[static_cast<size_t>(at)] = *event.result;
        --open;
      }
    }
    return results;
  }
  RequestResult run(const Request& request) { return run(std::vector<Request>{request}).front(); }

 private:
  static EngineOptions options(const FlatModel& flat) {
    EngineOptions o;
    o.context_size = flat.config().context_size;
    o.kv_blocks = blocks_for_tokens(16 * o.context_size, 16);
    return o;
  }
  void wake() {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    condition_.notify_all();
  }
  std::vector<Event> wait() {
    std::unique_lock lock(mutex_);
    condition_.wait(lock, [this] { return woken_; });
    woken_ = false;
    lock.unlock();
    std::vector<Event> events;
    engine_.take_events(&events);
    return events;
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;
  Engine engine_;
};

Request request(std::vector<int32_t> prompt, int64_t max_tokens, int32_t eos) {
  Request r;
  r.prompt.push_back({.text = "", .ids = std::move(prompt), .is_control = false,
                      .parse_special = false});
  r.max_tokens_given = true;
  r.params.max_tokens = max_tokens;
  r.params.stop_token_ids = {eos};
  return r;
}

// Of a list of cases: all, or one where a step takes a tenth of a second (an emulated card).
#ifdef POLYLM_FEW_FIXTURES
constexpr bool kFew = true;
#else
constexpr bool kFew = false;
#endif
int64_t cases_of(const FlatModel& flat, const std::string& list) {
  const int64_t count = flat.length(list);
  return kFew ? std::min<int64_t>(count, 1) : count;
}

struct Tally {
  int compared = 0;
  int outside = 0;  // cases whose tokens the fixture itself calls unsafe in bf16
};

int32_t eos_of(const FlatModel& flat, const std::string& at) {
  return static_cast<int32_t>(
      flat.number(flat.has(at + "/eos_token_id") ? at + "/eos_token_id" : "config/eos_token_id"));
}

// Whether a bf16 engine must reproduce the case token by token.
bool safe(const FlatModel& flat, const std::string& at, bool beams) {
  if (flat.number(at + "/bf16_sim_agrees") == 0) return false;
  if (beams) return flat.text(at + "/noise_runs_agreeing") == "3/3";
  const std::vector<double>& margins = flat.numbers(at + "/min_margin");
  return *std::min_element(margins.begin(), margins.end()) > 0.15;
}

// Guessing must give the same tokens, safe or not, also of noise.
void speculated(Request r, const std::vector<int32_t>& greedy, Runner& runner) {
  r.params.speculate_lookup = true;
  EXPECT(runner.run(r).outputs.at(0).tokens == greedy);
  r.params.temperature = 0.5;
  r.params.seed = 7;
  const std::vector<int32_t> sampled = runner.run(r).outputs.at(0).tokens;
  r.params.speculate_lookup = false;
  EXPECT(runner.run(r).outputs.at(0).tokens == sampled);
}

void greedy_cases(const FlatModel& flat, Runner& runner, bool exact, Tally* tally) {
  std::vector<const char*> kinds = {"greedy", "repetition_penalty"};
  if (!kFew) kinds.insert(kinds.end(), {"greedy_eos", "no_repeat_ngram"});
  for (const char* kind : kinds) {
    const std::string list = std::string("expected/") + kind;
    for (int64_t i = 0; i < cases_of(flat, list); ++i) {
      const std::string at = list + "/" + std::to_string(i);
      Request r = request(flat.ids(at + "/prompt"),
                          static_cast<int64_t>(flat.number(at + "/max_new_tokens")),
                          eos_of(flat, at));
      if (flat.has(at + "/repetition_penalty")) {
        r.params.repetition_penalty = flat.number(at + "/repetition_penalty");
      }
      if (flat.has(at + "/no_repeat_ngram_size")) {
        r.params.no_repeat_ngram_size =
            static_cast<int64_t>(flat.number(at + "/no_repeat_ngram_size"));
      }
      const std::vector<int32_t> tokens = runner.run(r).outputs.at(0).tokens;
      if (!kFew && std::string(kind) == "greedy" && i < 3) speculated(r, tokens, runner);
      if (!exact && !safe(flat, at, false)) {
        ++tally->outside;
        continue;
      }
      ++tally->compared;
      const bool same = tokens == flat.ids(at + "/generated");
      if (!same) std::printf("    differs: %s\n", at.c_str());
      EXPECT(same);
    }
  }
}

void left_padded(const FlatModel& flat, Runner& runner, bool exact, Tally* tally) {
  const std::string at = "expected/left_padded_greedy";
  std::vector<Request> batch;
  const int64_t count = flat.length(at + "/prompts");
  for (int64_t i = 0; i < count; ++i) {
    const std::string row = std::to_string(i);
    batch.push_back(request(flat.ids(at + "/prompts/" + row),
                            static_cast<int64_t>(flat.number(at + "/max_new_tokens")),
                            eos_of(flat, at)));
    batch.back().params.pad_to_length =
        static_cast<int64_t>(flat.numbers(at + "/input_ids/" + row).size());
  }
  const std::vector<RequestResult> results = runner.run(std::move(batch));
  if (!exact && !safe(flat, at, false)) {
    ++tally->outside;
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    ++tally->compared;
    EXPECT(results[static_cast<size_t>(i)].outputs.at(0).tokens ==
           flat.ids(at + "/generated/" + std::to_string(i)));
  }
}

struct BeamCase {
  std::string at;
  Request request;
};

BeamCase beam_case(const FlatModel& flat, const std::string& at, std::vector<int32_t> prompt,
                   int64_t max_tokens, BeamScoring scoring) {
  BeamCase c{.at = at, .request = request(std::move(prompt), max_tokens, eos_of(flat, at))};
  SamplingParams& p = c.request.params;
  p.num_beams = static_cast<int64_t>(flat.number(at + "/num_beams"));
  p.n = static_cast<int64_t>(flat.number(at + "/num_return_sequences"));
  p.length_penalty = flat.number(at + "/length_penalty");
  p.beam_scoring = scoring;
  const std::string stopping = at + "/early_stopping";
  const bool never = flat.numbers(stopping).size() > 1;
  p.early_stopping = never                          ? EarlyStopping::kNever
                     : flat.number(stopping) != 0   ? EarlyStopping::kTrue
                                                    : EarlyStopping::kFalse;
  return c;
}

// Compares outputs with rows [first, first + outputs) of the expected sequences: tokens where the
// verdict is safe, scores of every output whose tokens agree.
void compare_beams(const FlatModel& flat, const std::string& expected, int64_t first,
                   const RequestResult& result, double score_tolerance, bool tokens) {
  const std::vector<double>& scores = flat.numbers(expected + "/sequences_scores");
  for (size_t k = 0; k < result.outputs.size(); ++k) {
    const auto row = static_cast<size_t>(first) + k;
    const bool same = result.outputs[k].tokens ==
                      flat.ids(expected + "/sequences/" + std::to_string(row));
    EXPECT(same || !tokens);
    if (same) EXPECT_NEAR(result.outputs[k].score, scores.at(row), score_tolerance);
  }
}

void beam_cases(const FlatModel& flat, Runner& runner, bool exact, Tally* tally) {
  const double tolerance =
      exact ? 1e-3
            : 2 * flat.number("expected/yardstick/bf16_gemm_inputs_fp32_accumulate_fp32_residual/"
                              "mean_abs");
  for (int64_t i = 0; i < cases_of(flat, "expected/beam"); ++i) {
    const std::string base = "expected/beam/" + std::to_string(i);
    const std::vector<int32_t> prompt = flat.ids(base + "/prompt");
    for (int64_t v = 0; v < cases_of(flat, base + "/variants"); ++v) {
      const std::string at = base + "/variants/" + std::to_string(v);
      for (const BeamScoring scoring : {BeamScoring::kHf431, BeamScoring::kHf455}) {
        if (kFew && scoring == BeamScoring::kHf455) break;
        const bool tokens = exact || safe(flat, at, true);
        ++(tokens ? tally->compared : tally->outside);
        const BeamCase c =
            beam_case(flat, at, prompt, static_cast<int64_t>(flat.number(at + "/max_new_tokens")),
                      scoring);
        compare_beams(flat, scoring == BeamScoring::kHf431 ? at : at + "/v4.55", 0,
                      runner.run(c.request), tolerance, tokens);
      }
    }
  }
}

void padded_beam_batch(const FlatModel& flat, Runner& runner, bool exact, Tally* tally) {
  const std::string at = "expected/beam_batch_left_padded";
  if (!flat.has(at + "/max_length")) return;
  if (!exact && !safe(flat, at, true)) {
    ++tally->outside;
    return;
  }
  const auto padded = static_cast<int64_t>(flat.number(at + "/padded_length"));
  const int64_t max_tokens = static_cast<int64_t>(flat.number(at + "/max_length")) - padded;
  for (const BeamScoring scoring : {BeamScoring::kHf431, BeamScoring::kHf455}) {
    std::vector<Request> batch;
    for (int64_t i = 0; i < flat.length(at + "/prompts"); ++i) {
      BeamCase c = beam_case(flat, at, flat.ids(at + "/prompts/" + std::to_string(i)), max_tokens,
                             scoring);
      c.request.params.pad_to_length = padded;
      batch.push_back(std::move(c.request));
    }
    const int64_t n = batch.front().params.n;
    const std::vector<RequestResult> results = runner.run(std::move(batch));
    for (size_t i = 0; i < results.size(); ++i) {
      ++tally->compared;
      compare_beams(flat, scoring == BeamScoring::kHf431 ? at : at + "/v4.55",
                    static_cast<int64_t>(i) * n, results[i], exact ? 1e-3 : 0.1, true);
    }
  }
}

void score_continuation(const FlatModel& flat, Runner& runner, bool exact) {
  const std::string at = "expected/score_continuation";
  std::vector<int32_t> ids = flat.ids(at + "/prompt");
  Request r = request(ids, 1, 2);
  const std::vector<int32_t> rest = flat.ids(at + "/continuation");
  r.kind = RequestKind::kScore;
  r.score_from = static_cast<int64_t>(ids.size());
  r.prompt.at(0).ids.insert(r.prompt.at(0).ids.end(), rest.begin(), rest.end());
  const RequestResult result = runner.run(r);
  const std::vector<double>& expected = flat.numbers(at + "/token_logprobs");
  EXPECT_EQ(result.scored.size(), expected.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(result.scored.size(), expected.size()); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(result.scored[i].token.logprob) -
                                      expected[i]));
  }
  EXPECT(worst < (exact ? 1e-3 : 0.4));
}

void all_cases(const char* name, const std::string& device, Precision precision) {
  const FlatModel flat = FlatModel::open(name);
  Runner runner(flat, device, precision);
  const bool exact = precision == Precision::kFp32;
  Tally tally;
  greedy_cases(flat, runner, exact, &tally);
  if (!kFew) left_padded(flat, runner, exact, &tally);
  beam_cases(flat, runner, exact, &tally);
  if (!kFew) padded_beam_batch(flat, runner, exact, &tally);
  score_continuation(flat, runner, exact);
  std::printf("    %s on %s: tokens of %d cases, %d without a safe verdict\n", name, device.c_str(),
              tally.compared, tally.outside);
  EXPECT(tally.compared > (kFew ? 0 : exact ? 80 : 15));
}

#ifndef POLYLM_ONLY_CUDA
// Runs with POLYLM_ISA forced; an instruction set that this machine or build lacks is a skip.
void with_isa(const char* isa, void (*body)()) {
  ::setenv("POLYLM_ISA", isa, 1);
  std::string reason;
  try {
    make_ops({.device = "cpu"});
    body();
  } catch (const Error& e) {
    if (e.code() != Code::kDevice) {
      ::unsetenv("POLYLM_ISA");
      throw;
    }
    reason = e.message();
  }
  ::unsetenv("POLYLM_ISA");
  if (!reason.empty()) skip(reason);
}

void both_bf16() {
  all_cases("gpt2-tiny", "cpu", Precision::kBf16);
  all_cases("gpt2-mid", "cpu", Precision::kBf16);
}
#endif

#ifdef POLYLM_CUDA
// On the first card; a machine without one is a skip.
void on_card(const char* name, Precision precision) {
  try {
    make_ops({.device = "cuda"});
  } catch (const Error& e) {
    skip(e.message());
  }
  all_cases(name, "cuda", precision);
#ifdef POLYLM_ONLY_CUDA
  EXPECT(emulator::calls().graph_launches > 10);  // most steps are replays of graphs
#endif
}
#endif

}  // namespace

#ifdef POLYLM_CUDA
TEST(fixtures_cuda_bf16_tiny) { on_card("gpt2-tiny", Precision::kBf16); }
#ifndef POLYLM_FEW_FIXTURES
TEST(fixtures_cuda_fp32_tiny) { on_card("gpt2-tiny", Precision::kFp32); }
TEST(fixtures_cuda_fp32_mid) { on_card("gpt2-mid", Precision::kFp32); }
TEST(fixtures_cuda_bf16_mid) { on_card("gpt2-mid", Precision::kBf16); }
#endif
#endif

#ifndef POLYLM_ONLY_CUDA
TEST(fixtures_ref_fp32_tiny) { all_cases("gpt2-tiny", "ref", Precision::kFp32); }
TEST(fixtures_ref_fp32_mid) { all_cases("gpt2-mid", "ref", Precision::kFp32); }
TEST(fixtures_cpu_fp32_tiny) { all_cases("gpt2-tiny", "cpu", Precision::kFp32); }
TEST(fixtures_cpu_fp32_mid) { all_cases("gpt2-mid", "cpu", Precision::kFp32); }
TEST(fixtures_bf16_scalar) { with_isa("scalar", both_bf16); }
TEST(fixtures_bf16_avx2) { with_isa("avx2", both_bf16); }
TEST(fixtures_bf16_avx512) { with_isa("avx512", both_bf16); }
TEST(fixtures_bf16_avx512bf16) { with_isa("avx512bf16", both_bf16); }
TEST(fixtures_bf16_amx) { with_isa("amx", both_bf16); }
TEST(fixtures_bf16_neon) { with_isa("neon", both_bf16); }
TEST(fixtures_bf16_neonbf16) { with_isa("neonbf16", both_bf16); }
#endif

}  // namespace polylm::test
