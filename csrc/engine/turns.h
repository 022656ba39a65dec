// turns.h: callers take turns: whose request starts next, and who makes place for it when all
// places are taken. Plain data, no blocks, no model: a place is a share of a step's rows and of the
// KV blocks. Not here: rows of a step (scheduler.h), preempting a request (run.h).
//
// Lines. Requests wait in lines, one for each caller and kind. The caller is the salt, else the
// session, else everybody without either. The kinds: short ones (at most kShortSteps steps), the
// other interactive ones, batch. In a line the oldest request is first, also when it was preempted.
// Next. Interactive lines go before batch lines; of those the line whose running requests hold the
// least; of equals the one that has got and given back nothing for longest. So a line with nothing
// running is overtaken at most once by each other line. When batch work waits and none of it has
// run for kBatchPatience steps, the next place is a batch line's. Nothing else takes a free place.
// Places. When the next request does not fit, running ones of other lines are preempted for it:
// - batch ones for an interactive one;
// - any for a batch request that is due;
// - interactive ones for a short one, which then need not be the next;
// - of its own kind while their line then still holds as much as its line does;
// - interactive for interactive, batch for batch, when its line holds nothing and they have had
//   their turn.
// A request is preempted at once the first time. One that came back first computes again what was
// lost, and then has its turn: kTurnSteps, or a step for every eight tokens that were lost. So has
// a batch request that started because it was due.
// Hence the bounds, tested: the next request starts at once when a running one that was never
// preempted can make place for it, otherwise when the first of those has had its turn; and each
// line gets its turn within as many starts as there are lines.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace polylm {

inline constexpr int64_t kBatchPatience = 64;  // steps
inline constexpr int64_t kTurnSteps = 128;
inline constexpr int64_t kShortSteps = 16;
inline constexpr int64_t kShortRows = 32;  // rows of a prompt that count as a step

struct Line;

// What Turns knows of one request. Lives with the request, from add to remove.
struct Place {
  uint64_t id = 0;     // in order of arrival
  bool batch = false;  // nobody waits for it alone
  Demand demand;
  int64_t steps = 0;   // that it takes at most, if it gets what it asks for

  // Of Turns.
  Line* line = nullptr;
  int64_t weight = 0;
  bool running = false;
  bool was_preempted = false;  // or started because batch work was due: has its turn now
  bool is_behind = false;  // computes again what was lost
  bool leaving = false;    // while places are looked for
  int64_t began = 0;       // step since which it goes on
  int64_t turn = 0;        // steps that it may run before others take its place
};

class Turns {
 public:
  // All there is.
  explicit Turns(Demand all);
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // The request waits. Throws before anything is kept.
  void add(Place* place, const std::string& caller, int64_t step);
  // Wherever it is.
  void remove(Place* place, int64_t step);
  // Which of the waiting requests starts now, and in `out` the running ones that make place for it
  // beside the free `room`. nullptr: none. Allocates nothing when `out` has the capacity.
  Place* next(Demand room, int64_t step, std::vector<Place*>* out) const;
  // `lost`: tokens that it has to compute again before it can go on.
  void start(Place* place, int64_t lost, int64_t step);
  // It has done so.
  void goes_on(Place* place, int64_t step);
  void preempt(Place* place, int64_t step);

  int64_t waiting() const { return waiting_; }

 private:
  const Line* best_line(char kind) const;
  bool batch_is_due(int64_t step) const;
  bool find_room(const Place& next, Demand room, int64_t step, std::vector<Place*>* out) const;
  bool yields(const Place& running, const Place& next, int64_t step) const;

  Demand all_;
  std::map<std::string, Line> lines_;  // by kind and caller
  std::vector<Place*> running_;
  int64_t waiting_ = 0;
  uint64_t turns_ = 0;             // given so far
  int64_t batch_running_ = 0;
  int64_t batch_waiting_ = 0;
  int64_t batch_idle_since_ = 0;   // step since which none runs although some wait
};

// Requests of one caller and kind, waiting or running.
struct Line {
  const std::string* name = nullptr;
  std::map<uint64_t, Place*> places;  // by age
  char kind = ' ';                    // see turns.cc
  int64_t waiting = 0;
  int64_t held = 0;     // weights of the running ones
  int64_t leaving = 0;  // of those that would be preempted
  uint64_t turn = 0;    // when it had its last turn, or came
};

}  // namespace polylm
