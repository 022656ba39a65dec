// run_on_threads.cc: see run_on_threads.h.
#include "platform/run_on_threads.h"

#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace polylm {

void run_on_threads(int64_t threads, const std::function<void()>& work) {
  std::mutex mutex;
  std::exception_ptr error;
  const auto guarded = [&]() noexcept {
    try {
      work();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    if (threads > 1) others.reserve(static_cast<size_t>(threads) - 1);
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(guarded);
  } catch (const std::system_error&) {  // fewer threads then
  } catch (const std::bad_alloc&) {
  }
  guarded();
  for (std::thread& other : others) other.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace polylm
