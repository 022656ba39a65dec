// model.h: a loaded model: weights bound to an Ops, and its forward pass. One file per family
// (gpt2.cc) plus one line in registry.cc. The engine drives it; it knows nothing of requests.
#pragma once

#include <atomic>
#include <memory>

#include "model/config.h"
#include "ops/ops.h"

namespace polylm {

class TensorSource;

// Rows of a step whose logits are wanted.
struct SelectRows {
  const SelectRow* rows = nullptr;  // [R]
  int64_t count = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual Ops& ops() = 0;
  virtual const Kv& kv() const = 0;
  // Number of parameters, tied ones once.
  virtual int64_t parameter_count() const = 0;
  // Allocates activations, workspace and the KV arena. Called once, before the first forward.
  virtual void reserve(const StepLimits& limits, int64_t kv_blocks) = 0;
  // Runs begin .. submit for one step. Looks at `stop` between layers: when it is true the step is
  // abandoned and forward returns false; the caller must not collect.
  virtual bool forward(const StepInputs& in, const SelectRows& select,
                       const std::atomic<bool>& stop) = 0;
};

// Builds the family named by config.family and reads its weights. Throws UNSUPPORTED_MODEL, the
// WEIGHTS_* and file errors, INSUFFICIENT_MEMORY, or ABORTED when the source says so.
std::unique_ptr<Model> make_model(const ModelConfig& config, std::unique_ptr<Ops> ops,
                                  TensorSource& source);

}  // namespace polylm
