// beam_rule.h: what a step of beam search does with its candidates: which finish, which run on,
// when the search is over. Two rules: transformers 4.31 (whose lengths count the prompt and not the
// stop id, and which adds the open beams at the end) and 4.55 (whose lengths count generated tokens
// with the stop id, and where beams at max_tokens compete as finished ones).
// Not here: how candidates come about (beam_decoder.cc). Trap: in both, only the first num_beams
// candidates can finish; a finished one behind them is lost.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"

namespace polylm {

struct BeamCandidate {
  double score = 0.0;       // sum of the scores of its tokens
  int32_t beam = 0;         // parent, index among the running beams
  int32_t token = 0;
  int32_t stop_string = -1;  // index in params.stop that the token completed
  bool ends = false;         // stop id, stop string, choice; 4.55 also at max_tokens
  float logprob = 0.0F;      // as reported
};

struct FinishedBeam {
  double score = 0.0;           // normalised by length
  std::vector<int32_t> tokens;  // generated, with the stop id
  std::vector<int32_t> nodes;   // of the token log, one per token
  int32_t stop_token = -1;
  FinishReason reason = FinishReason::kLength;
};

// What a step decided; indices of candidates.
struct BeamVerdict {
  std::vector<int32_t> running;  // best first
  struct Finish {
    int32_t candidate = 0;
    double score = 0.0;
  };
  std::vector<Finish> finish;  // in the order in which they are to be added
};

// The finished hypotheses of one prompt, at most num_beams.
class FinishedBeams {
 public:
  FinishedBeams(int64_t num_beams, BeamScoring scoring, int64_t max_tokens);
  // An empty one to fill and add; its memory is that of one that was given up.
  FinishedBeam blank();
  // 4.31: kept when there is room or it beats the worst, which then goes. 4.55: merged in order of
  // score, older ones first among equals.
  void add(FinishedBeam beam);
  bool full() const { return static_cast<int64_t>(beams_.size()) == num_beams_; }
  // Of those kept; with 4.31 as its bookkeeping has it.
  double worst() const { return worst_; }
  // Best first, as the version returns them.
  std::vector<const FinishedBeam*> sorted() const;
  const FinishedBeam* best() const;
  const std::vector<FinishedBeam>& beams() const { return beams_; }

 private:
  void add_431(FinishedBeam beam);
  void add_455(FinishedBeam beam);

  int64_t num_beams_;
  BeamScoring scoring_;
  std::vector<FinishedBeam> beams_;
  std::vector<FinishedBeam> spare_;  // as many as may still be added without any to give up
  double worst_ = 1e9;
};

class BeamRule {
 public:
  BeamRule(const SamplingParams& params, int64_t prefix_width, int64_t max_tokens);

  // Candidates of a step over all beams.
  int64_t candidates() const;
  // Hugging Face's min_tokens_to_keep of the warpers.
  int64_t min_keep() const;
  // `generated`: tokens before this step. `candidates`: by score, best first; 4.55 with sampling:
  // in the order they were drawn. `complete`: as many as candidates() were found. Throws
  // INVALID_OPTION where 4.31 raises: too many of them are stop ids.
  void decide(const std::vector<BeamCandidate>& candidates, int64_t generated, bool complete,
              BeamVerdict* verdict) const;
  // The score of a beam that is finished as it stands, with so many generated tokens.
  double open_score(double sum, int64_t generated) const;
  // Whether the search is over once a verdict's hypotheses were added.
  bool over(const std::vector<BeamCandidate>& candidates, const BeamVerdict& verdict,
            int64_t generated, const FinishedBeams& finished) const;

 private:
  void decide_431(const std::vector<BeamCandidate>& candidates, int64_t generated, bool complete,
                  BeamVerdict* verdict) const;
  void decide_455(const std::vector<BeamCandidate>& candidates, int64_t generated,
                  BeamVerdict* verdict) const;
  bool over_431(double best_sum, int64_t generated, const FinishedBeams& finished) const;
  bool over_455(double best_running, int64_t generated, const FinishedBeams& finished) const;

  const SamplingParams& params_;
  int64_t beams_;
  int64_t prefix_width_;
  int64_t max_tokens_;
};

}  // namespace polylm
