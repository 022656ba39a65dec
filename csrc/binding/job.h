// job.h: one piece of work on a thread of its own, seen from JavaScript as a promise. The work runs
// without JavaScript; its outcome is turned into a value on the JavaScript thread. Keeps the
// process alive until it ends. Not here: what is worked on.
// Trap: the environment may end first; then the work is told to stop, joined, and never settled.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

namespace polylm {

struct JobSteps {
  // Runs on the job's thread. What it throws rejects the promise.
  std::function<void()> work;
  // JavaScript thread, after work: the value of the promise. May be empty: undefined.
  std::function<Napi::Value(Napi::Env)> result;
  // JavaScript thread, when the environment ends early: makes work return soon. May be empty.
  std::function<void()> stop;
  // JavaScript thread, after notify() and once before the end. May be empty.
  std::function<void(Napi::Env)> progress;
};

// Lets the work wake `progress`; any thread, also after the job has ended.
using Notify = std::function<void()>;

// Starts the job. The steps are made by `make`, which gets the job's notify.
Napi::Value start_job(Napi::Env env, const char* name,
                      const std::function<JobSteps(Notify)>& make);

}  // namespace polylm
