// events.cc: the event queue.
#include "engine/events.h"

#include <iterator>
#include <utility>

namespace polylm {

void EventQueue::publish(std::vector<Event>* events) {
  if (events->empty()) return;
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.empty()) {
      waiting_.swap(*events);
    } else {
      waiting_.insert(waiting_.end(), std::make_move_iterator(events->begin()),
                      std::make_move_iterator(events->end()));
    }
    wake = !told_;
    told_ = true;
  }
  events->clear();
  if (wake && wake_) wake_();
}

void EventQueue::take(std::vector<Event>* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  told_ = false;
  if (out->empty()) {
    out->swap(waiting_);
  } else {
    out->insert(out->end(), std::make_move_iterator(waiting_.begin()),
                std::make_move_iterator(waiting_.end()));
  }
  waiting_.clear();
}

Event failed_event(uint64_t request, const Error& error) {
  Event event;
  event.request = request;
  event.kind = EventKind::kFailed;
  event.error = error;
  return event;
}

}  // namespace polylm
