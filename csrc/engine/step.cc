// step.cc: one step of the runner: plan, copies, forward, results. Not here: who runs (runner.cc).
#include <algorithm>

#include "engine/events.h"
#include "engine/prompt_lookup.h"
#include "engine/runner.h"
#include "platform/error.h"

namespace polylm {
namespace {

class StepFullRows final : public FullRows {
 public:
  StepFullRows(Ops* ops, int64_t first) : ops_(ops), first_(first) {}
  const float* row(int64_t index) override { return ops_->full_row(first_ + index); }

 private:
  Ops* ops_;
  int64_t first_;
};

}  // namespace

bool Runner::step(const std::atomic<bool>& stop) {
  const Clock::time_point begin = Clock::now();
  Ops& ops = model_->ops();
  if (ops.in_flight() == 0) {
    fill_batch();
    if (batch_.rows() > 0 && !submit(batch_, stop)) return false;
  }
  const bool goes_ahead = may_go_ahead();
  if (goes_ahead) {
    fill_ahead();
    if (!submit(*ahead_, stop)) return false;
  }
  if (ops.in_flight() > 0) {
    take_results(ops.collect());
    ++counters_.steps;
  }
  sweep();
  POLYLM_CHECK_LE(pool_.used(), reserved_blocks_);
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  counters_.busy_ms += ms;
  const int64_t generated = batch_.inputs().generated_rows;
  const bool some_behind = std::any_of(entries_.begin(), entries_.end(),
                                       [](const Entry& entry) { return entry.behind > 0; });
  if (!some_behind) pace_.observe(generated, batch_.rows() - generated, ms);
  if (goes_ahead) std::swap(batch_, *ahead_);
  return true;
}

bool Runner::submit(const StepBatch& batch, const std::atomic<bool>& stop) {
  model_->ops().copy_blocks(model_->kv(), batch.copies().data(),
                            static_cast<int64_t>(batch.copies().size()));
  return model_->forward(batch.inputs(), batch.selects(), stop);
}

// Whether the rows of the step in flight, and no others, can go on before its results are known.
bool Runner::may_go_ahead() const {
  if (!ahead_.has_value() || model_->ops().in_flight() == 0 || wants_room_) return false;
  return std::all_of(running_.begin(), running_.end(), [](const auto& run) {
    return !run->ended && run->decoding() && run->decoder().feeds_back() && !run->ends_next();
  });
}

void Runner::fill_ahead() {
  POLYLM_CHECK_EQ(entries_.size(), running_.size());
  ahead_->clear();
  for (const Entry& entry : entries_) {
    ahead_->ask(entry.run->decoder(), 1);
    ahead_->add_next(entry.run->set()[0], entry.first_select);
    ahead_->add_select(0);
  }
}

// Whether an earlier prompt is about to leave the next block of this one in the cache.
bool Runner::held(const Run& run) const {
  for (const Run* const other : running_) {
    if (other == &run) return false;
    if (other->filling() && run.follows(*other, block_tokens_)) return true;
  }
  return false;
}

// What the plan must know of a request. What fails here ends it: it gets no rows.
RunView Runner::view_of(Run* run) {
  try {
    if (cache_ && run->filling()) run->catch_up(&*cache_, block_tokens_);
    if (run->place.is_behind && !run->is_behind()) turns_.goes_on(&run->place, counters_.steps);
    RunView view = run->view();
    if (run->filling()) {
      view.held = cache_.has_value() && held(*run);
    } else if (run->decoding()) {
      run->decoder().draft(kMostDraft, &drafts_);
      view.draft_rows = static_cast<int64_t>(drafts_.size());
    }
    return view;
  } catch (...) {
    end_failed(run, caught_error());
  }
  RunView ended;
  ended.held = true;
  return ended;
}

void Runner::fill_batch() {
  views_.clear();
  for (Run* const run : running_) views_.push_back(view_of(run));
  pace_.limit(&limits_);
  plan(views_, limits_, &plan_);
  batch_.clear();
  entries_.clear();
  for (const PlanItem& item : plan_.decode) {
    Run* const run = running_[static_cast<size_t>(item.run)];
    if (run->decoding()) {
      add_decode(run, item.rows);
    } else {
      add_behind(run, item.rows);
    }
  }
  for (const PlanItem& item : plan_.prefill) {
    add_chunk(running_[static_cast<size_t>(item.run)], item.rows);
  }
}

// Generated rows of a run that comes back, of one hypothesis after the other.
void Runner::add_behind(Run* run, int64_t rows) {
  Entry entry;
  entry.run = run;
  SequenceSet& set = run->set();
  entry.behind = std::min(rows, set.behind());
  int64_t left = entry.behind;
  for (int64_t h = 0; left > 0; ++h) {
    const int64_t some = std::min(left, set.behind_of(h));
    if (some > 0) batch_.add_rows(set[h], set[h].computed() + some, Role::kGenerated);
    left -= some;
  }
  entries_.push_back(entry);
}

// rows: its hypotheses, and as much of the draft as the plan found room for.
void Runner::add_decode(Run* run, int64_t rows) {
  SequenceSet& set = run->set();
  try {
    POLYLM_CHECK_EQ(run->decoder().width(), set.size());
    run->decoder().draft(rows - set.size(), &drafts_);
    POLYLM_CHECK_EQ(static_cast<int64_t>(drafts_.size()), rows - set.size());
    batch_.ask(run->decoder(), rows);
  } catch (...) {
    end_failed(run, caught_error());
    return;
  }
  Entry entry;
  entry.run = run;
  entry.decode = true;
  entry.first_select = batch_.select_count();
  entry.select_count = rows;
  entry.drafts = rows - set.size();
  entry.first_asked = batch_.asked_first();
  for (const int32_t token : drafts_) set[0].push(token, Role::kGenerated);
  for (int64_t h = 0; h < set.size(); ++h) {
    batch_.add_rows(set[h], set[h].size(), Role::kGenerated);
    for (int64_t d = 0; d <= entry.drafts; ++d) batch_.add_select(h + d, entry.drafts - d);
  }
  entries_.push_back(entry);
}

void Runner::add_chunk(Run* run, int64_t rows) {
  Sequence& sequence = run->set()[0];
  const Work& work = run->work();
  Entry entry;
  entry.run = run;
  const int64_t begin = sequence.computed();
  entry.end = begin + rows;
  const int64_t filled_before = std::min(entry.end, run->filled_before());
  counters_.recomputed_rows += std::max<int64_t>(0, filled_before - begin);
  const bool sampled = run->is_generate() && !run->is_back() && entry.end == work.prompt_rows;
  if (sampled) {
    try {
      batch_.ask(run->decoder(), 1);
    } catch (...) {
      end_failed(run, caught_error());
      return;
    }
    entry.first_asked = batch_.asked_first();
  }
  entry.first_select = batch_.select_count();
  entry.shift = batch_.rows() - begin;
  batch_.add_rows(sequence, entry.end, Role::kPrompt);
  if (sampled) batch_.add_select(0);
  if (run->request().kind == RequestKind::kScore) {
    const int64_t from = std::max(begin, run->score_begin());
    for (int64_t row = from; row < entry.end; ++row) {
      batch_.add_score(row + entry.shift, work.ids[static_cast<size_t>(row + 1)]);
    }
  }
  for (const int64_t row : work.kept) {
    if (row >= begin && row < entry.end) batch_.add_kept(row + entry.shift);
  }
  entry.select_count = batch_.select_count() - entry.first_select;
  entries_.push_back(entry);
}

// Commits all rows first: what fails there is the engine's fault and ends everything; what fails
// afterwards ends its request, unless the device is gone.
void Runner::take_results(const std::vector<SelectResult>& results) {
  POLYLM_CHECK_LE(batch_.select_count(), static_cast<int64_t>(results.size()));
  for (const Entry& entry : entries_) {
    if (entry.run->ended) continue;
    SequenceSet& set = entry.run->set();
    if (entry.behind > 0) {
      set.caught_up(entry.behind);
      continue;
    }
    if (!entry.decode) set[0].committed(entry.end);
    for (int64_t h = 0; entry.decode && h < set.size(); ++h) set[h].committed(set[h].size());
  }
  const Clock::time_point now = Clock::now();
  for (const Entry& entry : entries_) {
    if (entry.run->ended) continue;  // while the step was in flight
    const SelectResult* rows = results.data() + entry.first_select;
    try {
      if (entry.behind > 0) {
        entry.run->caught_up();
      } else if (entry.decode) {
        advance(entry, rows, now);
      } else {
        take_chunk(entry, rows, now);
      }
    } catch (...) {
      const Error error = caught_error();
      if (error.code() == Code::kDevice) throw;
      end_failed(entry.run, error);
    }
  }
}

void Runner::take_chunk(const Entry& entry, const SelectResult* rows, Clock::time_point now) {
  Run* const run = entry.run;
  if (cache_) run->keep_prefix(&*cache_);
  if (run->is_back()) {
    run->caught_up();
    return;
  }
  run->add_prefill(&events_);
  const bool complete = entry.end == run->work().prompt_rows;
  if (complete) {
    run->prompt_computed(now);
    counters_.prompt_tokens += run->usage().prompt_tokens;
    counters_.cached_tokens += run->usage().cached_tokens;
  }
  if (run->is_generate()) {
    if (complete) advance(entry, rows, now);
    return;
  }
  StepFullRows full(&model_->ops(), entry.first_select);
  const bool score = run->request().kind == RequestKind::kScore;
  for (int64_t i = 0; i < entry.select_count; ++i) {
    const int64_t row = batch_.selects().rows[entry.first_select + i].row - entry.shift;
    if (score) {
      run->take_score(row, rows[i]);
      continue;
    }
    if (!rows[i].finite) fail(Code::kNumeric, "the logits are not finite");
    run->take_logits(row, full.row(i), vocab_);
  }
  if (complete) finish(run, false, now);
}

// Lets the decoder choose, and follows.
void Runner::advance(const Entry& entry, const SelectResult* rows, Clock::time_point now) {
  Run* const run = entry.run;
  Decoder& decoder = run->decoder();
  for (int64_t i = 0; i < entry.select_count - entry.drafts; ++i) {
    if (!rows[i].finite) {
      fail(Code::kNumeric, "the model's output is not finite: the weights or the activations "
                           "overflow");
    }
  }
  StepFullRows full(&model_->ops(), entry.first_select);
  decoder.advance(rows, batch_.listed(entry.first_asked), full, &next_);
  POLYLM_CHECK_EQ(static_cast<int64_t>(next_.size()), decoder.width());
  POLYLM_CHECK_LE(decoder.width(), run->work().demand.rows);
  for (const Transition& t : next_) POLYLM_CHECK(t.token >= 0 && t.token < vocab_);
  if (entry.drafts > 0) {
    Sequence& sequence = run->set()[0];
    sequence.truncate(sequence.size() - entry.drafts + decoder.accepted());
  }
  if (decoder.width() == 0) {
    if (cache_) run->keep_answer(&*cache_);
    run->advanced(now);
    finish(run, false, now);
    return;
  }
  run->set().advance(next_);
  run->advanced(now);
  run->add_deltas(&events_);
}

}  // namespace polylm
