// job.cc: work on a job thread, a gate and a deferred promise. The job owns itself through the
// gate's callbacks and lets go when the promise is settled or the environment has ended.
// Trap: what the steps hold may be JavaScript's, so a job dies on the JavaScript thread: the job
// thread is through with it, as after a join, when the latch is open.
#include "binding/job.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "binding/gate.h"
#include "binding/guard.h"
#include "platform/job_threads.h"

namespace polylm {
namespace {

class Latch {
 public:
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

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
      JobThreads::shared().run([raw = job.get(), ended = job->ended_] {
        raw->run();
        ended->open();
      });
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
      error_ = caught_error();
    }
    done_.store(true);
    gate_->wake();
  }

  void on_wake(Napi::Env env) {
    const bool done = done_.load();  // before progress, which then sees everything
    if (steps_.progress) steps_.progress(env);
    if (!done || settled_) return;
    settled_ = true;
    ended_->wait();
    gate_->close();
    gate_.reset();  // the gate keeps this job; the job must not keep the gate
    settle(env);
  }

  // Whatever happens: a promise that is never settled is a caller that waits for ever.
  void settle(Napi::Env env) {
    try {
      if (error_.has_value()) {
        deferred_.Reject(to_js_error(env, *error_).Value());
      } else {
        deferred_.Resolve(steps_.result ? steps_.result(env) : env.Undefined());
      }
    } catch (const Napi::Error& e) {
      deferred_.Reject(e.Value());
    } catch (...) {
      reject_with(env, caught_error().code());
    }
  }

  // With nothing but strings that exist already.
  void reject_with(napi_env env, Code code) {
    napi_value name = nullptr;
    napi_value message = nullptr;
    napi_value error = nullptr;
    napi_create_string_utf8(env, code_name(code), NAPI_AUTO_LENGTH, &name);
    napi_create_string_utf8(env, code_sentence(code), NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, name, message, &error);
    deferred_.Reject(error);
  }

  void on_exit() {
    if (steps_.stop) steps_.stop();
    ended_->wait();
  }

  Napi::Promise::Deferred deferred_;
  std::shared_ptr<Gate> gate_;
  JobSteps steps_;
  const std::shared_ptr<Latch> ended_ = std::make_shared<Latch>();
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
