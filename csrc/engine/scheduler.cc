// scheduler.cc: the pure functions of scheduler.h.
#include "engine/scheduler.h"

#include <algorithm>

#include "engine/engine.h"
#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

// Scarce things of a step that prompts compete for.
struct Left {
  int64_t rows = 0;
  int64_t batch_rows = 0;
  int64_t score_rows = 0;
  int64_t full_rows = 0;
};

// Rows of the next chunk of a prompt of which `computed` rows are done, at most `most`; takes them
// from `left`.
int64_t take_chunk(const RunView& run, int64_t computed, int64_t most, Left* left) {
  int64_t rows = std::min({left->rows, most, run.prompt_rows - computed});
  if (run.batch) rows = std::min(rows, left->batch_rows);
  const int64_t unscored = std::max<int64_t>(0, run.score_from - computed);
  rows = std::min(rows, unscored + left->score_rows);
  if (run.kept != nullptr) {
    const auto first = std::lower_bound(run.kept->begin(), run.kept->end(), computed);
    if (run.kept->end() - first > left->full_rows) {
      rows = std::min(rows, *(first + left->full_rows) - computed);
    }
    const auto end = std::lower_bound(first, run.kept->end(), computed + rows);
    left->full_rows -= end - first;
  }
  left->score_rows -= std::max<int64_t>(0, rows - unscored);
  left->rows -= rows;
  if (run.batch) left->batch_rows -= rows;
  return rows;
}

// `all`: what is left of all prompts. A step may go over its pace by a quarter to end them: a
// step of its own for the last few rows would read all weights once more.
int64_t rows_for_prompts(const PlanLimits& limits, int64_t decode_rows, int64_t all) {
  const auto paced = [all](int64_t rows) { return all - rows <= rows / 4 ? all : rows; };
  if (decode_rows == 0) return std::min(limits.budget_prefill, paced(limits.prompt_alone));
  const int64_t rows = std::min(limits.budget_mixed - decode_rows, paced(limits.prompt_mixed));
  return std::max(rows, min_prefill_rows(limits));
}

// Half for the first prompt, the other half by length, the rest for the first again.
void plan_prompts(const std::vector<RunView>& runs, const PlanLimits& limits, Left left,
                  BatchPlan* out) {
  std::vector<PlanItem>& items = out->prefill;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].decode_rows == 0 && !runs[i].held) items.push_back({static_cast<int64_t>(i), 0});
  }
  if (items.empty()) return;
  const auto run_of = [&](const PlanItem& item) -> const RunView& {
    return runs[static_cast<size_t>(item.run)];
  };
  const auto shorter = [&](const PlanItem& a, const PlanItem& b) {
    const RunView& x = run_of(a);
    const RunView& y = run_of(b);
    if (x.batch != y.batch) return y.batch;
    const int64_t difference = (x.prompt_rows - x.computed) - (y.prompt_rows - y.computed);
    return difference != 0 ? difference < 0 : a.run < b.run;
  };
  const int64_t all = left.rows;
  PlanItem& first = items.front();
  first.rows = take_chunk(run_of(first), run_of(first).computed,
                          std::max(min_prefill_rows(limits), all / 2), &left);
  std::sort(items.begin() + 1, items.end(), shorter);
  for (auto item = items.begin() + 1; item != items.end(); ++item) {
    item->rows = take_chunk(run_of(*item), run_of(*item).computed, all, &left);
  }
  first.rows += take_chunk(run_of(first), run_of(first).computed + first.rows, all, &left);
  out->rows += all - left.rows;
  items.erase(std::remove_if(items.begin(), items.end(),
                             [](const PlanItem& item) { return item.rows == 0; }),
              items.end());
  std::sort(items.begin(), items.end(),
            [](const PlanItem& a, const PlanItem& b) { return a.run < b.run; });
}

}  // namespace

int64_t blocks_for_tokens(int64_t tokens, int64_t block_tokens) {
  return ceil_div(tokens, block_tokens);
}

int64_t blocks_for_request(int64_t prompt_rows, int64_t max_tokens, int64_t width,
                           int64_t block_tokens) {
  const int64_t last = prompt_rows + std::max<int64_t>(0, max_tokens - 1);
  const int64_t all = blocks_for_tokens(last, block_tokens);
  if (max_tokens <= 1) return all;  // no hypothesis ever writes
  const int64_t shared = prompt_rows / block_tokens;
  return shared + checked_mul(width, all - shared);
}

int64_t min_prefill_rows(const PlanLimits& limits) {
  return std::min({kMinPrefillRows, limits.budget_mixed, limits.budget_prefill});
}

int64_t step_rows(const PlanLimits& limits, int64_t max_sequences) {
  const int64_t mixed = std::max(limits.budget_mixed, max_sequences + min_prefill_rows(limits));
  return std::max(limits.budget_prefill, mixed);
}

void plan(const std::vector<RunView>& runs, const PlanLimits& limits, BatchPlan* out) {
  out->decode.clear();
  out->prefill.clear();
  out->rows = 0;
  int64_t sampled = 0;
  int64_t prompt_rows = 0;  // that are left
  int64_t spare = limits.full_rows;
  bool interactive = false;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunView& run = runs[i];
    interactive = interactive || !(run.batch || run.held);
    if (run.decode_rows > 0) {
      out->decode.push_back({static_cast<int64_t>(i), run.decode_rows});
      out->rows += run.decode_rows;
    } else {
      prompt_rows += run.prompt_rows - run.computed;
    }
    if (run.generate) sampled += std::max<int64_t>(1, run.decode_rows);
    spare -= std::max<int64_t>(1, run.decode_rows);
  }
  for (PlanItem& item : out->decode) {
    const int64_t wanted = runs[static_cast<size_t>(item.run)].draft_rows;
    const int64_t drafts = std::max<int64_t>(0, std::min(wanted, spare));
    item.rows += drafts;
    out->rows += drafts;
    sampled += drafts;
    spare -= drafts;
  }
  Left left;
  left.rows = rows_for_prompts(limits, out->rows, prompt_rows);
  left.batch_rows = interactive ? kBatchRows : left.rows;
  left.score_rows = kScoreRows;
  left.full_rows = limits.full_rows - sampled;
  plan_prompts(runs, limits, left, out);
}

}  // namespace polylm
