// scheduler_test.cc: a million random states of plan: budgets, order, nothing left idle; and the
// pace. Not here: who starts (turns_test.cc).
#include <algorithm>

#include "engine/engine.h"
#include "engine/pace.h"
#include "engine/scheduler.h"
#include "harness.h"
#include "platform/checked.h"
#include "sim_reference.h"

namespace polylm::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

struct State {
  std::vector<RunView> runs;
  std::vector<std::vector<int64_t>> kept;
  PlanLimits limits;
  int64_t max_sequences = 0;
};

State random_state(Rng& rng) {
  State state;
  state.max_sequences = pick(rng, 1, 24);
  state.limits.budget_mixed = pick(rng, 1, 64);
  state.limits.budget_prefill = pick(rng, 1, 256);
  state.limits.full_rows = state.max_sequences;
  if (chance(rng, 0.5)) state.limits.prompt_mixed = pick(rng, 16, 64);
  if (chance(rng, 0.5)) state.limits.prompt_alone = pick(rng, 16, 256);
  int64_t rows = 0;
  state.kept.reserve(24);
  while (rows < state.max_sequences && !chance(rng, 0.1)) {
    RunView run;
    const int64_t width = chance(rng, 0.3) ? pick(rng, 1, 8) : 1;
    if (rows + width > state.max_sequences) break;
    rows += width;
    run.prompt_rows = pick(rng, 1, 400);
    run.score_from = run.prompt_rows;
    run.generate = chance(rng, 0.7);
    run.batch = chance(rng, 0.3);
    if (run.generate && chance(rng, 0.5)) {
      run.decode_rows = pick(rng, 1, width);
      run.computed = run.prompt_rows;
      if (run.decode_rows == 1 && chance(rng, 0.5)) run.draft_rows = pick(rng, 1, 8);
    } else {
      run.computed = pick(rng, 0, run.prompt_rows - 1);
    }
    if (!run.generate && chance(rng, 0.5)) run.score_from = pick(rng, 0, run.prompt_rows - 1);
    if (!run.generate && run.score_from == run.prompt_rows) {
      std::vector<int64_t> kept{run.prompt_rows - 1};
      for (int64_t i = pick(rng, 0, 12); i > 0; --i) kept.push_back(pick(rng, 0, kept[0]));
      std::sort(kept.begin(), kept.end());
      kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
      state.kept.push_back(kept);
      run.kept = &state.kept.back();
    }
    state.runs.push_back(run);
  }
  return state;
}

struct Used {
  int64_t rows = 0, scored = 0, full = 0, batch = 0;
};

Used chunk_use(const RunView& run, int64_t rows) {
  Used used;
  used.rows = rows;
  const int64_t end = run.computed + rows;
  used.scored = std::max<int64_t>(0, end - std::max(run.computed, run.score_from));
  if (run.kept != nullptr) {
    used.full = std::lower_bound(run.kept->begin(), run.kept->end(), end) -
                std::lower_bound(run.kept->begin(), run.kept->end(), run.computed);
  }
  return used;
}

void check_plan(const State& state, const BatchPlan& out) {
  int64_t decode_rows = 0;
  size_t next_decode = 0;
  int64_t sampled = 0;
  int64_t spare = state.limits.full_rows;  // for drafts, in order
  for (const RunView& run : state.runs) spare -= std::max<int64_t>(1, run.decode_rows);
  for (size_t i = 0; i < state.runs.size(); ++i) {
    const RunView& run = state.runs[i];
    if (run.generate) sampled += std::max<int64_t>(1, run.decode_rows);
    if (run.decode_rows == 0) continue;
    EXPECT(next_decode < out.decode.size());
    EXPECT_EQ(out.decode[next_decode].run, static_cast<int64_t>(i));
    const int64_t drafts = std::min(spare, run.draft_rows);
    EXPECT_EQ(out.decode[next_decode].rows, run.decode_rows + drafts);
    decode_rows += run.decode_rows + drafts;
    sampled += drafts;
    spare -= drafts;
    ++next_decode;
  }
  EXPECT_EQ(next_decode, out.decode.size());
  const PlanLimits& limits = state.limits;
  int64_t wanted = 0;
  for (const RunView& run : state.runs) {
    if (run.decode_rows == 0) wanted += run.prompt_rows - run.computed;
  }
  int64_t pace = decode_rows == 0 ? limits.prompt_alone : limits.prompt_mixed;
  if (wanted <= pace + pace / 4) pace = wanted;
  const int64_t mixed = std::min(limits.budget_mixed - decode_rows, pace);
  const int64_t budget = decode_rows == 0 ? std::min(limits.budget_prefill, pace)
                                          : std::max(mixed, min_prefill_rows(limits));
  Used used;
  size_t next = 0;
  std::vector<int64_t> given(state.runs.size());
  for (size_t i = 0; i < state.runs.size(); ++i) {
    if (next == out.prefill.size() || out.prefill[next].run != static_cast<int64_t>(i)) continue;
    given[i] = out.prefill[next++].rows;
    EXPECT(given[i] > 0 && state.runs[i].decode_rows == 0);
    const Used now = chunk_use(state.runs[i], given[i]);
    used.rows += now.rows;
    used.scored += now.scored;
    used.full += now.full;
    if (state.runs[i].batch) used.batch += now.rows;
  }
  const bool beside = std::any_of(state.runs.begin(), state.runs.end(),
                                  [](const RunView& run) { return !run.batch; });
  EXPECT(!beside || used.batch <= kBatchRows);
  for (size_t i = 0; i < state.runs.size(); ++i) {
    const RunView& run = state.runs[i];
    if (run.decode_rows > 0 || run.computed + given[i] == run.prompt_rows) continue;
    // Whoever did not finish was stopped by something that is used up.
    const Used now = chunk_use(run, given[i]);
    const Used more = chunk_use(run, given[i] + 1);
    const bool full = used.full + more.full - now.full > limits.full_rows - sampled;
    const bool scored = used.scored + more.scored - now.scored > kScoreRows;
    const bool yields = beside && run.batch && used.batch == kBatchRows;
    EXPECT(used.rows == budget || full || scored || yields);
  }
  EXPECT_EQ(next, out.prefill.size());
  EXPECT(used.rows <= budget);
  EXPECT(used.scored <= kScoreRows);
  EXPECT(used.full <= limits.full_rows - sampled);
  EXPECT_EQ(out.rows, decode_rows + used.rows);
  EXPECT(out.rows <= step_rows(limits, state.max_sequences));
  EXPECT(out.rows > 0 || state.runs.empty());
}

