// processors.h: Hugging Face's logits processors of single tokens, in Hugging Face's order:
// sequence bias, repetition penalty, presence and frequency penalties, n-gram ban, minimum length,
// allowed tokens, forced tokens. They touch few tokens, so a row is planned before the step (which
// tokens to list) and edited after it. Not here: warpers, which look at the whole row (warpers.h).
// Trap: a row is pads + prompt + output; "generated" is counted from prefix_width on.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"

namespace polylm {

// What the processors do to one listed token.
struct Edit {
  int32_t id = 0;
  int32_t count = 0;    // times it was generated
  bool seen = false;    // it is in the row: repetition penalty
  bool banned = false;
  bool forced = false;  // its score becomes 0
  double bias = 0.0;    // may be -inf
};

enum class RestTokens : uint8_t {
  kKeep,  // tokens that are not listed keep their logits
  kDrop,  // only listed tokens remain
  kMask,  // only `allowed` remains, too many to list: needs the full row
};

struct RowPlan {
  std::vector<Edit> edits;  // distinct ids; the tokens that select must list, in this order
  RestTokens rest = RestTokens::kKeep;
  const std::vector<int32_t>* allowed = nullptr;  // kMask: ascending
  // Too many to list: added to the whole row before the edits. Ascending, distinct ids.
  const std::vector<TokenBias>* bias = nullptr;
  int64_t vocab = 0;
  double temperature = 1.0;  // of the second sum that select returns

  // All logits of the row are needed; then select lists nothing, for everything is in the row.
  bool needs_row() const { return rest == RestTokens::kMask || bias != nullptr; }
  int64_t listed() const { return needs_row() ? 0 : static_cast<int64_t>(edits.size()); }
};

// Distinct ids and the place of each; open addressing, cleared in O(1).
class IdMap {
 public:
  explicit IdMap(int64_t expected = 64);
  void clear();
  // The value of id; when it is new, `value` is stored and returned.
  int32_t insert(int32_t id, int32_t value);
  int32_t find(int32_t id) const;  // -1: not there

 private:
  struct Slot {
    int32_t id = 0;
    int32_t value = 0;
    uint32_t epoch = 0;
  };
  size_t slot_of(int32_t id) const;
  void grow();

  std::vector<Slot> slots_;
  uint32_t epoch_ = 1;
  size_t used_ = 0;
};

class Processors {
 public:
  // Allow lists up to this length are listed; longer ones need the full row.
  static constexpr int64_t kListedAllow = 1024;
  // The same for bias rules.
  static constexpr int64_t kListedBias = 1024;

  // prefix_width: pads and prompt. row_max: the longest a row gets.
  Processors(const SamplingParams& params, int64_t prefix_width, int64_t max_tokens,
             int64_t vocab);

  // The most tokens that a plan edits.
  int64_t most_edits() const;
  // Some of the tokens that are allowed or biased cannot be listed.
  bool needs_full() const {
    return wide_bias_ || static_cast<int64_t>(allowed_.size()) > kListedAllow;
  }
  void reserve(RowPlan* plan) const { plan->edits.reserve(static_cast<size_t>(most_edits())); }
  // Fills plan->edits and plan->rest for the next token of `row`.
  void plan(const std::vector<int32_t>& row, RowPlan* plan);
  // The score after all processors that `edit` names.
  double apply(const Edit& edit, double score) const;

  // With choices: the output is one of them, no longer one continues it, and no stop id is needed.
  bool completes_choice(const std::vector<int32_t>& row, int32_t token) const;
  bool is_stop(int32_t id) const;
  // Public name of an option that can leave no token, for the error when none is left.
  const char* restricting_option() const;

 private:
  void plan_allowed(const std::vector<int32_t>& row, RowPlan* plan);
  void plan_penalties(const std::vector<int32_t>& row, RowPlan* plan);
  void sort_bias();
  double bias_of(int32_t id) const;
  void plan_bias(const std::vector<int32_t>& row, RowPlan* plan);
  void plan_sequences(const std::vector<int32_t>& row, RowPlan* plan);
  void plan_ngrams(const std::vector<int32_t>& row, RowPlan* plan);
  int32_t list(int32_t id, RowPlan* plan);
  Edit* touch(int32_t id, RowPlan* plan);
  int64_t generated(const std::vector<int32_t>& row) const {
    return static_cast<int64_t>(row.size()) - prefix_width_;
  }

  const SamplingParams& params_;
  int64_t prefix_width_;
  int64_t max_tokens_;
  int64_t vocab_;
  std::vector<int32_t> allowed_;     // params.allow_tokens, ascending
  std::vector<TokenBias> tokens_;    // the bias rules of one token, ascending
  std::vector<const BiasRule*> sequences_;  // those of several, by the last token but one
  bool wide_bias_ = false;
  IdMap places_;                     // id -> index in plan->edits, while planning
};

}  // namespace polylm
