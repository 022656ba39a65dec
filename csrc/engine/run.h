// run.h: one request on the engine thread, from its arrival to its last event: what it asked, its
// hypotheses, its decoder and what was told to the caller so far. Not here: when it runs
// (scheduler.h), the step (step.cc).
// Trap: a stream's deltas must add up to the final text exactly: the last drain comes after finish.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/decoder.h"
#include "engine/inbox.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/turns.h"

namespace polylm {

class Tokenizer;

class Run {
 public:
  explicit Run(Arrival arrival);

  // Everything that the request will ever need on the host. May throw; then the request ends.
  // With a cache, the prompt begins with what is there.
  void start(BlockPool* pool, PrefixCache* cache, int64_t block_tokens, int64_t vocab,
             const std::shared_ptr<const Tokenizer>& tokenizer, Clock::time_point now);
  // Preemption (turns.h): the blocks go, tokens and decoder stay. On its way back a run fills
  // what it had computed as it fills a prompt, and where rows of generated tokens are computed
  // otherwise, or hypotheses differ, the rest as generated rows of which nothing is wanted.
  // No step with a row of it may be in flight.
  void preempt(PrefixCache* cache);
  void come_back(PrefixCache* cache, int64_t block_tokens, bool roles_matter);
  bool started() const { return set_.has_value(); }
  // Tokens that were computed once and must be again.
  int64_t lost() const;
  bool is_behind() const;
  // Was decoding before.
  bool is_back() const { return back_; }
  // Rows were computed on the way back.
  void caught_up();
  // Takes what others computed of its prompt since. Nothing while a block is half full.
  void catch_up(PrefixCache* cache, int64_t block_tokens);
  // Whether the next block of its prompt is one that `other` is computing and will leave in the
  // cache. `other` is filling its prompt, too.
  bool follows(const Run& other, int64_t block_tokens) const;
  // Some of the prompt was computed; its full blocks can serve others.
  void keep_prefix(PrefixCache* cache);
  // The request ends; the full blocks of its answer too. With several hypotheses: nothing.
  void keep_answer(PrefixCache* cache);

  // A step's results ---------------------------------------------------------------------------
  // Row `row` of the prompt gave `result`; scores the token after it.
  void take_score(int64_t row, const SelectResult& result);
  // The full logits after row `row` of the prompt.
  void take_logits(int64_t row, const float* logits, int64_t vocab);
  // The decoder has advanced for the first time or again.
  void advanced(Clock::time_point now);
  // The last row of the prompt is computed.
  void prompt_computed(Clock::time_point now) { prompt_done_ = now; }

  // Events -------------------------------------------------------------------------------------
  void add_prefill(std::vector<Event>* out) const;
  void add_deltas(std::vector<Event>* out);
  // Ends with a result. Throws when the decoder does.
  void add_finished(bool aborted, Clock::time_point now, std::vector<Event>* out);

  uint64_t id() const { return id_; }
  // Who takes turns with others; a salt is no name of a session.
  std::string caller() const {
    const Request& request = work_.request;
    return request.cache_salt.empty() ? request.caller : "salt " + request.cache_salt;
  }
  const Work& work() const { return work_; }
  const Request& request() const { return work_.request; }
  Clock::time_point submitted() const { return submitted_; }
  std::optional<Clock::time_point> deadline() const;  // none once it has started
  bool is_generate() const { return work_.request.kind == RequestKind::kGenerate; }
  // Rows of [0, fill_end) of the first hypothesis are computed first; then, of a run that came
  // back, those that are behind; then it decodes. Scoring does not.
  bool filling() const { return !first_token_ || (back_ && (*set_)[0].computed() < fill_end_); }
  bool decoding() const { return first_token_ && !back_; }
  // Rows before this one were computed before the run was preempted.
  int64_t filled_before() const { return filled_before_; }
  // The first row whose token is scored next.
  int64_t score_begin() const;
  RunView view() const;
  Decoder& decoder() { return *decoder_; }
  SequenceSet& set() { return *set_; }
  const SequenceSet& set() const { return *set_; }
  const Usage& usage() const { return result_->usage; }
  // Whether the next token is the last one, whatever it is. One hypothesis.
  bool ends_next() const;
  bool ended = false;  // its last event is made; the runner forgets it, and its blocks, after the
                       // last step that has a row of it
  Place place;         // of Turns

 private:
  struct Sent {  // of one output of a stream
    std::string text;
    int64_t tokens = 0;
  };
  void check_sent() const;
  int64_t first_needed_row() const;
  void count_cached(int64_t from, int64_t to);
  void take_outputs(bool aborted, std::vector<Event>* out);
  Timings timings(Clock::time_point now) const;

  std::shared_ptr<RequestResult> result_;
  uint64_t id_;
  Work work_;
  Clock::time_point submitted_;
  std::optional<Clock::time_point> admitted_, prompt_done_, first_token_;
  std::unique_ptr<Decoder> decoder_;  // kGenerate
  std::optional<SequenceSet> set_;
  int64_t kept_blocks_ = 0;  // that the prefix cache knows
  int64_t fill_end_ = 0;
  int64_t filled_before_ = 0;
  bool back_ = false;        // was decoding when it was preempted, and has not caught up
  std::vector<Sent> sent_;  // [n]
  std::vector<OutputDelta> deltas_;
};

}  // namespace polylm
