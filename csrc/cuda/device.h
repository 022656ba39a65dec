// device.h: which cards there are and why one cannot be used. No CUDA header, so that backends.cc
// can ask. Everything works on machines without any NVIDIA library: the answer is then a reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ops/ops.h"

namespace polylm {

struct CudaDevice {
  std::string name;
  std::string isa;     // "sm_90"
  std::string reason;  // why it cannot be used, "" when it can
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
  int64_t processors = 0;
  bool overlaps = false;  // the code in use knows how to begin before the kernel before it ends
};

// Number of cards that CUDA shows; 0 and a reason when it shows none.
int64_t cuda_device_count(std::string* reason);
CudaDevice cuda_device(int64_t index);

struct CudaOptions {
  Precision precision = Precision::kBf16;
  int64_t device = 0;
};
// Throws DEVICE with the reason when the card cannot be used.
std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& options);

}  // namespace polylm
