// memory_info.h: how much memory this process may use, as the machine and its cgroups allow.
#pragma once

#include <cstdint>

namespace polylm {

struct MemoryInfo {
  int64_t total_bytes = 0;  // the machine's, or the tightest cgroup limit above this process
  int64_t free_bytes = 0;   // what can still be allocated under the same limits
};

// Zeros where the system does not say.
MemoryInfo memory_info();

}  // namespace polylm
