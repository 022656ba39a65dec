// beam_rule.cc: see beam_rule.h. Written from the two algorithms' rules, with their quirks: they
// are the contract here. What Hugging Face marks with scores of -1e9 (beams that do not exist,
// finished sequences among the running) is simply absent.
#include "engine/beam_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "platform/error.h"

namespace polylm {
namespace {

// Stable, and without the memory that std::stable_sort takes; the few elements are nearly in order.
template <class T, class Before>
void insertion_sort(std::vector<T>* all, Before before) {
  for (auto next = all->begin(); next != all->end(); ++next) {
    std::rotate(std::upper_bound(all->begin(), next, *next, before), next, next + 1);
  }
}

}  // namespace

FinishedBeams::FinishedBeams(int64_t num_beams, BeamScoring scoring, int64_t max_tokens)
    : num_beams_(num_beams), scoring_(scoring) {
  const auto most = static_cast<size_t>(num_beams) + 1;
  beams_.reserve(most);
  spare_.resize(most);
  for (FinishedBeam& beam : spare_) {
    beam.tokens.reserve(static_cast<size_t>(max_tokens));
    beam.nodes.reserve(static_cast<size_t>(max_tokens));
  }
}

FinishedBeam FinishedBeams::blank() {
  POLYLM_CHECK(!spare_.empty());
  FinishedBeam beam = std::move(spare_.back());
  spare_.pop_back();
  beam.tokens.clear();
  beam.nodes.clear();
  return beam;
}

void FinishedBeams::add(FinishedBeam beam) {
  if (scoring_ == BeamScoring::kHf431) {
    add_431(std::move(beam));
  } else {
    add_455(std::move(beam));
  }
}

void FinishedBeams::add_431(FinishedBeam beam) {
  if (full() && !(beam.score > worst_)) {
    spare_.push_back(std::move(beam));
    return;
  }
  const double score = beam.score;
  beams_.push_back(std::move(beam));
  if (static_cast<int64_t>(beams_.size()) <= num_beams_) {
    worst_ = std::min(score, worst_);
    return;
  }
  const auto lower = [](const FinishedBeam& a, const FinishedBeam& b) { return a.score < b.score; };
  const auto lowest = std::min_element(beams_.begin(), beams_.end(), lower);
  spare_.push_back(std::move(*lowest));
  beams_.erase(lowest);
  worst_ = std::min_element(beams_.begin(), beams_.end(), lower)->score;
}

void FinishedBeams::add_455(FinishedBeam beam) {
  const auto after = std::find_if(beams_.begin(), beams_.end(), [&](const FinishedBeam& other) {
    return other.score < beam.score;
  });
  beams_.insert(after, std::move(beam));
  if (static_cast<int64_t>(beams_.size()) > num_beams_) {
    spare_.push_back(std::move(beams_.back()));
    beams_.pop_back();
  }
  worst_ = beams_.back().score;
}

std::vector<const FinishedBeam*> FinishedBeams::sorted() const {
  std::vector<const FinishedBeam*> out;
  for (const FinishedBeam& beam : beams_) out.push_back(&beam);
  if (scoring_ == BeamScoring::kHf455) return out;
  // 4.31 sorts upwards and takes from the end: among equals the last one added comes first.
  std::reverse(out.begin(), out.end());
  std::stable_sort(out.begin(), out.end(), [](const FinishedBeam* a, const FinishedBeam* b) {
    return a->score > b->score;
  });
  return out;
}

const FinishedBeam* FinishedBeams::best() const {
  const FinishedBeam* best = nullptr;
  for (const FinishedBeam& beam : beams_) {
    const bool wins_ties = scoring_ == BeamScoring::kHf431;
    if (best == nullptr || beam.score > best->score || (wins_ties && beam.score == best->score)) {
      best = &beam;
    }
  }
  return best;
}

BeamRule::BeamRule(const SamplingParams& params, int64_t prefix_width, int64_t max_tokens)
    : params_(params),
      beams_(params.num_beams),
      prefix_width_(prefix_width),
      max_tokens_(max_tokens) {}

int64_t BeamRule::candidates() const {
  if (params_.beam_scoring == BeamScoring::kHf431) return 2 * beams_;
  return std::max<int64_t>(2, 1 + static_cast<int64_t>(params_.stop_token_ids.size())) * beams_;
}

int64_t BeamRule::min_keep() const {
  if (params_.beam_scoring == BeamScoring::kHf431 || params_.stop_token_ids.empty()) return 2;
  return 1 + static_cast<int64_t>(params_.stop_token_ids.size());
}

double BeamRule::open_score(double sum, int64_t generated) const {
  const bool old = params_.beam_scoring == BeamScoring::kHf431;
  const int64_t length = old ? prefix_width_ + generated : generated;
  // check_params keeps the power finite and above 0; scores must stay numbers that have an order.
  const double score = sum / std::pow(static_cast<double>(length), params_.length_penalty);
  constexpr double kMost = std::numeric_limits<double>::max();
  return std::clamp(score, -kMost, kMost);
}

void BeamRule::decide(const std::vector<BeamCandidate>& candidates, int64_t generated,
                      bool complete, BeamVerdict* verdict) const {
  verdict->running.clear();
  verdict->finish.clear();
  if (params_.beam_scoring == BeamScoring::kHf431) {
    decide_431(candidates, generated, complete, verdict);
  } else {
    decide_455(candidates, generated, verdict);
  }
}

bool BeamRule::over(const std::vector<BeamCandidate>& candidates, const BeamVerdict& verdict,
                    int64_t generated, const FinishedBeams& finished) const {
  if (verdict.running.empty()) return true;
  if (params_.beam_scoring == BeamScoring::kHf431) {
    double best = candidates.front().score;
    for (const BeamCandidate& c : candidates) best = std::max(best, c.score);
    return over_431(best, generated, finished);
  }
  const auto first = static_cast<size_t>(verdict.running.front());
  return over_455(candidates[first].score, generated, finished);
}

void BeamRule::decide_431(const std::vector<BeamCandidate>& candidates, int64_t generated,
                          bool complete, BeamVerdict* verdict) const {
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const auto index = static_cast<int32_t>(rank);
    if (candidates[rank].ends) {
      // The length is that of the beam as it was, without the stop id.
      if (index >= beams_) continue;
      verdict->finish.push_back({index, open_score(candidates[rank].score, generated)});
    } else {
      verdict->running.push_back(index);
      if (static_cast<int64_t>(verdict->running.size()) == beams_) return;
    }
  }
  if (complete) {
    fail(Code::kInvalidOption,
         "stopTokenIds: " + std::to_string(params_.stop_token_ids.size()) +
             " ids took so many of the best candidates at output token " +
             std::to_string(generated) + " that fewer than numBeams remain; expected fewer ids, " +
             "because beamScoring 'hf-4.31' cannot go on here",
         "use beamScoring 'hf-4.55' or one stop id");
  }
}

