// device.cu: see device.h.
#include "cuda/device.h"

#include <cuda_runtime.h>

#include <string>

namespace polylm {
namespace {

// Built for every architecture that the other kernels are built for: asks whether there is code.
__global__ void presence_kernel() {}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string reason_of(cudaError_t e) {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "there is no NVIDIA driver on this machine";
  if (e == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver supports CUDA " + version_text(driver) + ", this build needs " +
           version_text(runtime);
  }
  if (e == cudaErrorNoDevice) return "there is no NVIDIA GPU, or it is hidden from this process";
  return std::string("CUDA cannot be started: ") + cudaGetErrorString(e);
}

}  // namespace

int64_t cuda_device_count(std::string* reason) {
  int count = 0;
  const cudaError_t e = cudaGetDeviceCount(&count);
  if (e != cudaSuccess) {
    cudaGetLastError();
    *reason = reason_of(e);
    return 0;
  }
  if (count == 0) *reason = reason_of(cudaErrorNoDevice);
  return count;
}

CudaDevice cuda_device(int64_t index) {
  CudaDevice d;
  const int64_t count = cuda_device_count(&d.reason);
  if (count == 0) return d;
  if (index >= count) {
    d.reason = "there is no device " + std::to_string(index) + ": this machine has " +
               std::to_string(count);
    return d;
  }
  cudaDeviceProp p{};
  cudaError_t e = cudaGetDeviceProperties(&p, static_cast<int>(index));
  if (e == cudaSuccess) {
    d.name = p.name;
    d.isa = "sm_" + std::to_string(p.major) + std::to_string(p.minor);
    d.memory_bytes = static_cast<int64_t>(p.totalGlobalMem);
    d.processors = p.multiProcessorCount;
    if (p.major < 8) {
      d.reason = "its compute capability " + std::to_string(p.major) + "." +
                 std::to_string(p.minor) + " is below 8.0: it has no bf16 tensor cores";
      return d;
    }
    e = cudaSetDevice(static_cast<int>(index));
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (e == cudaSuccess) e = cudaMemGetInfo(&free_bytes, &total_bytes);
  d.free_bytes = static_cast<int64_t>(free_bytes);
  cudaFuncAttributes attributes{};
  if (e == cudaSuccess) e = cudaFuncGetAttributes(&attributes, presence_kernel);
  if (e == cudaErrorNoKernelImageForDevice) {
    d.reason = "this build has no kernels for " + d.isa;
  } else if (e != cudaSuccess) {
    d.reason = reason_of(e);
  }
  cudaGetLastError();
  return d;
}

}  // namespace polylm
