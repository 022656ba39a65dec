// cpu_features.cc: CPUID through the compiler's support library; names and topology from Linux.
#include "platform/cpu_features.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "platform/linux_cgroups.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define POLYLM_CPUID 1
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace polylm {
namespace {

#if defined(POLYLM_CPUID)
// Linux gives a process the 8 KB tile registers only when it asks for them, once, for all threads
// (arch_prctl ARCH_REQ_XCOMP_PERM, component 18: tile data).
bool permit_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(__aarch64__)
bool has_bfdot() {
#if defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#elif defined(__APPLE__)
  int32_t has = 0;
  size_t size_bytes = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size_bytes, nullptr, 0) == 0 && has == 1;
#else
  return false;
#endif
}
#endif

CpuFeatures detect() {
  CpuFeatures f;
#if defined(POLYLM_CPUID)
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0;
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16") != 0;
  unsigned a = 0, b = 0, c = 0, d = 0;
  f.clmul = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_PCLMUL) != 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
    f.amx_bf16 = f.avx512_bf16 && (d & kAmxBf16) != 0 && (d & kAmxTile) != 0 && permit_tiles();
  }
#endif
#if defined(__aarch64__)
  f.neon = true;
  f.neon_bf16 = has_bfdot();
#endif
  return f;
}

#if defined(__linux__)

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

int64_t allowed_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  std::set<std::pair<std::string, std::string>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string at = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    std::string core = first_line(at + "core_id");
    if (core.empty()) core = "cpu" + std::to_string(cpu);
    cores.emplace(first_line(at + "physical_package_id"), core);
  }
  return static_cast<int64_t>(cores.size());
}

#endif

int64_t count_cores() {
  int64_t cores = 0;
#if defined(__linux__)
  cores = allowed_cores();
  const double quota = cgroup_cpus("");
  if (quota > 0.0 && quota < static_cast<double>(cores)) {
    cores = static_cast<int64_t>(quota + 0.999);
  }
#endif
  if (cores <= 0) cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::max<int64_t>(cores, 1);
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string cpu_name() {
#if defined(POLYLM_CPUID)
  unsigned text[12] = {};
  bool known = true;
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* t = text + i * 4;
    known = known && __get_cpuid(0x80000002u + i, t, t + 1, t + 2, t + 3) != 0;
  }
  if (known) {
    const std::string raw(reinterpret_cast<const char*>(text), sizeof text);
    std::istringstream words(raw.substr(0, raw.find('\0')));
    std::string name, word;
    while (words >> word) name += (name.empty() ? "" : " ") + word;
    if (!name.empty()) return name;
  }
#endif
  return "unknown processor";
}

int64_t usable_cores() {
  static const int64_t cores = count_cores();
  return cores;
}

}  // namespace polylm
