// cpu_features.h: what this processor can do and what it is called. Not here: which kernels use it
// (cpu/dispatch.cc). Trap: a bit counts only if the operating system saves the registers too.
#pragma once

#include <cstdint>
#include <string>

namespace polylm {

struct CpuFeatures {
  bool clmul = false;       // PCLMULQDQ
  bool avx2 = false;        // with FMA
  bool avx512 = false;      // F, BW, VL and DQ, with FMA
  bool avx512_bf16 = false;  // avx512 and vdpbf16ps
  bool neon = false;        // 64-bit ARM
  bool neon_bf16 = false;   // neon and BFDOT
  bool amx_bf16 = false;    // the processor has it and the system let this process use it
};

const CpuFeatures& cpu_features();

// "Intel(R) Xeon(R) Processor"; "unknown processor" where nobody says.
std::string cpu_name();

// Cores that this process may keep busy: distinct physical cores of its affinity mask, at most its
// cgroup's CPU quota rounded up, at least 1.
int64_t usable_cores();

}  // namespace polylm
