// inbox.h: the way into the engine and its only lock besides the event queue's: requests go from
// the caller to the intake thread to the engine thread, cancels and the end overtake them. Not
// here: what is done with any of it (engine.cc).
// Trap: a cancel may come before its request has left the intake; the mark then travels with it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/intake.h"

namespace polylm {

// For the intake thread.
struct Submission {
  uint64_t id = 0;
  Request request;
};

// For the engine thread.
struct Arrival {
  uint64_t id = 0;
  Clock::time_point submitted;
  bool cancelled = false;
  Work work;
};
struct Commands {
  std::vector<Arrival> arrivals;
  std::vector<uint64_t> cancels;
  bool finish = false;  // the last commands: the engine thread ends
};

// When a slot may be free again: the mean time a request took of the engine, 1 s before any ended.
int64_t retry_after_ms(double busy_ms, int64_t ended);

class Inbox {
 public:
  explicit Inbox(int64_t max_queue) : max_queue_(max_queue) {}

  // Any thread -------------------------------------------------------------------------------
  // Throws QUEUE_FULL, DRAINING, DISPOSED, or what the engine failed with.
  uint64_t submit(Request request);
  void cancel(uint64_t id);
  void drain();
  // Nothing enters any more; the intake ends.
  void stop();
  // After the intake has ended: the engine ends.
  void finish();
  EngineStats stats() const;

  // Intake thread ----------------------------------------------------------------------------
  // Waits for the next request: the oldest and the one with the shortest prompt in turns, so that a
  // short prompt does not wait until all long ones are encoded. False when there will be none.
  bool take(Submission* out);
  void deliver(uint64_t id, Work work);
  // The request ended in the intake.
  void reject(uint64_t id);

  // Engine thread ----------------------------------------------------------------------------
  // Moves out what has come. Waits for something while `idle`, at most until `deadline`.
  void wait(bool idle, std::optional<Clock::time_point> deadline, Commands* out);
  // `counters` replaces what stats() says of the engine's requests, `waiting` of those it holds.
  void report(const EngineStats& counters);
  void set_failed(const Error& error);
  // What the engine failed with.
  Error failure() const;
  // Requests that never reached the engine. After the intake has ended.
  std::vector<uint64_t> take_orphans();

 private:
  struct Incoming {
    Request request;
    Clock::time_point submitted;
    int64_t size = 0;
    bool cancelled = false;
  };
  int64_t waiting_locked() const;
  void check_open_locked() const;

  const int64_t max_queue_;
  mutable std::mutex mutex_;
  std::condition_variable intake_wakes_;
  std::condition_variable engine_wakes_;
  std::map<uint64_t, Incoming> incoming_;  // in the intake
  std::set<std::pair<int64_t, uint64_t>> by_size_;  // those not taken yet
  Commands commands_;                      // for the engine
  uint64_t last_id_ = 0;
  uint64_t taken_ = 0;  // being prepared; 0: none
  bool took_oldest_ = false;
  EngineState state_ = EngineState::kReady;
  std::optional<Error> failure_;
  EngineStats counters_;  // as the engine reported
  int64_t requests_ = 0;
  int64_t rejected_ = 0;
};

}  // namespace polylm
