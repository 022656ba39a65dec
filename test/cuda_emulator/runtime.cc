// runtime.cc: the host's half of the emulated CUDA: memory, streams, graphs, errors. What is put
// into a stream is kept until somebody waits for it, as late as a card may begin: page-locked memory
// that the host changes too early, or reads too early, shows. Memory is poisoned before use.
// Trap: a capture keeps arguments and addresses, never what lies there.
#include "emulator.h"

#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <utility>

namespace emulator {
namespace {

// A kernel, a copy or a fill that waits for its turn.
struct Work {
  cudaLaunchConfig_t config;
  cudaLaunchAttribute attribute{};
  void (*run)(const void*) = nullptr;  // null: a copy, or a fill where `from` is null too
  List<unsigned char> closure;
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
  int value = 0;
};
using Queue = List<Work>;

std::recursive_mutex device_mutex;
std::map<void*, size_t> allocations;
std::map<EmulatedStream*, bool> streams;  // of this process, that exist
Calls made;
cudaError_t broken = cudaSuccess;
cudaError_t last_error = cudaSuccess;

struct Injected {
  Fault what = Fault::kAllocate;
  int nth = 0;
  cudaError_t error = cudaSuccess;
} injected;

cudaError_t answer(cudaError_t e = cudaSuccess) {
  const cudaError_t out = broken != cudaSuccess ? broken : e;
  if (out != cudaSuccess) last_error = out;
  return out;
}

// What this call of a kind answers because a test wants it to.
cudaError_t fault(Fault what) {
  if (injected.nth == 0 || injected.what != what || --injected.nth > 0) return cudaSuccess;
  return injected.error;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

struct EmulatedStream {
  Queue queue;
  uint64_t performed = 0;  // in all, of what was ever in the queue
  EmulatedGraph* capturing = nullptr;
  bool invalid = false;  // what is being captured
};
struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  uint64_t after = 0;  // so much of the stream's work
};
struct EmulatedGraph {
  Queue nodes;
};

namespace {

EmulatedStream& legacy() {
  static EmulatedStream s;
  return s;
}
EmulatedStream& stream_of(cudaStream_t s) { return s != nullptr ? *s : legacy(); }

// Whether [p, p + bytes) lies in one allocation.
bool is_ours(const void* p, size_t bytes) {
  const auto after = allocations.upper_bound(const_cast<void*>(p));
  if (after == allocations.begin()) return false;
  const auto& [start, size] = *std::prev(after);
  return static_cast<const char*>(p) + bytes <= static_cast<const char*>(start) + size;
}

void perform(Work& w) {
  if (w.run == nullptr) {
    if (w.from != nullptr) std::memmove(w.to, w.from, w.bytes);
    if (w.from == nullptr) std::memset(w.to, w.value, w.bytes);
    return;
  }
  const cudaError_t wanted = fault(Fault::kExecute);
  if (wanted != cudaSuccess) broken = wanted;
  w.config.attrs = &w.attribute;
  if (broken == cudaSuccess && !run_grid(w.config, {w.run, w.closure.data(), w.closure.size()})) {
    broken = cudaErrorLaunchFailure;
  }
}

// As much of what waits as a card must have done by then, and nothing behind it.
void drain(EmulatedStream& s, uint64_t after = ~uint64_t{0}) {
  if (s.capturing != nullptr) return;
  size_t done = 0;
  for (; done < s.queue.size() && s.performed < after; ++done, ++s.performed) {
    if (broken == cudaSuccess) perform(s.queue[done]);
  }
  s.queue.erase(s.queue.begin(), s.queue.begin() + static_cast<std::ptrdiff_t>(done));
}
void drain_all() {
  drain(legacy());
  for (auto& [stream, exists] : streams) drain(*stream);
}

// Puts work into a stream, or into the graph that is being captured from it.
void enqueue(EmulatedStream& s, const Work& w) {
  (s.capturing != nullptr ? s.capturing->nodes : s.queue).push_back(w);
}

// What no stream may be captured during, in the thread that captures: this emulator has one.
cudaError_t forbid_capture() {
  for (auto& [stream, exists] : streams) {
    if (stream->capturing == nullptr) continue;
    stream->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaSuccess;
}

cudaError_t allocate(void** p, size_t bytes) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  cudaError_t e = forbid_capture();
  if (e == cudaSuccess) e = fault(Fault::kAllocate);
  if (e != cudaSuccess) return answer(e);
  *p = ::operator new(bytes, std::align_val_t(256));
  std::memset(*p, kPoison, bytes);
  allocations[*p] = bytes;
  return cudaSuccess;
}
cudaError_t give_back(void* p) {
  const std::lock_guard lock(device_mutex);
  if (p == nullptr) return answer();
  drain_all();  // freeing waits for the device
  if (allocations.erase(p) == 0) return answer(cudaErrorInvalidValue);
  ::operator delete(p, std::align_val_t(256));
  return answer();
}

bool legal(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return (kind == cudaMemcpyDeviceToHost || is_ours(to, bytes)) &&
         (kind == cudaMemcpyHostToDevice || is_ours(from, bytes));
}

}  // namespace

// --------------------------------------------------------------------------------- test hooks

void emulator::fail(Fault what, int nth, cudaError_t e) { injected = {what, nth, e}; }
void emulator::break_device(cudaError_t e) { broken = last_error = e; }
int emulator::live_allocations() {
  const std::lock_guard lock(device_mutex);
  return static_cast<int>(allocations.size());
}
int emulator::waiting() {
  const std::lock_guard lock(device_mutex);
  size_t sum = 0;
  for (auto& [stream, exists] : streams) sum += stream->queue.size();
  return static_cast<int>(sum);
}
Calls emulator::calls() { return made; }
void emulator::reset_calls() {
  const int live = made.live_graphs;
  made = Calls{};
  made.live_graphs = live;
}

// ------------------------------------------------------------------------------------- device

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device != 0) return cudaErrorInvalidValue;
  std::strcpy(p->name, "emulated card");
  p->major = 9;
  p->minor = 0;
  p->multiProcessorCount = 4;
  p->totalGlobalMem = size_t{1} << 34;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return answer(device == 0 ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = size_t{1} << 34;
  *free_bytes = *total_bytes / 2;
  return answer();
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return answer(); }
cudaError_t cudaGetLastError() {
  const cudaError_t e = last_error;
  if (broken == cudaSuccess) last_error = cudaSuccess;
  return e;
}
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaErrorMemoryAllocation ? "out of memory"
         : e == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                        : "emulated error";
}
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }

