// run_on_threads.h: one function on several short-lived threads at once, for loading. Not for
// steps: those use the thread pool.
// Trap: a std::thread that is destroyed while it runs, and an exception that leaves one, end the
// process; both can follow from one allocation that fails.
#pragma once

#include <cstdint>
#include <functional>

namespace polylm {

// Calls work() on up to `threads` threads, the caller's included, on fewer where the system starts
// no more, and returns when all have ended. Throws the first of what they threw.
void run_on_threads(int64_t threads, const std::function<void()>& work);

}  // namespace polylm
