// turns.cc: lines of callers, the choice among them, and the search for places.
#include "engine/turns.h"

#include <algorithm>

#include "platform/error.h"

namespace polylm {
namespace {

// Kinds of lines; the first letter of their names.
constexpr char kShort = 's';
constexpr char kInteractive = 'i';
constexpr char kBatch = 'b';

// A place weighs what it takes of the scarcer thing, in shares of all there is.
constexpr int64_t kWhole = int64_t{1} << 20;

int64_t weight_of(Demand demand, Demand all) {
  return std::max(demand.rows * kWhole / all.rows, demand.blocks * kWhole / all.blocks);
}

bool is_before(const Line& a, const Line& b) {
  return a.held != b.held ? a.held < b.held : a.turn < b.turn;
}

Place* first_waiting(const Line& line) {
  for (const auto& [id, place] : line.places) {
    if (!place->running) return place;
  }
  return nullptr;
}

bool fits(Demand demand, Demand room) {
  return demand.rows <= room.rows && demand.blocks <= room.blocks;
}

// The place that costs least: batch first, then of the line that holds most, then the youngest.
bool gives_sooner(const Place& a, const Place& b) {
  if (a.batch != b.batch) return a.batch;
  const int64_t held_a = a.line->held - a.line->leaving;
  const int64_t held_b = b.line->held - b.line->leaving;
  if (held_a != held_b) return held_a > held_b;
  return a.began != b.began ? a.began > b.began : a.id > b.id;
}

}  // namespace

Turns::Turns(Demand all) : all_(all) {
  POLYLM_CHECK(all.rows > 0 && all.blocks > 0);
  running_.reserve(static_cast<size_t>(all.rows));
}

void Turns::add(Place* place, const std::string& caller, int64_t step) {
  const bool is_short = place->steps <= kShortSteps;
  const char kind = place->batch ? kBatch : is_short ? kShort : kInteractive;
  const auto found = lines_.try_emplace(kind + caller).first;
  Line& line = found->second;
  try {
    line.places.emplace(place->id, place);
  } catch (...) {
    if (line.places.empty()) lines_.erase(found);
    throw;
  }
  if (line.places.size() == 1) {
    line.name = &found->first;
    line.kind = kind;
    line.turn = ++turns_;
  }
  place->line = &line;
  place->weight = weight_of(place->demand, all_);
  ++line.waiting;
  ++waiting_;
  if (!place->batch) return;
  if (batch_running_ == 0 && batch_waiting_ == 0) batch_idle_since_ = step;
  ++batch_waiting_;
}

void Turns::remove(Place* place, int64_t step) {
  if (place->running) preempt(place, step);
  Line& line = *place->line;
  --line.waiting;
  --waiting_;
  if (place->batch) --batch_waiting_;
  line.places.erase(place->id);
  place->line = nullptr;
  if (line.places.empty()) lines_.erase(lines_.find(*line.name));
}

// Of those with somebody waiting, among lines of this kind; kInteractive means short ones too.
const Line* Turns::best_line(char kind) const {
  const Line* best = nullptr;
  for (const auto& [name, line] : lines_) {
    const bool wanted = line.kind == kind || (kind == kInteractive && line.kind == kShort);
    if (!wanted || line.waiting == 0) continue;
    if (best == nullptr || is_before(line, *best)) best = &line;
  }
  return best;
}

bool Turns::batch_is_due(int64_t step) const {
  return batch_running_ == 0 && batch_waiting_ > 0 && step - batch_idle_since_ >= kBatchPatience;
}

Place* Turns::next(Demand room, int64_t step, std::vector<Place*>* out) const {
  out->clear();
  if (waiting_ == 0) return nullptr;
  const Line* best = batch_is_due(step) ? nullptr : best_line(kInteractive);
  if (best == nullptr) best = best_line(kBatch);
  if (best == nullptr) return nullptr;
  Place* const first = first_waiting(*best);
  if (fits(first->demand, room)) return first;
  const Line* const shorts = best_line(kShort);
  Place* const first_short = shorts == nullptr ? nullptr : first_waiting(*shorts);
  // Passing over the next one, it gets none of the free room, which is the next one's.
  const bool passes = first_short != nullptr && first_short != first;
  if (passes && find_room(*first_short, {}, step, out)) return first_short;
  return find_room(*first, room, step, out) ? first : nullptr;
}

void Turns::start(Place* place, int64_t lost, int64_t step) {
  POLYLM_CHECK(!place->running);
  if (place->batch && batch_is_due(step)) place->was_preempted = true;
  running_.push_back(place);
  place->running = true;
  place->is_behind = lost > 0;
  place->began = step;
  place->turn = std::max(kTurnSteps, lost / 8);
  Line& line = *place->line;
  line.held += place->weight;
  line.turn = ++turns_;
  --line.waiting;
  --waiting_;
  if (!place->batch) return;
  --batch_waiting_;
  ++batch_running_;
}

void Turns::goes_on(Place* place, int64_t step) {
  place->is_behind = false;
  place->began = step;
}

void Turns::preempt(Place* place, int64_t step) {
  POLYLM_CHECK(place->running);
  running_.erase(std::find(running_.begin(), running_.end(), place));
  place->running = false;
  place->was_preempted = true;
  Line& line = *place->line;
  line.held -= place->weight;
  line.turn = ++turns_;
  ++line.waiting;
  ++waiting_;
  if (!place->batch) return;
  ++batch_waiting_;
  if (--batch_running_ == 0) batch_idle_since_ = step;
}

bool Turns::yields(const Place& running, const Place& next, int64_t step) const {
  if (running.line == next.line || running.leaving || running.is_behind) return false;
  const bool had_turn = step - running.began >= running.turn;
  const bool may_go = had_turn || !running.was_preempted;
  const Line& line = *running.line;
  if (running.batch && !next.batch) return may_go;
  if (next.batch && !running.batch) return may_go && batch_is_due(step);
  if (next.line->held == 0 && had_turn) return true;
  if (next.line->kind != line.kind) return may_go && next.line->kind == kShort;
  return may_go && line.held - line.leaving - running.weight >= next.line->held + next.weight;
}

// Nothing in `out` when there is no room.
bool Turns::find_room(const Place& next, Demand room, int64_t step,
                      std::vector<Place*>* out) const {
  out->clear();
  while (!fits(next.demand, room)) {
    Place* found = nullptr;
    for (Place* const place : running_) {
      if (!yields(*place, next, step)) continue;
      if (found == nullptr || gives_sooner(*place, *found)) found = place;
    }
    if (found == nullptr) break;
    out->push_back(found);
    found->leaving = true;
    found->line->leaving += found->weight;
    room.rows += found->demand.rows;
    room.blocks += found->demand.blocks;
  }
  for (Place* const place : *out) {
    place->leaving = false;
    place->line->leaving = 0;
  }
  if (!fits(next.demand, room)) out->clear();
  return fits(next.demand, room);
}

}  // namespace polylm
