// verdict.h: whether a card can be used, from what the driver and the card say of themselves; the
// sentence that `polylm doctor` and model.info show when it cannot. Pure, without CUDA, so that
// each case is tested on any machine. Not here: asking (device.cu), choosing (backends.cc).
#pragma once

#include <cstdint>
#include <string>

namespace polylm {

struct CudaFacts {
  int driver = 0;   // as CUDA counts: 12040 is 12.4; 0: there is no driver
  int runtime = 0;  // that this build brings along
  int count = 0;    // of cards that CUDA shows
  int64_t index = 0;        // of the one that is asked for
  int major = 0;            // its compute capability
  int minor = 0;
  bool has_kernels = true;  // whether this build has code that it can run
  std::string failure{};    // what CUDA says if it cannot be started, "" if it can
};

inline std::string cuda_version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why CUDA, as a whole, cannot be used; "" when there are cards to look at.
inline std::string cuda_obstacle(const CudaFacts& f) {
  if (f.driver == 0) {
    return "there is no NVIDIA driver on this machine: install one if it has an NVIDIA GPU";
  }
  if (f.driver / 1000 < f.runtime / 1000) {  // later minor versions run on any of their major one
    return "the NVIDIA driver supports CUDA " + cuda_version_text(f.driver) +
           ", this build needs " + cuda_version_text(f.runtime / 1000 * 1000) +
           ": install a newer driver";
  }
  if (!f.failure.empty()) return "CUDA cannot be started: " + f.failure;
  if (f.count == 0) {
    return "there is no NVIDIA GPU, or it is hidden from this process (CUDA_VISIBLE_DEVICES)";
  }
  return "";
}

// Why this card cannot be used, "" when it can.
inline std::string card_obstacle(const CudaFacts& f) {
  const std::string all = cuda_obstacle(f);
  if (!all.empty()) return all;
  if (f.index >= f.count) {
    return "there is no device " + std::to_string(f.index) + ": this machine has " +
           std::to_string(f.count);
  }
  if (f.major < 8) {
    return "its compute capability " + std::to_string(f.major) + "." + std::to_string(f.minor) +
           " is below 8.0: it has no bf16 tensor cores";
  }
  if (!f.has_kernels) {
    return "this build has no kernels for sm_" + std::to_string(f.major) +
           std::to_string(f.minor) + ": build with POLYLM_CUDA_ARCHS=release or with this "
           "architecture";
  }
  return "";
}

}  // namespace polylm
