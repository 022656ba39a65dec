// gate.cc: the life of a thread-safe function: open, wake, close, or closed by the cleanup hook.
#include "binding/gate.h"

#include <utility>

#include "platform/error.h"

namespace polylm {

std::shared_ptr<Gate> Gate::open(Napi::Env env, const char* name,
                                 std::function<void(Napi::Env)> on_wake,
                                 std::function<void()> on_exit) {
  const std::shared_ptr<Gate> gate(new Gate);
  gate->env_ = env;
  gate->on_wake_ = std::move(on_wake);
  gate->on_exit_ = std::move(on_exit);
  // The function's own reference: given back by its finalizer, the last thing Node calls for it.
  auto owner = std::make_unique<std::shared_ptr<Gate>>(gate);
  const auto finalize = [](napi_env, void* data, void*) {
    delete static_cast<std::shared_ptr<Gate>*>(data);
  };
  const Napi::String resource = Napi::String::New(env, name);
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, resource, 0, 1, owner.get(), finalize, gate.get(), call_js,
      &gate->function_);
  if (status != napi_ok) fail(Code::kInternal, "Node refused a thread-safe function");
  static_cast<void>(owner.release());
  gate->open_ = true;
  napi_unref_threadsafe_function(env, gate->function_);
  // Registered after the function, whose own hook therefore runs after this one.
  napi_add_env_cleanup_hook(env, at_exit, gate.get());
  return gate;
}

void Gate::wake() {
  if (told_.exchange(true)) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!open_) return;
  ++wakes_;
  napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Gate::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!open_) return;
    open_ = false;
  }
  const std::shared_ptr<Gate> self = shared_from_this();
  napi_remove_env_cleanup_hook(env_, at_exit, this);
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
  on_exit_ = nullptr;
  // on_wake_ stays: close() may have been called from inside it. It goes with the gate.
}

void Gate::hold(bool held) {
  if (!open_) return;
  if (held) {
    napi_ref_threadsafe_function(env_, function_);
  } else {
    napi_unref_threadsafe_function(env_, function_);
  }
}

void Gate::call_js(napi_env env, napi_value, void* context, void*) {
  auto* gate = static_cast<Gate*>(context);
  if (env == nullptr || !gate->open_) return;
  const std::shared_ptr<Gate> self = gate->shared_from_this();
  gate->told_.store(false);
  // A terminating worker makes every call into JavaScript throw; nothing may leave a callback of
  // Node.
  try {
    const Napi::HandleScope scope(env);
    gate->on_wake_(env);
  } catch (...) {
    return;
  }
}

void Gate::at_exit(void* data) {
  auto* gate = static_cast<Gate*>(data);
  const std::shared_ptr<Gate> self = gate->shared_from_this();
  {
    const std::lock_guard<std::mutex> lock(gate->mutex_);
    if (!gate->open_) return;
    gate->open_ = false;
  }
  napi_release_threadsafe_function(gate->function_, napi_tsfn_abort);
  const std::function<void()> on_exit = std::move(gate->on_exit_);
  if (on_exit) on_exit();
  gate->on_wake_ = nullptr;
}

}  // namespace polylm
