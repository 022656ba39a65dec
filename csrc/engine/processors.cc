// processors.cc: see processors.h. One pass over the row per processor; rows are at most a context
// long and the model's step is far longer than that.
#include "engine/processors.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace polylm {
namespace {

constexpr double kMinusInf = -std::numeric_limits<double>::infinity();

int32_t last_but_one(const BiasRule& rule) { return rule.tokens[rule.tokens.size() - 2]; }

bool starts_with(const std::vector<int32_t>& choice, const int32_t* output, int64_t n) {
  return static_cast<int64_t>(choice.size()) >= n && std::equal(output, output + n, choice.begin());
}

}  // namespace

IdMap::IdMap(int64_t expected) {
  size_t capacity = 64;
  while (capacity < 2 * static_cast<size_t>(expected)) capacity *= 2;
  slots_.resize(capacity);
}

void IdMap::clear() {
  used_ = 0;
  if (++epoch_ != 0) return;
  for (Slot& slot : slots_) slot.epoch = 0;
  epoch_ = 1;
}

size_t IdMap::slot_of(int32_t id) const {
  const size_t mask = slots_.size() - 1;
  size_t at = (static_cast<uint32_t>(id) * 2654435769U >> 7) & mask;
  while (slots_[at].epoch == epoch_ && slots_[at].id != id) at = (at + 1) & mask;
  return at;
}

int32_t IdMap::find(int32_t id) const {
  const Slot& slot = slots_[slot_of(id)];
  return slot.epoch == epoch_ ? slot.value : -1;
}

int32_t IdMap::insert(int32_t id, int32_t value) {
  Slot& slot = slots_[slot_of(id)];
  if (slot.epoch == epoch_) return slot.value;
  slot = {id, value, epoch_};
  if (2 * ++used_ > slots_.size()) grow();
  return value;
}

void IdMap::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.epoch == epoch_) slots_[slot_of(slot.id)] = slot;
  }
}

Processors::Processors(const SamplingParams& params, int64_t prefix_width, int64_t max_tokens,
                       int64_t vocab)
    : params_(params),
      prefix_width_(prefix_width),
      max_tokens_(max_tokens),
      vocab_(vocab),
      allowed_(params.allow_tokens) {
  std::sort(allowed_.begin(), allowed_.end());
  sort_bias();
  places_ = IdMap(most_edits());
}

void Processors::sort_bias() {
  tokens_ = params_.token_bias;
  for (const BiasRule& rule : params_.bias) {
    if (rule.tokens.size() == 1) {
      tokens_.push_back({rule.tokens.front(), rule.value});
    } else {
      sequences_.push_back(&rule);
    }
  }
  std::sort(tokens_.begin(), tokens_.end(),
            [](const TokenBias& a, const TokenBias& b) { return a.id < b.id; });
  std::stable_sort(sequences_.begin(), sequences_.end(),
                   [](auto* a, auto* b) { return last_but_one(*a) < last_but_one(*b); });
  wide_bias_ = static_cast<int64_t>(tokens_.size() + sequences_.size()) > kListedBias;
}

int64_t Processors::most_edits() const {
  auto count = static_cast<int64_t>(params_.stop_token_ids.size() + sequences_.size() +
                                    params_.allow_choices.size()) + 1;
  if (!wide_bias_) count += static_cast<int64_t>(tokens_.size());
  count += std::min(kListedAllow, static_cast<int64_t>(allowed_.size()));
  if (params_.repetition_penalty != 1.0 || params_.no_repeat_ngram_size > 0) {
    count += prefix_width_ + max_tokens_;
  } else if (params_.presence_penalty != 0.0 || params_.frequency_penalty != 0.0) {
    count += max_tokens_;
  }
  return std::min(count, vocab_);
}

