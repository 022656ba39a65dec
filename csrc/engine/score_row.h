// score_row.h: the scores of one row of logits while processors and warpers work on it: a list of
// entries, and the mass of the tokens that are not in it (the tail). Every processor is written
// once, over entries; with a full row all tokens are entries and the tail is empty.
// Not here: which tokens are edited (processors.h), which are dropped (warpers.h).
// Trap: entries are in no order until rank() was asked for the first ones.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/shapes.h"

namespace polylm {

class Processors;
struct RowPlan;

struct Entry {
  int32_t id = 0;
  float logit = 0.0F;  // as the model gave it
  double score = 0.0;  // after what has run so far; never -inf, such tokens are no entries
};

// The one order of this folder: better scores first, equal scores by logit, equal logits by id (as
// Hugging Face's "first maximum"). It makes every cut and every draw independent of how the entries
// came. Logits count because a huge sum or bias makes the scores of different logits equal by
// rounding: the order of the candidates must hold for their scores, too.
inline bool ranks_before(const Entry& a, const Entry& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The tokens that are neither listed nor candidates. Their scores are logit * scale + offset.
struct Tail {
  int64_t count = 0;
  Entry bound;                // the last candidate: no token of the tail ranks before it
  double max_logit = 0.0;     // the sums are relative to it
  double sum = 0.0;           // of exp(logit - max_logit)
  double sum_tempered = 0.0;  // the same at the row's temperature
  double scale = 1.0;
  double offset = 0.0;
  bool tempered = false;

  double score(float logit) const { return static_cast<double>(logit) * scale + offset; }
};

// log of the sum of exp over all raw logits of a row: what turns them into log-probabilities.
double raw_log_sum(const SelectResult& row, int64_t listed_count);

class ScoreRow {
 public:
  // Room for so many listed tokens beside the candidates, or for `full` tokens.
  void reserve(int64_t listed, int64_t full);
  // From listed tokens and candidates. `log_z` is subtracted from every logit first (raw_log_sum in
  // beam search, else 0), then the plan's processors run.
  void build(const SelectResult& row, const RowPlan& plan, const Processors& processors,
             double log_z);
  // The same from all logits[vocab]; no tail remains.
  void build_full(const float* logits, int64_t vocab, const RowPlan& plan,
                  const Processors& processors, double log_z);

  std::vector<Entry>& entries() { return entries_; }
  const std::vector<Entry>& entries() const { return entries_; }
  const Tail& tail() const { return tail_; }
  bool has_tail() const { return tail_.count > 0; }
  bool empty() const { return entries_.empty() && !has_tail(); }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  // No token of the tail ranks before this entry.
  bool certain(const Entry& entry) const {
    return !has_tail() || !ranks_before(tail_.bound, entry);
  }

  // Puts the best `count` entries (or all) in order at the front.
  void rank(int64_t count);
  // The best entry, without ordering more; entries must not be empty.
  const Entry& best();
  // log of the sum of exp over all scores, tail included.
  double log_sum() const;
  double log_tail() const;  // of the tail alone; -inf when there is none

  void add(double value);             // to every score
  void temper(double temperature);    // divides every score; once, by the row's temperature
  void drop_tail() { tail_.count = 0; }
  void truncate(int64_t count);       // to the best `count` entries, which rank() has ordered
  // Drops entries below `lowest` but for the best `always`, which rank() has ordered, and the tail.
  void keep_from(double lowest, int64_t always);
  void erase(int64_t index);          // one entry, keeping the order of the others
  void changed() { ranked_ = 0; }     // entries were edited from outside
  // Takes the entries of another row and forgets its tail; keeps this row's memory.
  void copy_entries(const ScoreRow& from);
  // Ids that are not in the tail, ascending; only while there is a tail.
  const std::vector<int32_t>& head_ids();
  void remove_from_tail(const Entry& entry);

 private:
  void set_tail(const SelectResult& row, int64_t listed_count, const RowPlan& plan);

  std::vector<Entry> entries_;
  int64_t ranked_ = 0;  // entries in order at the front
  Tail tail_;
  std::vector<int32_t> head_;
};

}  // namespace polylm
