// job.cc: a thread, a gate and a deferred promise. The job owns itself through the gate's callbacks
// and lets go when the promise is settled or the environment has ended.
#include "binding/job.h"

#include <atomic>
#include <optional>
#include <thread>
#include <utility>

#include "binding/gate.h"
#include "binding/guard.h"

namespace polylm {
namespace {

class Job {
 public:
  explicit Job(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}

  static Napi::Value start(Napi::Env env, const char* name,
                           const std::function<JobSteps(Notify)>& make) {
    const auto job = std::make_shared<Job>(env);
    job->gate_ = Gate::open(
        env, name, [job](Napi::Env e) { job->on_wake(e); }, [job] { job->on_exit(); });
    const std::weak_ptr<Gate> gate = job->gate_;
    try {
      job->steps_ = make([gate] {
        if (const auto open = gate.lock()) open->wake();
      });
      job->thread_ = std::thread([raw = job.get()] { raw->run(); });
    } catch (...) {
      job->gate_->close();
      job->gate_.reset();
      throw;
    }
    job->gate_->hold(true);
    return job->deferred_.Promise();
  }

 private:
  void run() noexcept {
    try {
      steps_.work();
    } catch (...) {
      error_ = current_error();
    }
    done_.store(true);
    gate_->wake();
  }

  void on_wake(Napi::Env env) {
    const bool done = done_.load();  // before progress, which then sees everything
    if (steps_.progress) steps_.progress(env);
    if (!done || settled_) return;
    settled_ = true;
    thread_.join();
    gate_->close();
    gate_.reset();  // the gate keeps this job; the job must not keep the gate
    settle(env);
  }

  void settle(Napi::Env env) {
    if (error_.has_value()) {
      deferred_.Reject(to_js_error(env, *error_).Value());
      return;
    }
    Napi::Value value = env.Undefined();
    try {
      if (steps_.result) value = steps_.result(env);
    } catch (const Napi::Error& e) {
      deferred_.Reject(e.Value());
      return;
    } catch (...) {
      deferred_.Reject(to_js_error(env, current_error()).Value());
      return;
    }
    deferred_.Resolve(value);
  }

  void on_exit() {
    if (steps_.stop) steps_.stop();
    if (thread_.joinable()) thread_.join();
  }

  Napi::Promise::Deferred deferred_;
  std::shared_ptr<Gate> gate_;
  JobSteps steps_;
  std::thread thread_;
  std::atomic<bool> done_{false};
  std::optional<Error> error_;
  bool settled_ = false;
};

}  // namespace

Napi::Value start_job(Napi::Env env, const char* name,
                      const std::function<JobSteps(Notify)>& make) {
  return Job::start(env, name, make);
}

}  // namespace polylm
