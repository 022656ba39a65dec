// engine_journal.h: keeps all events of an engine by request and checks what must hold for any of
// them: their order, one end each, deltas that add up to the result. For tests of the engine.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace polylm::test {

// kv_tokens_used of an engine whose requests have all ended: a step in flight may hold blocks for a
// moment longer.
int64_t kv_tokens_left(const Engine& engine);

class Journal {
 public:
  struct Entry {
    bool admitted = false;
    bool ended = false;
    int64_t prefill_done = 0;
    int64_t prefill_events = 0;
    int64_t deltas = 0;
    std::map<int32_t, std::string> text;             // by output
    std::map<int32_t, std::vector<TokenInfo>> tokens;
    Event last;
  };

  // `admits`: the engine sends kAdmitted (a runner alone does not).
  explicit Journal(bool admits) : admits_(admits) {}
  void add(const Event& event);
  void add_all(std::vector<Event>* events);
  const Entry& of(uint64_t id) const { return entries_.at(id); }
  bool knows(uint64_t id) const { return entries_.count(id) > 0; }
  bool ended(uint64_t id) const { return entries_.count(id) > 0 && entries_.at(id).ended; }
  int64_t ends() const { return ends_; }
  // A stream's deltas against its result.
  static std::string delta_difference(const Entry& entry, const Request& request);
  void clear() { entries_.clear(); }

 private:
  bool admits_;
  int64_t ends_ = 0;
  std::map<uint64_t, Entry> entries_;
};

}  // namespace polylm::test