bool Processors::is_stop(int32_t id) const {
  const std::vector<int32_t>& ids = params_.stop_token_ids;
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

int32_t Processors::list(int32_t id, RowPlan* plan) {
  const auto next = static_cast<int32_t>(plan->edits.size());
  const int32_t place = places_.insert(id, next);
  if (place == next) plan->edits.push_back(Edit{id});
  return place;
}

Edit* Processors::touch(int32_t id, RowPlan* plan) {
  if (plan->rest == RestTokens::kMask &&
      !std::binary_search(allowed_.begin(), allowed_.end(), id)) {
    return nullptr;
  }
  const int32_t place = plan->rest == RestTokens::kDrop ? places_.find(id) : list(id, plan);
  return place < 0 ? nullptr : &plan->edits[static_cast<size_t>(place)];
}

void Processors::plan(const std::vector<int32_t>& row, RowPlan* plan) {
  places_.clear();
  plan->edits.clear();
  plan->rest = RestTokens::kKeep;
  plan->allowed = nullptr;
  plan->bias = nullptr;
  plan->vocab = vocab_;
  const int64_t step = generated(row);
  int64_t forced = step == 0 ? params_.forced_first_token : -1;
  if (step == max_tokens_ - 1 && params_.forced_last_token >= 0) forced = params_.forced_last_token;
  if (forced >= 0) {
    plan->rest = RestTokens::kDrop;
    list(static_cast<int32_t>(forced), plan);
    plan->edits.front().forced = true;
    return;
  }
  plan_allowed(row, plan);
  plan_penalties(row, plan);
  plan_bias(row, plan);
  plan_ngrams(row, plan);
  if (step >= params_.min_tokens) return;
  for (const int32_t id : params_.stop_token_ids) {
    if (Edit* edit = touch(id, plan)) edit->banned = true;
  }
}

void Processors::plan_allowed(const std::vector<int32_t>& row, RowPlan* plan) {
  if (!params_.allow_choices.empty()) {
    const int64_t n = generated(row);
    const int32_t* output = row.data() + prefix_width_;
    bool complete = false;
    for (const std::vector<int32_t>& choice : params_.allow_choices) {
      if (!starts_with(choice, output, n)) continue;
      const bool ends = static_cast<int64_t>(choice.size()) == n;
      complete = complete || ends;
      if (!ends) list(choice[static_cast<size_t>(n)], plan);
    }
    if (complete) {
      for (const int32_t id : params_.stop_token_ids) list(id, plan);
    }
    plan->rest = RestTokens::kDrop;
  } else if (static_cast<int64_t>(allowed_.size()) > kListedAllow) {
    plan->rest = RestTokens::kMask;
    plan->allowed = &allowed_;
  } else if (!allowed_.empty()) {
    for (const int32_t id : allowed_) list(id, plan);
    plan->rest = RestTokens::kDrop;
  }
}

void Processors::plan_penalties(const std::vector<int32_t>& row, RowPlan* plan) {
  if (params_.repetition_penalty != 1.0) {
    for (const int32_t id : row) {
      if (Edit* edit = touch(id, plan)) edit->seen = true;
    }
  }
  if (params_.presence_penalty == 0.0 && params_.frequency_penalty == 0.0) return;
  for (auto id = row.begin() + prefix_width_; id != row.end(); ++id) {
    if (Edit* edit = touch(*id, plan)) ++edit->count;
  }
}

double Processors::bias_of(int32_t id) const {
  const auto at = std::lower_bound(tokens_.begin(), tokens_.end(), id,
                                   [](const TokenBias& a, int32_t b) { return a.id < b; });
  return at != tokens_.end() && at->id == id ? static_cast<double>(at->value) : 0.0;
}

void Processors::plan_bias(const std::vector<int32_t>& row, RowPlan* plan) {
  if (!wide_bias_) {
    for (const TokenBias& rule : tokens_) {
      if (Edit* edit = touch(rule.id, plan)) edit->bias += static_cast<double>(rule.value);
    }
  } else if (plan->rest == RestTokens::kDrop) {
    for (Edit& edit : plan->edits) edit.bias += bias_of(edit.id);
  } else {
    plan->bias = &tokens_;
  }
  plan_sequences(row, plan);
}

void Processors::plan_sequences(const std::vector<int32_t>& row, RowPlan* plan) {
  if (sequences_.empty() || row.empty()) return;
  auto at = std::lower_bound(sequences_.begin(), sequences_.end(), row.back(),
                             [](auto* a, int32_t id) { return last_but_one(*a) < id; });
  for (; at != sequences_.end() && last_but_one(**at) == row.back(); ++at) {
    const std::vector<int32_t>& tokens = (*at)->tokens;
    // Hugging Face skips a rule that is longer than the row, though its prefix might just fit.
    if (tokens.size() > row.size()) continue;
    const auto prefix = static_cast<int64_t>(tokens.size()) - 1;
    if (!std::equal(tokens.begin(), tokens.end() - 1, row.end() - prefix)) continue;
    if (Edit* edit = touch(tokens.back(), plan)) edit->bias += static_cast<double>((*at)->value);
  }
}

void Processors::plan_ngrams(const std::vector<int32_t>& row, RowPlan* plan) {
  const int64_t n = params_.no_repeat_ngram_size;
  const auto size = static_cast<int64_t>(row.size());
  if (n <= 0 || size < n) return;
  const int32_t* last = row.data() + size - (n - 1);  // the n - 1 tokens that the next one follows
  for (int64_t i = 0; i + n <= size; ++i) {
    if (!std::equal(last, last + (n - 1), row.data() + i)) continue;
    if (Edit* edit = touch(row[static_cast<size_t>(i + n - 1)], plan)) edit->banned = true;
  }
}

double Processors::apply(const Edit& edit, double score) const {
  if (edit.forced) return 0.0;
  if (edit.banned || edit.bias == kMinusInf) return kMinusInf;
  score += edit.bias;
  if (edit.seen) {
    score = score < 0.0 ? score * params_.repetition_penalty : score / params_.repetition_penalty;
  }
  if (edit.count > 0) {
    score -= params_.presence_penalty + params_.frequency_penalty * static_cast<double>(edit.count);
  }
  return score;
}

bool Processors::completes_choice(const std::vector<int32_t>& row, int32_t token) const {
  if (params_.allow_choices.empty() || !params_.stop_token_ids.empty()) return false;
  const int64_t n = generated(row);
  const int32_t* output = row.data() + prefix_width_;
  bool complete = false;
  for (const std::vector<int32_t>& choice : params_.allow_choices) {
    if (static_cast<int64_t>(choice.size()) <= n || !starts_with(choice, output, n) ||
        choice[static_cast<size_t>(n)] != token) {
      continue;
    }
    if (static_cast<int64_t>(choice.size()) > n + 1) return false;
    complete = true;
  }
  return complete;
}

const char* Processors::restricting_option() const {
  if (!params_.allow_choices.empty() || !params_.allow_tokens.empty()) return "allow";
  if (params_.no_repeat_ngram_size > 0) return "noRepeatNgramSize";
  if (params_.has_bias()) return "bias";
  return "minTokens";
}

}  // namespace polylm