// 4.31's is_done: enough hypotheses, and the best candidate's sum cannot beat the worst of them.
bool BeamRule::over_431(double best_sum, int64_t generated, const FinishedBeams& finished) const {
  if (!finished.full()) return false;
  if (params_.early_stopping == EarlyStopping::kTrue) return true;
  const bool longest =
      params_.early_stopping == EarlyStopping::kNever && params_.length_penalty > 0.0;
  const int64_t length = longest ? max_tokens_ : generated + 1;
  return finished.worst() >= open_score(best_sum, length);
}

void BeamRule::decide_455(const std::vector<BeamCandidate>& candidates, int64_t generated,
                          BeamVerdict* verdict) const {
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const auto index = static_cast<int32_t>(rank);
    if (!candidates[rank].ends) {
      verdict->running.push_back(index);
    } else if (index < beams_) {
      verdict->finish.push_back({index, open_score(candidates[rank].score, generated + 1)});
    }
  }
  const auto better = [&](int32_t a, int32_t b) {
    return candidates[static_cast<size_t>(a)].score > candidates[static_cast<size_t>(b)].score;
  };
  insertion_sort(&verdict->running, better);
  if (static_cast<int64_t>(verdict->running.size()) > beams_) {
    verdict->running.resize(static_cast<size_t>(beams_));
  }
  insertion_sort(&verdict->finish, [](const BeamVerdict::Finish& a, const BeamVerdict::Finish& b) {
    return a.score > b.score;
  });
}

// 4.55's heuristic: the best running beam, were it to end now (or, with 'never' and a positive
// penalty, at max_tokens), must beat the worst of num_beams finished ones.
bool BeamRule::over_455(double best_running, int64_t generated,
                        const FinishedBeams& finished) const {
  if (!finished.full()) return false;
  if (params_.early_stopping == EarlyStopping::kTrue) return true;
  const bool longest =
      params_.early_stopping == EarlyStopping::kNever && params_.length_penalty > 0.0;
  const int64_t length = longest ? max_tokens_ : generated + 1;
  return !(open_score(best_running, length) > finished.worst());
}

}  // namespace polylm
