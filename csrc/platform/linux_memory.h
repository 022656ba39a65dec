// linux_memory.h: the three things that bound a Linux process's memory, as text files say it.
// Internal to memory_info.cc; every function reads below `root` ("" is the real system).
// Trap: `free` of a group may be smaller above than below, because siblings use the parent's share:
// all levels count, not only the one with the smallest limit.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "platform/memory_info.h"

namespace polylm {

// "name value [unit]" lines of a file: "MemFree:  12 kB" is {"MemFree", 12}. Empty without a file.
std::map<std::string, int64_t> named_numbers(const std::string& path);

// MemTotal and MemAvailable, with an estimate where the kernel (before 3.14) has no MemAvailable;
// under strict overcommit at most what may still be committed.
MemoryInfo machine_memory(const std::string& root);

// Lowers `info` to what the memory cgroups from this process's up to the root leave, v1 and v2.
void apply_cgroups(const std::string& root, MemoryInfo* info);

// Lowers info->free_bytes to what RLIMIT_AS and RLIMIT_DATA leave.
void apply_process_limits(const std::string& root, MemoryInfo* info);

}  // namespace polylm
