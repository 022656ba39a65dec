// engine.h: one thread that owns a model, its KV blocks and all running requests. Commands come in
// through a queue and are applied between steps; events go out through a queue with one wake-up per
// step. Not here: what to do next (scheduler.h), which token (decoder.h), JavaScript (binding/).
// Trap: the wake callback runs on the engine thread and must not call back into the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "model/model.h"

namespace polylm {

class Tokenizer;

struct EngineOptions {
  int64_t context_size = 2048;   // <= config.context_size
  int64_t max_sequences = 64;    // rows of generated tokens in one step
  int64_t kv_blocks = 0;         // size of the arena
  int64_t max_queue = 4096;
  int64_t budget_mixed = 256;    // rows of a step while generated rows run
  int64_t budget_prefill = 2048; // rows of a step otherwise
  double step_ms = 0.0;          // rows of prompts are so many that a step takes this long, or
                                 // twice this without generated rows (pace.h); 0: the budgets
  bool prefix_cache = false;     // keep prompts' full blocks for prompts that begin alike
};

enum class EngineState : uint8_t { kReady, kDraining, kFailed, kDisposed };

struct EngineStats {
  EngineState state = EngineState::kReady;
  std::string failure;  // code name, when failed
  std::string failure_message;
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t kv_tokens_used = 0;  // a step in flight may hold some a moment longer than the requests
  int64_t kv_tokens_total = 0;
  int64_t requests = 0, rejected = 0, failed = 0, aborted = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0, steps = 0;
  int64_t preempted = 0;        // times that a request made place for another one (turns.h)
  int64_t recomputed_rows = 0;  // rows of prompts that this cost
  double busy_ms = 0;
};

class Engine {
 public:
  // `wake` is called (on the engine or intake thread) when events are waiting and nobody was told.
  Engine(std::unique_ptr<Model> model, std::shared_ptr<const Tokenizer> tokenizer,
         const EngineOptions& options, std::function<void()> wake);
  ~Engine();  // close(), then joins

  // Any thread. Options were checked; length and memory are checked by the intake and admission,
  // whose errors arrive as kFailed. Throws QUEUE_FULL, DRAINING, DISPOSED, or the failure.
  uint64_t submit(Request request);
  // Any thread, never blocks. Unknown or finished ids are ignored.
  void cancel(uint64_t id);
  // Moves out all waiting events, in order. One consumer.
  void take_events(std::vector<Event>* out);
  EngineStats stats() const;
  // New submits fail with DRAINING; running and queued requests go on.
  void drain();
  // Ends every request with DISPOSED and stops the thread; returns when it has stopped (at most one
  // layer's time, or the steps that a card has in flight). Idempotent, any thread but the engine's.
  void close();

  const ModelConfig& config() const;
  const DeviceInfo& device() const;
  DeviceMemory memory() const;
  const EngineOptions& options() const;
  int64_t parameter_count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Blocks for `tokens` tokens of KV at B tokens a block; used by sizing and admission alike.
int64_t blocks_for_tokens(int64_t tokens, int64_t block_tokens);

}  // namespace polylm
