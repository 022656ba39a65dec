// linux_memory.cc: /proc/meminfo, the memory cgroups, /proc/self/limits and /proc/self/status. See
// linux_memory.h.
#include "platform/linux_memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

#include "platform/linux_cgroups.h"

namespace polylm {
namespace {

constexpr int64_t kKilobyte = 1024;

// A line of /proc/self/limits, and the line of /proc/self/status that counts against it.
const std::pair<std::string, std::string> kLimits[] = {{"Max address space", "VmSize"},
                                                       {"Max data size", "VmData"}};

void limit_free(int64_t free_bytes, MemoryInfo* info) {
  info->free_bytes = std::min(info->free_bytes, std::max<int64_t>(free_bytes, 0));
}

constexpr int64_t kNone = -1;

// A number in a file of one word; kNone when there is none ("max", no such file) or when it is so
// large that it means "no limit", as version 1 writes it.
int64_t number_in(const std::string& path) {
  std::ifstream in(path);
  std::string word;
  if (!(in >> word) || word[0] < '0' || word[0] > '9') return kNone;
  const int64_t value = std::strtoll(word.c_str(), nullptr, 10);
  constexpr int64_t kUnlimited = int64_t{1} << 60;
  return value < kUnlimited ? value : kNone;
}

int64_t tighter(int64_t a, int64_t b) {
  if (a == kNone || b == kNone) return std::max(a, b);
  return std::min(a, b);
}

// Lowers `info` to one group's limit and to what is left under it. `reclaimable` of the used bytes
// the kernel takes back when they are needed.
void apply_group(int64_t limit_bytes, int64_t used_bytes, int64_t reclaimable, MemoryInfo* info) {
  if (limit_bytes == kNone) return;
  info->total_bytes = std::min(info->total_bytes, limit_bytes);
  info->free_bytes = std::min(info->free_bytes, limit_bytes);
  if (used_bytes == kNone) return;
  const int64_t kept = used_bytes - std::clamp<int64_t>(reclaimable, 0, used_bytes);
  info->free_bytes = std::min(info->free_bytes, std::max<int64_t>(limit_bytes - kept, 0));
}

// Version 2. Beyond memory.high a group is slowed down until nothing moves: as good as a limit.
void apply_v2(const std::string& group, MemoryInfo* info) {
  std::map<std::string, int64_t> stat = named_numbers(group + "/memory.stat");
  const int64_t limit =
      tighter(number_in(group + "/memory.max"), number_in(group + "/memory.high"));
  apply_group(limit, number_in(group + "/memory.current"),
              stat["inactive_file"] + stat["active_file"] + stat["slab_reclaimable"], info);
}

// Version 1: the total_ fields include the groups below, as usage does where hierarchies are on.
void apply_v1(const std::string& group, bool own, MemoryInfo* info) {
  const bool hierarchical = number_in(group + "/memory.use_hierarchy") != 0;
  if (!own && !hierarchical) return;  // its limit does not bind the groups below
  std::map<std::string, int64_t> stat = named_numbers(group + "/memory.stat");
  const char* prefix = hierarchical && stat.count("total_inactive_file") != 0 ? "total_" : "";
  const int64_t reclaimable =
      stat[std::string(prefix) + "inactive_file"] + stat[std::string(prefix) + "active_file"];
  const int64_t used = number_in(group + "/memory.usage_in_bytes");
  int64_t limit = number_in(group + "/memory.limit_in_bytes");
  // The tightest limit above, also of groups that this mount does not show.
  const auto above = stat.find("hierarchical_memory_limit");
  if (own && above != stat.end() && above->second < int64_t{1} << 60) {
    limit = tighter(limit, above->second);
  }
  apply_group(limit, used, reclaimable, info);
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

void apply_cgroups(const std::string& root, MemoryInfo* info) {
  for (const Cgroup& group : cgroups_of(root, "memory")) {
    if (group.v2) {
      apply_v2(group.path, info);
    } else {
      apply_v1(group.path, group.own, info);
    }
  }
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
