// scheduler.h: which rows the next step computes and what a request needs, as pure functions of
// plain data, so that millions of states can be tested without a model. Not here: who starts
// (turns.h), blocks and tokens (sequence.h), the step itself (step.cc).
//
// Progress. Every running hypothesis gets a row in every step. Of the rows for prompts half go to
// the first unfinished prompt in the order of the starts, the other half to the shortest first,
// interactive before batch: a short prompt never waits behind another caller's long one. What one
// half leaves, the other takes. Beside interactive rows all batch prompts together get kBatchRows:
// somebody waits for the end of the step. So the first unfinished prompt gets at least
// min_prefill_rows() rows in every step, fewer only when fewer are left or when its rows with kept
// logits fill full_rows (then at least one of those). Hence the bound: a request that nobody
// preempts ends at most
// sum of (ceil(prompt rows / min_prefill_rows) + kept rows + max_tokens + 1)  steps after its
// start, the sum over itself and those that started before it and run.
// A prompt that begins as an earlier unfinished one is held until that has computed what they
// share; the first unfinished one never is, so the bound stands.
// Drafts. Guessed tokens get rows that no request needs: all hypotheses and all that wait for their
// first row leave them room within full_rows, which is as many as there may be sequences.
// Memory. A request starts only when the blocks of its worst case are free, so nothing ever runs
// out in the middle. Which request starts, and which one makes place for it: turns.h.
#pragma once

#include <cstdint>
#include <vector>

namespace polylm {

inline constexpr int64_t kMinPrefillRows = 16;    // of a step, however many generated rows run
inline constexpr int64_t kBatchRows = 32;  // of batch prompts in a step with interactive rows
inline constexpr int64_t kScoreRows = 128;        // rows of a step whose next token is scored
inline constexpr int64_t kUnlimited = int64_t{1} << 40;

// What a request holds while it runs.
struct Demand {
  int64_t blocks = 0;
  int64_t rows = 0;  // of generated tokens in one step; 1 for scoring
};

// Blocks in the worst case: the full blocks of the prompt are shared by all hypotheses, each has
// its own from there on. max_tokens is 0 for scoring. The last new token is never computed.
int64_t blocks_for_request(int64_t prompt_rows, int64_t max_tokens, int64_t width,
                           int64_t block_tokens);

// What plan must know of one running request.
struct RunView {
  int64_t decode_rows = 0;  // hypotheses; 0 while the prompt is being computed
  int64_t draft_rows = 0;   // guessed tokens that it would like to try in the same step
  bool generate = false;    // the last prompt row is sampled
  bool batch = false;       // one of many that nobody waits for one by one
  bool held = false;        // waits for an earlier prompt with the same beginning to compute it
  int64_t computed = 0;     // prompt rows that are done
  int64_t prompt_rows = 0;  // prompt rows in all
  int64_t score_from = 0;   // rows from here on are scored; prompt_rows: none
  const std::vector<int64_t>* kept = nullptr;  // ascending rows whose full logits are wanted
};

struct PlanLimits {
  int64_t budget_mixed = 0;
  int64_t budget_prefill = 0;
  // The pace (pace.h): rows of prompts beside generated rows, or otherwise; a quarter more where
  // that ends all prompts.
  int64_t prompt_mixed = kUnlimited;
  int64_t prompt_alone = kUnlimited;
  int64_t full_rows = 0;  // sampled and keep_full rows of a step, >= sum of the requests' rows
};
int64_t min_prefill_rows(const PlanLimits& limits);
// Rows of a step at most.
int64_t step_rows(const PlanLimits& limits, int64_t max_sequences);

struct PlanItem {
  int64_t run = 0;   // index in the views
  int64_t rows = 0;  // hypotheses and drafts, or rows of the prompt from `computed` on
};

struct BatchPlan {
  std::vector<PlanItem> decode;
  std::vector<PlanItem> prefill;
  int64_t rows = 0;
};

// `runs` in the order of their starts. Allocates nothing when `out` has the capacity.
void plan(const std::vector<RunView>& runs, const PlanLimits& limits, BatchPlan* out);

}  // namespace polylm
