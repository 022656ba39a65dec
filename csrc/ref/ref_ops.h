// ref_ops.h: the oracle: every operation in plain scalar loops with double accumulators. Anyone may
// read it to learn what an operation means; backends.cc alone creates it. Not here: speed.
// Trap: kBf16 rounds what the fast devices round (inputs of products, q, k, v, P) and nothing else.
#pragma once

#include <deque>
#include <memory>

#include "ops/ops.h"

namespace polylm {

inline constexpr int64_t kRefBlockTokens = 16;

class RefOps final : public Ops {
 public:
  explicit RefOps(Precision precision);

  const DeviceInfo& info() const override { return info_; }
  DeviceMemory memory() const override;

 private:
  struct Matrix {  // [n, k] row-major; bf16 weights are exact as fp32
    int64_t n = 0;
    int64_t k = 0;
    std::vector<float> data;
  };
  struct Activation {  // [rows, cols] row-major
    int64_t cols = 0;
    ActKind kind = ActKind::kInput;
    std::vector<float> data;
  };
  struct Cache {  // k and v: [layers, blocks, B, heads * head_size]
    KvShape shape;
    std::vector<float> k;
    std::vector<float> v;
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
  void do_submit() override {}
  const std::vector<SelectResult>& do_collect() override { return results_; }
  const float* do_full_row(int64_t select_index) override;
  void do_write_act(const Act& act, int64_t rows, const float* data) override;
  void do_read_act(const Act& act, int64_t rows, float* out) const override;

  float rounded(double value) const;
  const Matrix& matrix(const Weight& w) const;
  const float* vector_or_null(const Vector& v) const;
  float* act_row(const Act& act, int64_t row);
  // Sum of x[i] * w[i] in double, i ascending.
  static double dot(const float* x, const float* w, int64_t size);
  void attend_row(const AttendArgs& a, const SequenceRows& s, int64_t t);
  void reduce_row(const SelectRow& wanted, int64_t index);

  DeviceInfo info_;
  std::deque<Matrix> matrices_;  // a deque: loaders keep references while others are added
  std::vector<std::vector<float>> vectors_;
  std::vector<Activation> acts_;
  std::vector<Cache> caches_;

  // Workspace of a step, sized by reserve.
  std::vector<double> scores_;         // [context]
  std::vector<float> logits_;          // [select_rows, V]
  std::vector<uint8_t> is_listed_;     // [V]
  std::vector<int32_t> order_;         // [V]
  std::vector<float> listed_logits_;   // [listed]
  std::vector<int32_t> candidate_ids_;  // [select_rows, kCandidates]
  std::vector<float> candidate_logits_;
  std::vector<SelectResult> results_;
};

}  // namespace polylm
