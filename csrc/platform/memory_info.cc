// memory_info.cc: /proc/meminfo, then every cgroup (v2 and v1) from this process's up to the root;
// one question to the system on macOS and Windows.
#include "platform/memory_info.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

namespace polylm {

#if !defined(__APPLE__) && !defined(_WIN32)
namespace {

// A number in a file of one word; -1 when there is none ("max", no such file).
int64_t number_in(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word) || word.empty() || word[0] < '0' || word[0] > '9') return -1;
  return std::strtoll(word.c_str(), nullptr, 10);
}

void apply_limit(int64_t limit_bytes, int64_t used_bytes, MemoryInfo* info) {
  if (limit_bytes <= 0 || limit_bytes >= info->total_bytes) return;  // v1 says "none" as 2^63
  info->total_bytes = limit_bytes;
  if (used_bytes >= 0) {
    info->free_bytes = std::min(info->free_bytes, std::max<int64_t>(limit_bytes - used_bytes, 0));
  }
}

void apply_cgroups(MemoryInfo* info) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(second + 1);
    for (;;) {
      const std::string at = root + path;
      if (v2) {
        apply_limit(number_in(at + "/memory.max"), number_in(at + "/memory.current"), info);
      } else {
        apply_limit(number_in(at + "/memory.limit_in_bytes"),
                    number_in(at + "/memory.usage_in_bytes"), info);
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
}

}  // namespace
#endif

MemoryInfo memory_info() {
  MemoryInfo info;
#if defined(__APPLE__)
  int64_t size = 0;
  size_t length = sizeof size;
  if (sysctlbyname("hw.memsize", &size, &length, nullptr, 0) == 0) info = {size, size};
#elif defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status) != 0) {
    info = {static_cast<int64_t>(status.ullTotalPhys), static_cast<int64_t>(status.ullAvailPhys)};
  }
#else
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string key;
    int64_t kilobytes = 0;
    if (!(words >> key >> kilobytes)) continue;
    if (key == "MemTotal:") info.total_bytes = kilobytes * 1024;
    if (key == "MemAvailable:") info.free_bytes = kilobytes * 1024;
  }
  apply_cgroups(&info);
#endif
  return info;
}

}  // namespace polylm
