// linux_cgroups.h: the control groups that this process is in, and how many CPUs they leave. Reads
// below `root` ("" is the real system). What they leave of memory: linux_memory.cc.
#pragma once

#include <string>
#include <vector>

namespace polylm {

struct Cgroup {
  std::string path;  // its directory
  bool v2 = false;
  bool own = false;  // the process is in it, not in a group below
};
// For each hierarchy that has `controller` ("memory", "cpu"): the process's own group, then those
// above it as far as they can be seen.
std::vector<Cgroup> cgroups_of(const std::string& root, const std::string& controller);

// The tightest CPU quota of all these groups in CPUs, 0 for none.
double cgroup_cpus(const std::string& root);

}  // namespace polylm
