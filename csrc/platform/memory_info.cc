// memory_info.cc: one question to the system on macOS and Windows; on Linux the smallest of what
// /proc/meminfo, the cgroups (linux_cgroups.cc) and the limits of this process leave.
#include "platform/memory_info.h"

#include <algorithm>

#include "platform/linux_memory.h"

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

namespace polylm {

MemoryInfo memory_info(const std::string& root) {
  MemoryInfo info;
#if defined(__APPLE__)
  static_cast<void>(root);
  int64_t size = 0;
  size_t length = sizeof size;
  if (sysctlbyname("hw.memsize", &size, &length, nullptr, 0) == 0) info = {size, size};
#elif defined(_WIN32)
  static_cast<void>(root);
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status) != 0) {
    info = {static_cast<int64_t>(status.ullTotalPhys), static_cast<int64_t>(status.ullAvailPhys)};
  }
#else
  info = machine_memory(root);
  apply_cgroups(root, &info);
  apply_process_limits(root, &info);
#endif
  return info;
}

}  // namespace polylm
