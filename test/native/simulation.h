// simulation.h: an engine on the simulated device that a seed drives step by step: requests of all
// kinds come, are cancelled and time out at random moments, the device fails in the middle of
// steps, allocations of the engine fail, the model is disposed and loaded again; and every end is
// compared with the run alone. Not here: threads (engine_sim_test.cc).
// Trap: after a failure of the device a real engine is dead; here it may go on, which asks more.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/runner.h"
#include "engine_journal.h"
#include "sim_reference.h"

namespace polylm::test {

struct Scenario {
  SimOptions sim;
  EngineOptions engine;
  RequestMix mix;
  bool with_text = false;
  double arrivals = 0.3;      // per step, like the others
  double cancels = 0.02;
  double lost_memory = 0.0;   // one of the engine's next allocations fails
  double disposals = 0.0;
};

Scenario random_scenario(Rng& rng);

struct Asked {
  Work work;
  bool cancelled = false;
};

// Checks the end of one request; returns what is wrong with it.
std::string check_end(const Scenario& s, const Asked& asked, const Journal::Entry& entry,
                      const std::shared_ptr<const Tokenizer>& tokenizer);

// How often what was asked for happened.
struct Happened {
  int64_t ends = 0, steps = 0, aborted = 0, timeouts = 0, cached = 0;
  int64_t device_faults = 0;  // that ended everything
  int64_t lost_memory = 0;    // allocations that failed
  int64_t survived = 0;       // of those: ended one request or none
  int64_t disposals = 0;
  int64_t ahead = 0;            // steps that followed one in flight
  int64_t ended_in_flight = 0;  // times that a request had a row in flight when it had ended
  int64_t preempted = 0;        // times that a request made place for another one

  void add(const Happened& other);
};

// One engine without threads or clock.
class Simulation {
 public:
  Simulation(uint64_t seed, const Scenario& scenario);

  // Requests come for so many turns; then all finish.
  void run(int64_t turns);

  int64_t problems() const { return problems_; }
  const std::string& first_problem() const { return first_problem_; }
  int64_t violations() { return violations_ + model_->sim().violations(); }
  uint64_t digest() const { return digest_; }
  Happened happened();

 private:
  void load();
  void turn();
  void submit();
  void cancel(uint64_t id);
  void fail_all(const Error& error, bool load_again);
  template <class F>
  void guarded(F&& f);
  void take();
  void take_end(uint64_t id, const Event& event);
  std::string check(const Asked& asked, const Journal::Entry& entry);
  void check_empty();
  void check_in_flight();
  void problem(const std::string& what);

  Rng rng_;
  Scenario s_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<SimModel> model_;
  std::unique_ptr<Runner> runner_;
  Journal journal_{false};
  std::map<uint64_t, Asked> asked_;
  Clock::time_point now_{std::chrono::milliseconds(1)};
  std::atomic<bool> stop_{false};
  uint64_t last_id_ = 0;
  uint64_t last_end_ = 0;  // in the last turn
  std::optional<Code> failed_with_;  // everything, now
  int64_t memory_ends_ = 0;          // requests that lost memory ended, in this turn
  int64_t problems_ = 0;
  std::string first_problem_;
  uint64_t digest_ = 0;
  int64_t violations_ = 0;  // of models that are gone
  int64_t rows_due_ = 0;    // prompt rows of finished requests, without cached ones
  Happened happened_;
};

}  // namespace polylm::test
