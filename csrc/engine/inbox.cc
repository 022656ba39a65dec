// inbox.cc: the monitor of inbox.h. Every public function takes the lock once and does O(1) work
// under it (O(log n) in the number of requests that wait).
#include "engine/inbox.h"

#include <string>
#include <utility>

#include "platform/error.h"

namespace polylm {

int64_t retry_after_ms(double busy_ms, int64_t ended) {
  return ended > 0 ? static_cast<int64_t>(busy_ms / static_cast<double>(ended)) + 1 : 1000;
}

namespace {

int64_t size_of(const Request& request) {
  int64_t size = 0;
  for (const PromptPart& part : request.prompt) {
    size += static_cast<int64_t>(part.text.size() + part.ids.size());
  }
  return size;
}

}  // namespace

int64_t Inbox::waiting_locked() const {
  return static_cast<int64_t>(incoming_.size() + commands_.arrivals.size()) + counters_.waiting;
}

void Inbox::check_open_locked() const {
  switch (state_) {
    case EngineState::kReady:
      return;
    case EngineState::kDraining:
      fail(Code::kDraining, "the model is being disposed and takes no new requests");
    case EngineState::kFailed:
      throw Error(*failure_);
    case EngineState::kDisposed:
      fail(Code::kDisposed, "the model was disposed");
  }
}

uint64_t Inbox::submit(Request request) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t waiting = waiting_locked();
  if (state_ != EngineState::kReady || waiting >= max_queue_) ++rejected_;
  check_open_locked();
  if (waiting >= max_queue_) {
    fail(Code::kQueueFull,
         std::to_string(waiting) + " requests wait, at most " + std::to_string(max_queue_) + " may",
         "retry later, or raise maxQueue",
         {{"waiting", waiting},
          {"retryAfterMs", retry_after_ms(counters_.busy_ms,
                                          requests_ - waiting - counters_.running)}});
  }
  const uint64_t id = last_id_ + 1;
  Incoming incoming;
  incoming.request = std::move(request);
  incoming.submitted = Clock::now();
  incoming.size = size_of(incoming.request);
  const std::pair<int64_t, uint64_t> size{incoming.size, id};
  by_size_.insert(size);
  try {
    incoming_.emplace(id, std::move(incoming));
  } catch (...) {
    by_size_.erase(size);
    throw;
  }
  last_id_ = id;
  ++requests_;
  intake_wakes_.notify_one();
  return id;
}

void Inbox::cancel(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = incoming_.find(id);
  if (found != incoming_.end()) {
    found->second.cancelled = true;
    return;
  }
  if (id == 0 || id > last_id_) return;
  commands_.cancels.push_back(id);
  engine_wakes_.notify_one();
}

void Inbox::drain() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (state_ == EngineState::kReady) state_ = EngineState::kDraining;
}

void Inbox::stop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_ = EngineState::kDisposed;
  intake_wakes_.notify_all();
}

void Inbox::finish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  commands_.finish = true;
  engine_wakes_.notify_all();
}

EngineStats Inbox::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  EngineStats stats = counters_;
  stats.state = state_;
  if (failure_.has_value()) {
    stats.failure = code_name(failure_->code());
    stats.failure_message = failure_->message();
  }
  stats.waiting = waiting_locked();
  stats.requests = requests_;
  stats.rejected += rejected_;
  return stats;
}

bool Inbox::take(Submission* out) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (state_ == EngineState::kDisposed) return false;
    if (!by_size_.empty()) {
      auto next = incoming_.begin();
      if (took_oldest_) {
        next = incoming_.find(by_size_.begin()->second);
      } else if (next->first == taken_) {
        ++next;
      }
      took_oldest_ = !took_oldest_;
      by_size_.erase({next->second.size, next->first});
      taken_ = next->first;
      out->id = next->first;
      out->request = std::move(next->second.request);
      return true;
    }
    intake_wakes_.wait(lock);
  }
}

void Inbox::deliver(uint64_t id, Work work) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = incoming_.find(id);
  POLYLM_CHECK(found != incoming_.end());
  Arrival arrival;
  arrival.id = id;
  arrival.submitted = found->second.submitted;
  arrival.cancelled = found->second.cancelled;
  arrival.work = std::move(work);
  commands_.arrivals.push_back(std::move(arrival));
  incoming_.erase(found);
  taken_ = 0;
  engine_wakes_.notify_one();
}

void Inbox::reject(uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  incoming_.erase(id);
  taken_ = 0;
  ++rejected_;
}

void Inbox::wait(bool idle, std::optional<Clock::time_point> deadline, Commands* out) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ready = [&] {
    if (commands_.finish) return true;
    if (state_ == EngineState::kDisposed) return false;  // only the end is left to come
    return !idle || !commands_.arrivals.empty() || !commands_.cancels.empty();
  };
  if (deadline.has_value() && state_ != EngineState::kDisposed) {
    engine_wakes_.wait_until(lock, *deadline, ready);
  } else {
    engine_wakes_.wait(lock, ready);
  }
  out->arrivals.clear();
  out->cancels.clear();
  out->arrivals.swap(commands_.arrivals);
  out->cancels.swap(commands_.cancels);
  out->finish = commands_.finish;
  counters_.waiting += static_cast<int64_t>(out->arrivals.size());
}

void Inbox::report(const EngineStats& counters) {
  const std::lock_guard<std::mutex> lock(mutex_);
  counters_ = counters;
}

void Inbox::set_failed(const Error& error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!failure_.has_value()) failure_ = error;
  if (state_ != EngineState::kDisposed) state_ = EngineState::kFailed;
}

Error Inbox::failure() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_.has_value() ? *failure_ : Error(Code::kInternal, "the engine has not failed");
}

std::vector<uint64_t> Inbox::take_orphans() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint64_t> ids;
  ids.reserve(incoming_.size());
  for (const auto& [id, incoming] : incoming_) ids.push_back(id);
  incoming_.clear();
  by_size_.clear();
  return ids;
}

}  // namespace polylm
