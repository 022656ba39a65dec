// linux_memory.cc: /proc/meminfo, /proc/self/limits and /proc/self/status. See linux_memory.h.
#include "platform/linux_memory.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

namespace polylm {
namespace {

constexpr int64_t kKilobyte = 1024;

// A line of /proc/self/limits, and the line of /proc/self/status that counts against it.
const std::pair<std::string, std::string> kLimits[] = {{"Max address space", "VmSize"},
                                                       {"Max data size", "VmData"}};

void limit_free(int64_t free_bytes, MemoryInfo* info) {
  info->free_bytes = std::min(info->free_bytes, std::max<int64_t>(free_bytes, 0));
}

}  // namespace

std::map<std::string, int64_t> named_numbers(const std::string& path) {
  std::map<std::string, int64_t> found;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (!(words >> name >> value)) continue;
    if (name.back() == ':') name.pop_back();
    found[name] = value;
  }
  return found;
}

MemoryInfo machine_memory(const std::string& root) {
  std::map<std::string, int64_t> says = named_numbers(root + "/proc/meminfo");
  MemoryInfo info;
  info.total_bytes = says["MemTotal"] * kKilobyte;
  const int64_t available = says.count("MemAvailable") != 0
                                ? says["MemAvailable"]
                                : says["MemFree"] + says["Active(file)"] +
                                      says["Inactive(file)"] + says["SReclaimable"];
  info.free_bytes = std::min(available * kKilobyte, info.total_bytes);
  std::ifstream overcommit(root + "/proc/sys/vm/overcommit_memory");
  constexpr int kNever = 2;
  int mode = 0;
  if (overcommit >> mode && mode == kNever && says.count("CommitLimit") != 0) {
    limit_free((says["CommitLimit"] - says["Committed_AS"]) * kKilobyte, &info);
  }
  return info;
}

// "Max address space   1073741824   unlimited   bytes": the first number is the limit in force.
void apply_process_limits(const std::string& root, MemoryInfo* info) {
  std::map<std::string, int64_t> uses;
  std::ifstream in(root + "/proc/self/limits");
  for (std::string line; std::getline(in, line);) {
    for (const auto& [name, use] : kLimits) {
      if (line.rfind(name, 0) != 0) continue;
      std::istringstream words(line.substr(name.size()));
      int64_t limit = 0;
      if (!(words >> limit)) continue;  // unlimited
      if (uses.empty()) uses = named_numbers(root + "/proc/self/status");
      if (uses.count(use) != 0) limit_free(limit - uses[use] * kKilobyte, info);
    }
  }
}

}  // namespace polylm
