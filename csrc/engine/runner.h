// runner.h: everything that only the engine thread touches: waiting and running requests, blocks,
// reservations and the step. Knows no threads and no clock of its own, so a test can drive it step
// by step from a seed. Not here: the loop and the queues (engine.cc).
//
// Steps in flight (decisions.md 8). On a device that feeds tokens back, step n + 1 is submitted
// before the results of step n are collected, so that the device never waits for the host. That is
// done for whole steps only: when every running request has a row in step n, takes the best token
// whatever it is (Decoder::feeds_back), and is not known to end with it. Then step n + 1 has the
// same rows, one position on, and takes their tokens from the selects of step n. So whoever comes,
// or ends, finds one step in flight; the step after that is planned from scratch.
// - A request that ended with step n, or was cancelled, has a row in step n + 1 all the same. Its
//   results are dropped; nothing of it is committed, so it never reaches the prefix cache. The run
//   keeps its blocks and its reservation until no step is in flight: sweep() waits.
// - The block of the additional position is within the reservation: the row before the last token
//   is the last one that is computed, in flight or not.
// - In a failure of any step everything ends, as ever; fail_all waits for what is in flight.
// The device alone knows how many steps are in flight (Ops::in_flight); batch_ is the oldest one.
//
// Trap: an error of one request ends that request; whatever else step() throws (DEVICE, INTERNAL,
// no memory) means that no request can go on: call fail_all.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/block_pool.h"
#include "engine/engine.h"
#include "engine/inbox.h"
#include "engine/pace.h"
#include "engine/prefix_cache.h"
#include "engine/run.h"
#include "engine/scheduler.h"
#include "engine/step_batch.h"
#include "engine/turns.h"
#include "model/model.h"

namespace polylm {

class Runner {
 public:
  // The model has reserved step_limits(options, vocab) and the blocks.
  Runner(Model* model, std::shared_ptr<const Tokenizer> tokenizer, const EngineOptions& options);
  ~Runner();

  // What fails here ends this request.
  void arrive(Arrival arrival, Clock::time_point now);
  void cancel(uint64_t id, Clock::time_point now);
  // Ends those that waited too long, starts those whose turn it is.
  void tick(Clock::time_point now);
  // When tick must be called although nothing comes and nothing runs.
  std::optional<Clock::time_point> deadline() const;
  // Whether tick and step have something to do.
  bool busy() const { return !runs_.empty(); }
  // One step for all running requests. False when `stop` ended it in the middle.
  bool step(const std::atomic<bool>& stop);
  // Ends everything with this error.
  void fail_all(const Error& error);

  std::vector<Event>& events() { return events_; }
  const EngineStats& counters();
  const BlockPool& pool() const { return pool_; }
  int64_t reserved_blocks() const { return reserved_blocks_; }

 private:
  // The part of one request in the step being made.
  struct Entry {
    Run* run = nullptr;
    bool decode = false;
    int64_t end = 0;    // prompt chunk: position after its last row
    int64_t shift = 0;  // prompt chunk: row of the step minus position
    int64_t first_select = 0;
    int64_t select_count = 0;
    int64_t drafts = 0;  // of the selects, the last ones
    int64_t behind = 0;  // rows of generated tokens of which nothing is wanted
    int64_t first_asked = 0;
  };

  void add(Arrival arrival, Clock::time_point now);
  void start(Run* run, Clock::time_point now);
  bool start_next(Clock::time_point now);
  void preempt(Run* run);
  void expire(Clock::time_point now);
  void finish(Run* run, bool aborted, Clock::time_point now);
  void end_failed(Run* run, const Error& error);
  void end_cancelled(Run* run, Clock::time_point now);
  void sweep();

  bool held(const Run& run) const;
  bool submit(const StepBatch& batch, const std::atomic<bool>& stop);
  bool may_go_ahead() const;
  void fill_ahead();
  RunView view_of(Run* run);
  void fill_batch();
  void add_decode(Run* run, int64_t rows);
  void add_behind(Run* run, int64_t rows);
  void add_chunk(Run* run, int64_t rows);
  void take_results(const std::vector<SelectResult>& results);
  void take_chunk(const Entry& entry, const SelectResult* rows, Clock::time_point now);
  void advance(const Entry& entry, const SelectResult* rows, Clock::time_point now);

  Model* model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EngineOptions options_;
  int64_t vocab_;
  int64_t block_tokens_;
  PlanLimits limits_;
  Pace pace_;
  BlockPool pool_;
  std::optional<PrefixCache> cache_;
  StepBatch batch_;
  std::optional<StepBatch> ahead_;  // the step behind batch_, where the device feeds tokens back
  BatchPlan plan_;
  std::vector<RunView> views_;
  std::vector<Entry> entries_;  // of batch_, and of the step ahead of it
  std::vector<Transition> next_;
  std::vector<int32_t> drafts_;
  std::vector<Place*> yielding_;

  Turns turns_;
  std::map<uint64_t, std::unique_ptr<Run>> runs_;  // waiting and running
  std::vector<Run*> running_;                      // in the order of their starts
  bool wants_room_ = false;  // the next request takes a place once no step is in flight
  std::optional<Clock::time_point> deadline_;  // no later than the first of those not started
  int64_t reserved_blocks_ = 0;
  int64_t reserved_rows_ = 0;
  std::vector<Event> events_;
  EngineStats counters_;
  int64_t ended_ = 0;
};

}  // namespace polylm
