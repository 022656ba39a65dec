// graph_cache.h: graphs of steps that come again: one for each shape of step and list of
// operations. The first step of a kind runs launch by launch (which also loads its kernels), the
// second one is captured, the others are one launch. Not here: what is captured (cuda_step.cu).
// Trap: a graph keeps addresses: it dies with the buffers it names (clear), and nothing of a step
// that may change from step to step may be an argument of a kernel.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <vector>

#include "cuda/step_tables.h"

namespace polylm {

enum class OpKind : int32_t { kEmbed, kNorm, kQkv, kAttend, kLinear, kSelect };

// An operation as it was asked for: handles and numbers, no addresses.
struct Recorded {
  OpKind kind = OpKind::kEmbed;
  int32_t in = -1;      // activation read
  int32_t out = -1;     // activation written
  int32_t weight = -1;  // matrix; of a norm its vector
  int32_t second = -1;  // position table, bias vector
  int32_t kv = -1;
  int32_t number = 0;   // layer, or epilogue, or columns
  float scalar = 0.0F;  // epsilon, or scale of q

  bool operator==(const Recorded&) const = default;
};

class GraphCache {
 public:
  enum class State : uint8_t { kEmpty, kSeen, kReady, kRefused };
  struct Entry {
    StepShape shape;
    std::vector<Recorded> operations;
    State state = State::kEmpty;
    cudaGraphExec_t graph = nullptr;
    uint64_t last_use = 0;
  };

  GraphCache() = default;
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Room for lists of so many operations, so that no step allocates.
  void reserve(size_t operations);
  // The entry of this kind of step; kEmpty the first time, when it takes the place of the one that
  // was not used for longest. Null for lists that are longer than reserved.
  Entry* find(const StepShape& shape, const std::vector<Recorded>& operations);
  // Ends every graph. None may be running.
  void clear();

 private:
  static constexpr size_t kEntries = 32;
  std::array<Entry, kEntries> entries_;
  uint64_t uses_ = 0;
};

// Captures what `start` puts into the stream and makes a graph of it; null when it cannot be had,
// which costs speed and nothing else.
template <class Start>
cudaGraphExec_t capture_graph(cudaStream_t stream, Start start) {
  // Other threads may allocate and load meanwhile; this one does nothing but start kernels.
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  const bool started = start();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);  // also after a failure
  const bool made = started && ended == cudaSuccess && graph != nullptr &&
                    cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess;
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (made) return exec;
  cudaGetLastError();
  return nullptr;
}

}  // namespace polylm
