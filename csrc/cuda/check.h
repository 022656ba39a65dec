// check.h: what a CUDA error means for us, and memory that is given back. Every call into CUDA goes
// through check or note. Not here: device code.
// Trap: a sticky error (an illegal access, say) breaks CUDA for the whole process, not for one
// model: it is remembered here, and every CUDA model fails with it from then on.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "platform/error.h"

namespace polylm {

// Throws DEVICE, or INSUFFICIENT_MEMORY for want of memory, unless `e` is success. `doing`
// completes "CUDA failed while ...".
void check_cuda(cudaError_t e, const char* doing);
// Throws DEVICE when a sticky error has made CUDA unusable in this process.
void check_cuda_usable();

// Plain device memory, zeroed. Throws INSUFFICIENT_MEMORY naming bytes, purpose and what is free.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(int64_t size_bytes, const char* purpose);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

// Page-locked host memory, so that copies to and from the card need no detour.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(int64_t size_bytes, const char* purpose);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
};

}  // namespace polylm