// ------------------------------------------------------------------------------------- memory

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes); }
cudaError_t cudaFree(void* p) { return give_back(p); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return allocate(p, bytes); }
cudaError_t cudaFreeHost(void* p) { return give_back(p); }
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  const std::lock_guard lock(device_mutex);
  if (!is_ours(p, bytes)) return answer(cudaErrorInvalidValue);
  drain(legacy());
  std::memset(p, value, bytes);
  return answer();
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess || !is_ours(p, bytes)) return answer(cudaErrorInvalidValue);
  Work w;
  w.to = p;
  w.value = value;
  w.bytes = bytes;
  enqueue(stream_of(stream), w);
  return answer();
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  cudaError_t e = forbid_capture();
  if (e == cudaSuccess) e = fault(Fault::kCopy);
  if (e != cudaSuccess || !legal(to, from, bytes, kind)) {
    return answer(e != cudaSuccess ? e : cudaErrorInvalidValue);
  }
  drain(legacy());  // and no other stream: ours do not wait for it
  std::memcpy(to, from, bytes);
  return answer();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  ++made.copies;
  const cudaError_t e = fault(Fault::kCopy);
  if (e != cudaSuccess || !legal(to, from, bytes, kind)) {
    return answer(e != cudaSuccess ? e : cudaErrorInvalidValue);
  }
  EmulatedStream& s = stream_of(stream);
  const bool pageable = !is_ours(to, bytes) || !is_ours(from, bytes);
  if (pageable && s.capturing != nullptr) {
    s.invalid = true;
    return answer(cudaErrorStreamCaptureUnsupported);
  }
  Work w;
  w.to = to;
  w.from = from;
  w.bytes = bytes;
  enqueue(s, w);
  if (pageable) drain(s);  // such memory takes a detour that the caller waits for
  return answer();
}

