// events.cc: the event queue, and the translation of exceptions at the engine's few catch blocks.
#include "engine/events.h"

#include <exception>
#include <iterator>
#include <new>
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

namespace {

Error translated() {
  try {
    throw;
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return {Code::kInsufficientMemory, "an allocation failed",
            "free memory or load a smaller model"};
  } catch (const std::exception& e) {
    return {Code::kInternal, std::string("unexpected exception: ") + e.what()};
  } catch (...) {
    return {Code::kInternal, "unexpected exception"};
  }
}

Code translated_code() {
  try {
    throw;
  } catch (const Error& e) {
    return e.code();
  } catch (const std::bad_alloc&) {
    return Code::kInsufficientMemory;
  } catch (...) {
    return Code::kInternal;
  }
}

}  // namespace

Error caught_error() noexcept {
  try {
    return translated();
  } catch (...) {  // no memory for the words: these are short enough to need none
  }
  return {translated_code(), "out of memory"};
}

}  // namespace polylm
