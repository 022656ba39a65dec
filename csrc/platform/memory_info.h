// memory_info.h: how much memory this process may use: what the machine, every cgroup above the
// process and the process's own limits allow. Page cache and other memory that the kernel gives
// back on demand counts as free, as in MemAvailable. Not here: memory of a GPU.
#pragma once

#include <cstdint>
#include <string>

namespace polylm {

struct MemoryInfo {
  int64_t total_bytes = 0;  // the machine's, or the tightest cgroup limit above this process
  int64_t free_bytes = 0;   // what can still be allocated under all limits
};

// Zeros where the system does not say. Linux reads /proc and the cgroup file systems under `root`;
// tests give a folder with files of their own, others an empty string.
MemoryInfo memory_info(const std::string& root = "");

}  // namespace polylm
