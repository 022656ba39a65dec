// linux_cgroups.cc: what the memory cgroups leave. Where a hierarchy is mounted, and which part of
// it, is in /proc/self/mountinfo: a container without a cgroup namespace sees its own group mounted
// as the root while /proc/self/cgroup still names the path on the host. See linux_memory.h.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "platform/linux_memory.h"

namespace polylm {
namespace {

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

// One mounted hierarchy: `root` of it is visible at `point`.
struct Mount {
  std::string root;
  std::string point;
};

// Mountinfo writes a space as \040.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out.push_back(static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8)));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// "36 35 98:0 /root /point options - type source options"
Mount find_mount(const std::string& root, bool v2) {
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash));
    std::istringstream right(line.substr(dash + 3));
    std::string skip, mount_root, point, type, source, options;
    left >> skip >> skip >> skip >> mount_root >> point;
    right >> type >> source >> options;
    if (v2 ? type != "cgroup2" : type != "cgroup" || !has_word(options, "memory")) continue;
    return {unescaped(mount_root), unescaped(point)};
  }
  return {"/", v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory"};
}

// The group's path below the mount's own root; "" where it lies outside: then the root of what is
// visible is the nearest group that is known.
std::string below(const Mount& mount, std::string path) {
  if (path.rfind("/..", 0) == 0) return "";
  if (mount.root != "/") {
    const bool inside = path.rfind(mount.root, 0) == 0 &&
                        (path.size() == mount.root.size() || path[mount.root.size()] == '/');
    path = inside ? path.substr(mount.root.size()) : "";
  }
  while (!path.empty() && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

void apply_cgroups(const std::string& root, MemoryInfo* info) {
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !has_word(controllers, "memory")) continue;
    const Mount mount = find_mount(root, v2);
    std::string path = below(mount, line.substr(second + 1));
    for (bool own = true;; own = false) {
      const std::string group = root + mount.point + path;
      if (v2) {
        apply_v2(group, info);
      } else {
        apply_v1(group, own, info);
      }
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
}

}  // namespace polylm