TEST(scheduler_plan_keeps_its_rules_in_a_million_states) {
  Rng rng(seed());
  BatchPlan out;
  for (int i = 0; i < 1000000; ++i) {
    const State state = random_state(rng);
    plan(state.runs, state.limits, &out);
    check_plan(state, out);
  }
}

TEST(scheduler_counts_blocks_of_the_worst_case) {
  EXPECT_EQ(blocks_for_tokens(0, 32), int64_t{0});
  EXPECT_EQ(blocks_for_tokens(33, 32), int64_t{2});
  EXPECT_EQ(blocks_for_request(0, 0, 1, 32), int64_t{0});
  EXPECT_EQ(blocks_for_request(32, 0, 1, 32), int64_t{1});
  EXPECT_EQ(blocks_for_request(32, 1, 4, 32), int64_t{1});    // no hypothesis ever writes
  EXPECT_EQ(blocks_for_request(32, 2, 4, 32), int64_t{5});    // one each behind the shared block
  EXPECT_EQ(blocks_for_request(31, 2, 4, 32), int64_t{4});    // the half-filled one, copied
  EXPECT_EQ(blocks_for_request(31, 33, 1, 32), int64_t{2});   // position 63 is never computed
  EXPECT_EQ(blocks_for_request(31, 34, 1, 32), int64_t{2});
  EXPECT_EQ(blocks_for_request(31, 35, 1, 32), int64_t{3});
}

RunView prompt_of(int64_t rows, bool batch = false) {
  RunView prompt;
  prompt.generate = true;
  prompt.batch = batch;
  prompt.prompt_rows = prompt.score_from = rows;
  return prompt;
}

PlanLimits usual_limits() {
  PlanLimits limits;
  limits.budget_mixed = 256;
  limits.budget_prefill = 2048;
  limits.full_rows = 64;
  return limits;
}

TEST(scheduler_long_prompts_do_not_stop_generation) {
  RunView decoding;
  decoding.generate = true;
  decoding.decode_rows = 4;
  decoding.computed = decoding.prompt_rows = decoding.score_from = 10;
  const RunView prompt = prompt_of(2000);
  PlanLimits limits = usual_limits();
  BatchPlan out;
  plan({decoding, prompt}, limits, &out);
  EXPECT_EQ(out.prefill[0].rows, int64_t{252});
  plan({prompt}, limits, &out);
  EXPECT_EQ(out.prefill[0].rows, int64_t{2000});
  limits.prompt_mixed = 100;
  limits.prompt_alone = 300;
  plan({decoding, prompt}, limits, &out);
  EXPECT_EQ(out.prefill[0].rows, int64_t{100});
  plan({prompt}, limits, &out);
  EXPECT_EQ(out.prefill[0].rows, int64_t{300});
  decoding.decode_rows = 250;
  plan({decoding, prompt}, limits, &out);
  EXPECT_EQ(out.prefill[0].rows, kMinPrefillRows);
}

