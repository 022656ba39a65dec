// linux_cgroups.cc: see linux_cgroups.h. Where a hierarchy is mounted, and which part of it, is in
// /proc/self/mountinfo: a container without a cgroup namespace sees its own group mounted as the
// root while /proc/self/cgroup still names the path on the host.
#include "platform/linux_cgroups.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace polylm {
namespace {

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
Mount find_mount(const std::string& root, const std::string& controller, bool v2) {
  std::ifstream in(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash));
    std::istringstream right(line.substr(dash + 3));
    std::string skip, mount_root, point, type, source, options;
    left >> skip >> skip >> skip >> mount_root >> point;
    right >> type >> source >> options;
    if (v2 ? type != "cgroup2" : type != "cgroup" || !has_word(options, controller)) continue;
    return {unescaped(mount_root), unescaped(point)};
  }
  return {"/", v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller};
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

// CPUs that one group may keep busy, 0 for no limit.
double cpus_of(const Cgroup& group) {
  std::ifstream v2(group.path + "/cpu.max");
  std::string quota, period;
  if (!(v2 >> quota >> period)) {
    std::ifstream(group.path + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(group.path + "/cpu.cfs_period_us") >> period;
  }
  // "max" and -1 are no limit, and neither is what cannot be read.
  const double part = std::strtod(quota.c_str(), nullptr);
  const double whole = std::strtod(period.c_str(), nullptr);
  return part > 0.0 && whole > 0.0 ? part / whole : 0.0;
}

}  // namespace

std::vector<Cgroup> cgroups_of(const std::string& root, const std::string& controller) {
  std::vector<Cgroup> groups;
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !has_word(controllers, controller)) continue;
    const Mount mount = find_mount(root, controller, v2);
    std::string path = below(mount, line.substr(second + 1));
    for (bool own = true;; own = false) {
      groups.push_back({root + mount.point + path, v2, own});
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) break;
      path.resize(slash);
    }
  }
  return groups;
}

double cgroup_cpus(const std::string& root) {
  double tightest = 0.0;
  for (const Cgroup& group : cgroups_of(root, "cpu")) {
    const double cpus = cpus_of(group);
    if (cpus > 0.0) tightest = tightest > 0.0 ? std::min(tightest, cpus) : cpus;
  }
  return tightest;
}

}  // namespace polylm
