// main_stack.cc: see main_stack.h.
#include "platform/main_stack.h"

#if defined(__linux__)
#include <alloca.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <fstream>

namespace polylm {
namespace {

constexpr size_t kStackBytes = size_t{1} << 20;  // Node's default: 984 kB

bool on_first_thread() { return syscall(SYS_gettid) == getpid(); }

// Growing beyond a limit is itself the SIGSEGV that is to be avoided.
bool room_for_stack() {
  rlimit stack{};
  rlimit space{};
  if (getrlimit(RLIMIT_STACK, &stack) != 0 || getrlimit(RLIMIT_AS, &space) != 0) return false;
  if (stack.rlim_cur != RLIM_INFINITY && stack.rlim_cur < 4 * kStackBytes) return false;
  if (space.rlim_cur == RLIM_INFINITY) return true;
  uint64_t pages = 0;
  if (!(std::ifstream("/proc/self/statm") >> pages)) return false;
  const uint64_t used = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return used + 2 * kStackBytes <= space.rlim_cur;
}

}  // namespace

void grow_main_stack() {
  if (!on_first_thread() || !room_for_stack()) return;
  constexpr size_t kPage = 4096;
  auto* bottom = static_cast<volatile char*>(alloca(kStackBytes));
  for (size_t at = kStackBytes; at >= kPage; at -= kPage) bottom[at - kPage] = 0;  // downwards
}

}  // namespace polylm

#else

namespace polylm {

void grow_main_stack() {}

}  // namespace polylm

#endif
