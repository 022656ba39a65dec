// launch.h: starts a kernel. The one place that knows how; a failure to start is returned, never
// thrown, because a step must not throw before collect.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace polylm {

struct LaunchShape {
  dim3 grid;
  int threads = 0;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool may_overlap = false;  // may begin while the kernel before it still runs (see ptx.h)
};

inline dim3 grid_of(int64_t x, int64_t y = 1, int64_t z = 1) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

template <class Params>
cudaError_t launch(void (*kernel)(Params), const LaunchShape& shape, const Params& params) {
  if (shape.shared_bytes > size_t{48} << 10) {
    const cudaError_t e =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.shared_bytes));
    if (e != cudaSuccess) return e;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = shape.may_overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace polylm
