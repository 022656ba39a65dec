// device.cu: see device.h.
#include "cuda/device.h"

#include <cuda_runtime.h>

#include <string>

#include "cuda/verdict.h"

namespace polylm {
namespace {

// Built for every architecture that the other kernels are built for: asks whether there is code.
__global__ void presence_kernel() {}

// What holds for every card. Forgets the error of asking.
CudaFacts facts() {
  CudaFacts f;
  cudaDriverGetVersion(&f.driver);
  cudaRuntimeGetVersion(&f.runtime);
  const cudaError_t e = cudaGetDeviceCount(&f.count);
  if (e != cudaSuccess) f.count = 0;
  const bool explained = e == cudaSuccess || e == cudaErrorNoDevice;
  if (!explained) f.failure = cudaGetErrorString(e);
  cudaGetLastError();
  return f;
}

}  // namespace

int64_t cuda_device_count(std::string* reason) {
  const CudaFacts f = facts();
  *reason = cuda_obstacle(f);
  return reason->empty() ? f.count : 0;
}

CudaDevice cuda_device(int64_t index) {
  CudaDevice d;
  CudaFacts f = facts();
  f.index = index;
  f.major = 8;  // until it is known
  d.reason = card_obstacle(f);
  if (!d.reason.empty()) return d;
  cudaDeviceProp p{};
  cudaError_t e = cudaGetDeviceProperties(&p, static_cast<int>(index));
  if (e == cudaSuccess) {
    d.name = p.name;
    d.isa = "sm_" + std::to_string(p.major) + std::to_string(p.minor);
    d.memory_bytes = static_cast<int64_t>(p.totalGlobalMem);
    d.processors = p.multiProcessorCount;
    f.major = p.major;
    f.minor = p.minor;
    d.reason = card_obstacle(f);
    if (!d.reason.empty()) return d;
    e = cudaSetDevice(static_cast<int>(index));
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (e == cudaSuccess) e = cudaMemGetInfo(&free_bytes, &total_bytes);
  d.free_bytes = static_cast<int64_t>(free_bytes);
  cudaFuncAttributes attributes{};
  if (e == cudaSuccess) e = cudaFuncGetAttributes(&attributes, presence_kernel);
  f.has_kernels = e != cudaErrorNoKernelImageForDevice;
  if (e != cudaSuccess && f.has_kernels) f.failure = cudaGetErrorString(e);
  d.reason = card_obstacle(f);
  // Code for sm_80 that the driver translated for a newer card has no instruction to wait with.
  d.overlaps = e == cudaSuccess && attributes.ptxVersion >= 90;
  cudaGetLastError();
  return d;
}

}  // namespace polylm