TEST(scheduler_short_prompts_do_not_wait_for_long_ones) {
  PlanLimits limits = usual_limits();
  limits.prompt_alone = 200;
  BatchPlan out;
  const auto rows = [&](const std::vector<RunView>& runs) {
    plan(runs, limits, &out);
    std::vector<int64_t> of(runs.size());
    for (const PlanItem& item : out.prefill) of[at(item.run)] = item.rows;
    return of;
  };
  using Rows = std::vector<int64_t>;
  EXPECT(rows({prompt_of(2000), prompt_of(30)}) == (Rows{170, 30}));
  EXPECT(rows({prompt_of(2000), prompt_of(900), prompt_of(40)}) == (Rows{100, 60, 40}));
  EXPECT(rows({prompt_of(60), prompt_of(900), prompt_of(70)}) == (Rows{60, 70, 70}));
  EXPECT(rows({prompt_of(2000), prompt_of(30, true), prompt_of(80)}) == (Rows{100, 20, 80}));
  EXPECT(rows({prompt_of(2000), prompt_of(90), prompt_of(90)}) == (Rows{100, 90, 10}));
  EXPECT(rows({prompt_of(2000, true), prompt_of(30)}) == (Rows{kBatchRows, 30}));
  EXPECT(rows({prompt_of(2000, true), prompt_of(900, true)}) == (Rows{100, 100}));
  EXPECT(rows({prompt_of(250)}) == (Rows{250}));  // no step for the last 50 rows alone
  EXPECT(rows({prompt_of(251)}) == (Rows{200}));
  EXPECT(rows({prompt_of(200), prompt_of(50)}) == (Rows{200, 50}));
}

// ------------------------------------------------------------------------------------ pace

struct Machine {
  double base_ms, row_ms;
  double step(int64_t rows) const { return base_ms + row_ms * static_cast<double>(rows); }
};

TEST(pace_finds_the_rows_that_take_the_time) {
  for (const Machine machine : {Machine{86, 1.1}, Machine{90, 9.0}, Machine{650, 20.0},
                                Machine{0.1, 0.01}, Machine{5, 40.0}}) {
    Pace pace(250);
    PlanLimits limits = usual_limits();
    pace.limit(&limits);
    EXPECT_EQ(limits.prompt_alone, 2 * kPaceRows);
    for (int step = 0; step < 20; ++step) {
      pace.observe(8, 0, machine.base_ms);
      pace.limit(&limits);
      const int64_t rows = std::min<int64_t>(limits.prompt_mixed, 2048);
      pace.observe(8, rows, machine.step(rows));
    }
    pace.limit(&limits);
    EXPECT(limits.prompt_mixed >= kPaceRows && limits.prompt_mixed <= limits.prompt_alone);
    const double allowed = std::max(250.0, 2 * machine.base_ms);
    if (limits.prompt_mixed > kPaceRows) {
      EXPECT(machine.step(limits.prompt_mixed) <= 1.02 * allowed);
    }
    if (limits.prompt_mixed < 2048 && limits.prompt_mixed > kPaceRows) {
      EXPECT(machine.step(limits.prompt_mixed) >= 0.6 * allowed);
    }
  }
}

TEST(pace_forgets_a_stall_and_trusts_no_quick_step) {
  const Machine machine{80, 1.0};
  Pace pace(250);
  PlanLimits limits = usual_limits();
  const auto make = [&](int64_t rows, double ms) {
    pace.observe(1, 0, machine.base_ms);
    pace.observe(1, rows, ms);
    pace.limit(&limits);
  };
  for (int i = 0; i < 8; ++i) make(128, machine.step(128));
  const int64_t usual = limits.prompt_mixed;
  make(128, 60000);
  EXPECT_EQ(limits.prompt_mixed, kPaceRows);
  for (int i = 0; i < 16; ++i) make(limits.prompt_mixed, machine.step(limits.prompt_mixed));
  EXPECT(limits.prompt_mixed >= usual / 2);
  make(128, 1);
  EXPECT(limits.prompt_mixed <= 3 * usual);
  pace.observe(0, kPaceRows - 1, 1e9);  // too few rows to teach anything
  const int64_t before = limits.prompt_mixed;
  pace.limit(&limits);
  EXPECT_EQ(limits.prompt_mixed, before);
  pace.observe(0, before / 2 - 1, machine.step(before));  // the slow end of a prompt: nor that
  pace.limit(&limits);
  EXPECT_EQ(limits.prompt_mixed, before);
  pace.observe(0, before / 2, machine.step(before));
  pace.limit(&limits);
  EXPECT(limits.prompt_mixed < before);
}

TEST(pace_without_a_target_leaves_the_budgets_alone) {
  Pace pace(0);
  pace.observe(0, 128, 1e6);
  PlanLimits limits = usual_limits();
  pace.limit(&limits);
  EXPECT_EQ(limits.prompt_mixed, kUnlimited);
  EXPECT_EQ(limits.prompt_alone, kUnlimited);
}

}  // namespace
}  // namespace polylm::test
