// check.cu: see check.h.
#include "cuda/check.h"

#include <mutex>
#include <string>
#include <utility>

namespace polylm {
namespace {

constexpr const char* kRestart = "restart the process: CUDA cannot recover from this error";

struct Broken {
  std::mutex mutex;
  std::string message;  // empty: CUDA is usable
};
Broken& broken() {
  static Broken b;
  return b;
}

bool is_sticky(cudaError_t e) {
  switch (e) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown: return true;
    default: break;
  }
  cudaGetLastError();  // forgets what is not sticky
  return e != cudaErrorMemoryAllocation && cudaDeviceSynchronize() == e;
}

[[noreturn]] void fail_for_memory(int64_t size_bytes, const char* purpose, bool pinned) {
  cudaGetLastError();
  std::string message = std::string("no memory for ") + purpose + ": " +
                        std::to_string(size_bytes) + " bytes";
  if (pinned) {
    fail(Code::kInsufficientMemory, message + " of page-locked host memory");
  }
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
    message += " wanted, " + std::to_string(free_bytes) + " of " + std::to_string(total_bytes) +
               " free on the card";
  }
  fail(Code::kInsufficientMemory, message, "lower contextSize or maxSequences, or free the card");
}

}  // namespace

void check_cuda_usable() {
  std::string message;
  {
    const std::lock_guard lock(broken().mutex);
    message = broken().message;
  }
  if (!message.empty()) fail(Code::kDevice, message, kRestart);
}

void check_cuda(cudaError_t e, const char* doing) {
  if (e == cudaSuccess) return;
  std::string message = std::string("CUDA failed while ") + doing + ": " + cudaGetErrorString(e) +
                        " (" + cudaGetErrorName(e) + ")";
  if (e == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(Code::kInsufficientMemory, message);
  }
  if (!is_sticky(e)) fail(Code::kDevice, message);
  {
    const std::lock_guard lock(broken().mutex);
    if (broken().message.empty()) broken().message = message;
  }
  fail(Code::kDevice, message, kRestart);
}

DeviceBuffer::DeviceBuffer(int64_t size_bytes, const char* purpose) {
  if (size_bytes == 0) return;
  check_cuda_usable();
  const cudaError_t e = cudaMalloc(&data_, static_cast<size_t>(size_bytes));
  if (e == cudaErrorMemoryAllocation) fail_for_memory(size_bytes, purpose, false);
  check_cuda(e, "allocating memory");
  size_bytes_ = size_bytes;
  cudaError_t zeroed = cudaMemset(data_, 0, static_cast<size_t>(size_bytes));
  // Our streams do not wait for the default one, so the host does.
  if (zeroed == cudaSuccess) zeroed = cudaStreamSynchronize(nullptr);
  if (zeroed == cudaSuccess) return;
  cudaFree(data_);
  check_cuda(zeroed, "clearing memory");
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

PinnedBuffer::PinnedBuffer(int64_t size_bytes, const char* purpose) {
  if (size_bytes == 0) return;
  check_cuda_usable();
  const cudaError_t e =
      cudaHostAlloc(&data_, static_cast<size_t>(size_bytes), cudaHostAllocDefault);
  if (e == cudaErrorMemoryAllocation) fail_for_memory(size_bytes, purpose, true);
  check_cuda(e, "allocating page-locked memory");
  size_bytes_ = size_bytes;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

}  // namespace polylm
