// cpu_ops.h: the CPU device: packed weights, blocked cache, fused products on the process's thread
// pool. Work is done when the operation is called; submit and collect only hand over. Not here:
// kernels (isa_*.cc) and which of them to use (dispatch.cc).
// Trap: every output is computed by one worker with additions in an order that depends on K alone,
// so bits do not change with the batch, the number of workers or the chunking of a prompt.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/attention.h"
#include "cpu/context.h"
#include "cpu/dispatch.h"
#include "cpu/kv_cache.h"
#include "cpu/pack.h"
#include "cpu/product.h"
#include "cpu/select_head.h"
#include "ops/ops.h"

namespace polylm {

struct CpuOptions {
  Precision precision = Precision::kBf16;
  int64_t threads = 0;  // workers, 0 = ThreadPool::default_workers
  Isa isa = Isa::kScalar;
  // Multiply-adds up to which a job is not worth waking workers for.
  int64_t inline_work = int64_t{1} << 15;
  std::string note;  // why the caller got no better device; goes in front of info().reason
};

class CpuOps final : public Ops {
 public:
  // Throws DEVICE when the ISA cannot be used or threads cannot be started.
  explicit CpuOps(const CpuOptions& options);

  const DeviceInfo& info() const override { return info_; }
  DeviceMemory memory() const override;

 private:
  void touch(const Buffer& fresh) const;
  struct Activation {
    ActKind kind = ActKind::kInput;
    int64_t stride = 0;  // elements between rows
    int64_t row_bytes = 0;
    Buffer buffer;
  };
  // Where a row of the step writes its K and V.
  struct RowPlace {
    int32_t block = 0;
    int32_t slot = 0;
    int64_t position = 0;
  };
  struct Scratch;  // of one worker

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
  void do_submit() override {}
  const std::vector<SelectResult>& do_collect() override { return select_.results(); }
  const float* do_full_row(int64_t select_index) override { return select_.full_row(select_index); }
  void do_write_act(const Act& act, int64_t rows, const float* data) override;
  void do_read_act(const Act& act, int64_t rows, float* out) const override;

  const PackedMatrix& matrix(const Weight& w) const;
  Activation& act(const Act& a) { return acts_[static_cast<size_t>(a.handle)]; }
  char* row_of(const Act& a, int64_t row) {
    return act(a).buffer.as<char>() + row * act(a).row_bytes;
  }
  const float* vector_or_null(const Vector& v) const;
  // x · wᵀ, ready to run.
  Product product(const Act& x, const PackedMatrix& w);
  void store_qkv(const QkvArgs& a, const KvCache& cache, const Panel& panel, Scratch* s);
  int64_t run_of_places(int64_t row, int64_t most) const;
  void reserve_late();

  DeviceInfo info_;
  CpuContext context_;
  std::mutex matrices_mutex_;  // load threads look matrices up while others are added
  std::deque<PackedMatrix> matrices_;
  std::deque<std::vector<float>> vectors_;  // padded to 16 with zeros
  std::vector<Activation> acts_;
  std::vector<KvCache> caches_;
  int64_t widest_input_ = 0;
  int64_t most_rows_ = 0;
  int64_t most_heads_ = 0;
  bool widens_ = false;  // fp32 matrices meet bf16 inputs

  Attention attention_;
  SelectHead select_;
  StepLimits reserved_;
  Buffer places_;   // RowPlace [limits.rows]
  Buffer scratch_;  // Scratch [workers]
  Buffer sums_;     // of products: sums_bytes [workers]
  Buffer wide_;     // float [most rows, act_stride(widest input)], when widens_
};

}  // namespace polylm
