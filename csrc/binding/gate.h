// gate.h: the only object that may wake JavaScript from another thread: a thread-safe function
// behind a mutex. Payload-free: a wake-up says "look", what there is to see lies elsewhere. Not
// here: jobs and engines, which own a gate each.
// Trap: calling a thread-safe function while its environment dies is a race inside Node (issue
// 55706), so the environment's cleanup hook closes the gate first; afterwards wake() does nothing.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

namespace polylm {

class Gate : public std::enable_shared_from_this<Gate> {
 public:
  // JavaScript thread. `on_wake` runs there, inside a handle scope, once or more per wake(); what
  // it throws is dropped. `on_exit` runs when the environment ends before close(): it must stop and
  // join whoever calls wake().
  static std::shared_ptr<Gate> open(Napi::Env env, const char* name,
                                    std::function<void(Napi::Env)> on_wake,
                                    std::function<void()> on_exit);
  ~Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Any thread, never blocks for long. Wake-ups that come before on_wake ran are one.
  void wake();
  // How often the event loop was woken.
  int64_t wakes() const { return wakes_.load(); }
  // JavaScript thread. Idempotent; on_wake and on_exit are dropped and never run again.
  void close();
  // JavaScript thread. Held: the process stays alive for this gate. Opens unheld.
  void hold(bool held);

 private:
  Gate() = default;
  static void call_js(napi_env env, napi_value callback, void* context, void* data);
  static void at_exit(void* gate);

  napi_env env_ = nullptr;
  std::mutex mutex_;  // guards open_ and every call of function_ from other threads
  bool open_ = false;
  napi_threadsafe_function function_ = nullptr;
  std::atomic<bool> told_{false};
  std::atomic<int64_t> wakes_{0};
  std::function<void(Napi::Env)> on_wake_;
  std::function<void()> on_exit_;
};

}  // namespace polylm
