// events.h: the way out of the engine: events in order, one wake-up until they are taken. Not here:
// how they cross to JavaScript (binding/). Any thread publishes, one consumer takes.
// Trap: wake is called without the lock held, so a consumer may be told of events it already took.
#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "engine/request.h"

namespace polylm {

class EventQueue {
 public:
  explicit EventQueue(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Appends all of `events` (then empty) and wakes the consumer unless it was told already.
  void publish(std::vector<Event>* events);
  // Appends everything that waits to `out`.
  void take(std::vector<Event>* out);

 private:
  std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<Event> waiting_;
  bool told_ = false;
};

// The end of a request that has no result.
Event failed_event(uint64_t request, const Error& error);

}  // namespace polylm
