// cuda_runtime.h: a CUDA that runs on the CPU, so that the kernels and the host code of csrc/cuda
// are executed by tests on machines without a GPU: the same source, another runtime. Threads of a
// block are fibers (emulator.cc), blocks run one after the other; streams and graphs run as late as
// they may (runtime.cc). What it shows: indices, fragments, barriers, waits for copies, orders of
// additions, memory that the host changes too early, what a graph keeps of its capture. What it
// cannot show: what the hardware does differently, races that need real parallelism, speed.
// Trap: only what csrc/cuda uses exists here; the names are CUDA's own.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <algorithm>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

using std::min;
using std::max;

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

inline float __uint_as_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
inline uint32_t __float_as_uint(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return bits;
}
using std::exp;
using std::isnan;

// ------------------------------------------------------------------------------- inside kernels

// Where the running fiber is.
extern thread_local dim3 threadIdx, blockIdx, gridDim;

namespace emulator {
void barrier();            // of the block
void warp_barrier();       // of the 32 lanes
float exchange(float x, int mask);  // shuffle xor
uint32_t exchange_bits(uint32_t x, int source);  // shuffle from a lane
}  // namespace emulator

inline void __syncthreads() { emulator::barrier(); }
inline void __threadfence() {}  // blocks run one after the other
inline int32_t atomicAdd(int32_t* at, int32_t more) {
  const int32_t before = *at;
  *at += more;
  return before;
}
template <class T>
T __ldcg(const T* at) {
  return *at;
}
inline void __syncwarp() { emulator::warp_barrier(); }
inline float __shfl_xor_sync(unsigned, float x, int mask) { return emulator::exchange(x, mask); }
inline uint32_t __shfl_sync(unsigned, uint32_t x, int lane) {
  return emulator::exchange_bits(x, lane);
}

// --------------------------------------------------------------------------------- on the host

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorECCUncorrectable = 214,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchTimeout = 702,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorUnknown = 999
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaHostAllocDefault = 0;
inline constexpr unsigned cudaEventDisableTiming = 2;
struct EmulatedStream;
using cudaStream_t = EmulatedStream*;
struct EmulatedEvent;
using cudaEvent_t = EmulatedEvent*;
struct EmulatedGraph;
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = EmulatedGraph*;
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  size_t totalGlobalMem;
};
struct cudaFuncAttributes {
  int numRegs, ptxVersion;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemset(void* p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t e);
const char* cudaGetErrorName(cudaError_t e);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute what, int value);
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, Kernel*) {
  a->numRegs = 1;
  a->ptxVersion = 90;  // so that kernels are launched as on sm_90
  return cudaSuccess;
}

namespace emulator {

// A kernel with its arguments, copied when it was launched.
struct Closure {
  void (*run)(const void* data) = nullptr;
  const void* data = nullptr;
  size_t bytes = 0;
};
cudaError_t launch(const cudaLaunchConfig_t& config, const Closure& kernel);

// Test hooks. The n-th call of this kind from now on answers `e`; 0 ends it. kExecute is a kernel
// that breaks while it runs: the next wait tells, and so does every later call.
enum class Fault { kAllocate, kLaunch, kCopy, kExecute, kCapture, kInstantiate, kGraphLaunch };
void fail(Fault what, int nth, cudaError_t e);
// Every later call returns `e`; cudaSuccess ends that.
void break_device(cudaError_t e);
int live_allocations();
// Kernels, copies and fills that were started and that nobody has waited for.
int waiting();
// Products round as tensor cores do at their worst; much slower.
void cut_sums(bool on);
// Calls since the last reset: what the host started itself, and graphs.
struct Calls {
  int launches = 0;
  int copies = 0;
  int captures = 0;
  int instantiated = 0;
  int graph_launches = 0;
  int live_graphs = 0;  // not reset
};
Calls calls();
void reset_calls();

}  // namespace emulator

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               const Args&... args) {
  const auto closure = [kernel, args...] { kernel(args...); };
  using Copied = decltype(closure);
  static_assert(std::is_trivially_copyable_v<Copied>);
  return emulator::launch(*config, {[](const void* data) { (*static_cast<Copied*>(data))(); },
                                    &closure, sizeof closure});
}