// -------------------------------------------------------------------------- streams and graphs

cudaError_t emulator::launch(const cudaLaunchConfig_t& config, const Closure& kernel) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  EmulatedStream& s = stream_of(config.stream);
  if (s.capturing == nullptr) ++made.launches;
  const cudaError_t e = fault(Fault::kLaunch);
  if (e != cudaSuccess || !fits(config)) return answer(e != cudaSuccess ? e : cudaErrorInvalidValue);
  Work w;
  w.config = config;
  if (config.numAttrs > 0) w.attribute = config.attrs[0];
  w.run = kernel.run;
  const auto* bytes = static_cast<const unsigned char*>(kernel.data);
  w.closure.assign(bytes, bytes + kernel.bytes);
  enqueue(s, w);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  *stream = new EmulatedStream;
  streams[*stream] = true;
  return answer();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  if (streams.erase(stream) == 0) return answer(cudaErrorInvalidValue);
  if (stream->capturing != nullptr) cudaGraphDestroy(stream->capturing);
  delete stream;
  return answer();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  EmulatedStream& s = stream_of(stream);
  if (s.capturing != nullptr) return s.invalid = true, answer(cudaErrorStreamCaptureUnsupported);
  drain(s);
  return answer();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  *event = new EmulatedEvent;
  return answer();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(device_mutex);
  delete event;
  return answer();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  EmulatedStream& s = stream_of(stream);
  if (s.capturing != nullptr) return s.invalid = true, answer(cudaErrorStreamCaptureUnsupported);
  *event = {&s, s.performed + s.queue.size()};
  return answer();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(device_mutex);
  if (event->stream != nullptr) drain(*event->stream, event->after);
  return answer();
}
cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard lock(device_mutex);
  drain_all();
  return answer();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(device_mutex);
  ++made.captures;
  const cudaError_t e = answer(fault(Fault::kCapture));
  if (e != cudaSuccess) return e;
  if (stream == nullptr || stream->capturing != nullptr) return answer(cudaErrorInvalidValue);
  stream->capturing = new (std::malloc(sizeof(EmulatedGraph))) EmulatedGraph;
  stream->invalid = false;
  ++made.live_graphs;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(device_mutex);
  *graph = std::exchange(stream->capturing, nullptr);
  if (*graph == nullptr) return answer(cudaErrorInvalidValue);
  if (!stream->invalid && broken == cudaSuccess) return cudaSuccess;
  cudaGraphDestroy(*graph);
  *graph = nullptr;
  return answer(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const std::lock_guard lock(device_mutex);
  const cudaError_t e = answer(fault(Fault::kInstantiate));
  if (e != cudaSuccess) return e;
  *exec = new (std::malloc(sizeof(EmulatedGraph))) EmulatedGraph(*graph);
  ++made.instantiated;
  ++made.live_graphs;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex);
  if (broken != cudaSuccess) return answer();
  ++made.graph_launches;
  const cudaError_t e = fault(Fault::kGraphLaunch);
  if (e != cudaSuccess) return answer(e);
  for (const Work& w : exec->nodes) enqueue(stream_of(stream), w);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard lock(device_mutex);
  --made.live_graphs;
  graph->~EmulatedGraph();
  std::free(graph);
  return answer();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
