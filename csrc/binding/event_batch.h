// event_batch.h: a batch of engine events as three JavaScript values: numbers, bytes of text and
// one object per finished or failed request, for one call into lib/events.ts, which documents the
// layout. Keeps what it takes to give text ranges of streamed tokens in UTF-16 units.
#pragma once

#include <napi.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace polylm {

class EventPacker {
 public:
  // A request that streams tokens with text ranges was submitted.
  void track(uint64_t request, int64_t outputs);
  // Calls on_events(numbers, text, objects). Returns how many requests ended. What it throws before
  // that call leaves everything as it was, so that the same events can be delivered again.
  int64_t deliver(Napi::Env env, const std::vector<Event>& events, const Napi::Function& on_events);

 private:
  // UTF-16 position of every byte of an output's text so far, and of its end.
  using Positions = std::vector<uint32_t>;

  void pack(Napi::Env env, const Event& event, std::vector<double>* numbers, std::string* text,
            const Napi::Array& objects);
  void pack_delta(const Event& event, std::vector<double>* numbers, std::string* text);
  void undo();

  struct Grown {
    Positions* positions;
    size_t before;
  };
  bool says_nothing(const Event& event) const;

  std::unordered_map<uint64_t, std::vector<Positions>> tracked_;
  std::vector<Grown> grown_;  // by the events of this delivery
};

}  // namespace polylm
