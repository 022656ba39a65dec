// cuda_ops.h: the CUDA device: packed weights, paged cache and activations in the card's memory,
// all work of a step on one stream. Operations are written down; submit uploads the step's tables
// and starts all of it, as one graph where the same kind of step was seen before; collect waits.
// Not here: kernels (*.cu beside this), which card (device.h), what follows the head (cuda_head.h).
// Two steps may be in flight. They share everything on the card, where one follows the other; what
// the host writes and reads (tables, answers) exists twice, and an event marks the end of each. The
// tokens of the second one are read where the first one's select left them (embed.cu).
// Trap: the tables are uploaded from page-locked memory that is read until the step is done: nobody
// writes it between submit and collect. An abandoned step has started nothing.
#pragma once

#include <array>
#include <deque>
#include <vector>

#include "cuda/check.h"
#include "cuda/cuda_head.h"
#include "cuda/device.h"
#include "cuda/graph_cache.h"
#include "cuda/kernels.h"
#include "cuda/step_tables.h"
#include "cuda/weight_store.h"
#include "ops/ops.h"

namespace polylm {

class CudaOps final : public Ops {
 public:
  CudaOps(const CudaOptions& options, const CudaDevice& device);
  ~CudaOps() override;

  const DeviceInfo& info() const override { return info_; }
  DeviceMemory memory() const override;

 private:
  struct Activation {
    ActKind kind = ActKind::kInput;
    int64_t stride = 0;  // elements between rows
    bool is_bf16 = false;
    DeviceBuffer buffer;
  };
  struct Cache {
    KvShape shape;
    int64_t padded = 0;
    int64_t block_bytes = 0;  // of one layer
    DeviceBuffer buffer;
  };
  // How starting a step went: the first failure.
  struct Started {
    cudaError_t error = cudaSuccess;
    const char* doing = "";
  };
  struct Flight {
    PinnedBuffer tables;
    cudaEvent_t done = nullptr;
    Started started;
  };

  Weight do_make_weight(int64_t n, int64_t k, WeightFormat format) override;
  void do_pack_weight(const Weight& w, const WeightPiece& piece) override;
  void do_read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const override;
  Vector do_make_vector(const float* data, int64_t size) override;
  Act do_make_act(int64_t rows, int64_t cols, ActKind kind) override;
  Kv do_make_kv(const KvShape& shape) override;
  void do_reserve(const StepLimits& limits) override;
  void do_copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) override;
  void do_begin() override;
  void do_embed(const EmbedArgs& a) override;
  void do_norm(const NormArgs& a) override;
  void do_qkv(const QkvArgs& a) override;
  void do_attend(const AttendArgs& a) override;
  void do_linear(const LinearArgs& a) override;
  void do_select(const SelectArgs& a) override;
  void do_submit() override;
  const std::vector<SelectResult>& do_collect() override;
  const float* do_full_row(int64_t select_index) override;
  void do_write_act(const Act& act, int64_t rows, const float* data) override;
  void do_read_act(const Act& act, int64_t rows, float* out) const override;

  const Activation& act(int32_t handle) const { return acts_[static_cast<size_t>(handle)]; }
  void* layer_of(const Cache& cache, int64_t layer) const;
  void use_device() const;
  // Remembers the first failure of the step being made; collect throws it.
  void note(cudaError_t e, const char* doing);
  Flight& flight() { return flights_[static_cast<size_t>(slot())]; }
  void record(const Recorded& operation, const Act& in, const Act& out);
  void start_known_or_new();
  bool replay(GraphCache::Entry* known);
  void reserve_late();

  // cuda_step.cu: from what was written down to launches. Uses nothing of the step but shape_, so
  // that what is captured serves every step of that shape.
  Started start_step();
  Started start_operations(bool overlaps);
  cudaError_t start_operation(const Recorded& r);
  cudaError_t start_embed(const Recorded& r);
  cudaError_t start_attend(const Recorded& r);
  cudaError_t start_generated(AttendCall call);
  cudaError_t start_select(const Recorded& r);
  cudaError_t start_product(const Recorded& r, const NormCall& norm);
  bool takes_norm(const Recorded& norm, const Recorded& next) const;
  NormCall norm_of(const Recorded& r) const;
  Sink sink_of(const Recorded& r) const;
  const char* upload() const { return tables_card_.as<char>(); }

  DeviceInfo info_;
  int device_;
  Card card_;
  bool plain_ = false;
  WeightStore weights_;
  CudaHead head_;
  std::deque<Activation> acts_;
  std::deque<Cache> caches_;

  StepLimits reserved_;
  std::array<Flight, 2> flights_;
  DeviceBuffer tables_card_;
  DeviceBuffer partial_;  // of decode attention: [rows, heads, segments, padded + 2]
  DeviceBuffer arrived_;  // of decode attention: int32 [rows, heads], zero between kernels

  // The step between begin and collect.
  std::vector<Recorded> recorded_;
  const SelectRow* selects_ = nullptr;
  int64_t select_count_ = 0;
  int64_t most_rows_ = 0;  // that its activations have room for
  StepShape shape_;
  GraphCache graphs_;
  Started noted_;
};

}  // namespace polylm
