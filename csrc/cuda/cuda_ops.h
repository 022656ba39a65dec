// cuda_ops.h: the CUDA device: packed weights, paged cache and activations in the card's memory,
// all work of a step on one stream. Operations start kernels and return; collect waits. Not here:
// kernels (*.cu beside this), which card (device.h), what is done after the head (cuda_head.h).
// Trap: a step uploads its tables once, in begin, from page-locked memory that is read until the
// step is done: an abandoned step is waited for before the next one begins.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/cuda_head.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
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
  // Where the step's tables lie in the upload, in bytes.
  struct TablePlaces {
    int64_t tiles = 0;
    int64_t tables = 0;
    int64_t end = 0;
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

  const Activation& act(const Act& a) const { return acts_[static_cast<size_t>(a.handle)]; }
  const RowInfo* card_rows() const { return tables_card_.as<RowInfo>(); }
  const int32_t* card_tables() const;
  const QueryTile* card_tiles() const;
  void* layer_of(const Cache& cache, int64_t layer) const;
  void use_device() const;
  // Remembers the first failure of the step; collect throws it.
  void note(cudaError_t e, const char* doing);
  int32_t fill_tables();
  void product(const Act& x, const Weight& w, const Sink& sink, const char* doing);
  void attend_generated(AttendCall call);
  void reserve_late();

  DeviceInfo info_;
  int device_;
  Card card_;
  WeightStore weights_;
  CudaHead head_;
  std::deque<Activation> acts_;
  std::deque<Cache> caches_;

  StepLimits reserved_;
  TablePlaces places_;
  PinnedBuffer tables_host_;
  DeviceBuffer tables_card_;
  DeviceBuffer partial_;  // of decode attention: [rows, heads, segments, padded + 2]
  int32_t tile_count_ = 0;

  bool in_flight_ = false;
  cudaError_t failure_ = cudaSuccess;
  std::string failed_doing_;
};

}  // namespace polylm
