// ops.h: what a device must be able to do, as a narrow set of fused operations. One instance per
// model; a step (begin to collect) is driven by the engine thread alone, pack_weight may be called
// from several loader threads on disjoint pieces. Public functions check shapes and call do_*, so
// that no two devices can disagree about preconditions. An empty batch is legal everywhere.
// Where the device feeds tokens back, one more step may be submitted before the step in flight is
// collected, which takes all its tokens from it; then they are collected in that order.
// Trap: between begin and collect nothing allocates and nothing throws except a failed check;
// device errors surface in collect().
#pragma once

#include <cstdint>
#include <vector>

#include "ops/shapes.h"

namespace polylm {

// x[T,C] = wte[token] + wpe[position], fp32. wpe.n == 0: no position table.
struct EmbedArgs {
  Weight wte;  // [V,C]
  Weight wpe;  // [P,C] or empty
  Act x;       // residual [T,C]
};

// h[T,C] = (x - mean) / sqrt(var + epsilon) * weight + bias, biased variance, in fp32.
struct NormArgs {
  Act x;  // residual [T,C]
  Vector weight;  // [C]
  Vector bias;    // [C]
  float epsilon = 1e-5F;
  Act h;  // input [T,C]
};

// q | k | v [T,3C] = h · w[3C,C]ᵀ + bias; q is multiplied by q_scale (1/sqrt(D)); k and v go
// straight into the blocks of the step's sequences at the rows' positions.
struct QkvArgs {
  Act h;  // input [T,C]
  Weight w;     // [3C,C]
  Vector bias;  // [3C] or empty
  Kv kv;
  int64_t layer = 0;
  float q_scale = 1.0F;
  Act q;  // input [T,C]
};

// out[T,C]: causal attention of each row over positions [0, its own] of its sequence. Reads only.
struct AttendArgs {
  Act q;  // input [T,C]
  Kv kv;
  int64_t layer = 0;
  Act out;  // input [T,C]
};

// kAdd: y (residual) += x·wᵀ + b. kGeluTanh, kGeluErf: y (input) = gelu(x·wᵀ + b). kNone: without.
enum class Epilogue : uint8_t { kNone, kGeluTanh, kGeluErf, kAdd };

struct LinearArgs {
  Act x;        // input [T,K]
  Weight w;     // [N,K]
  Vector bias;  // [N] or empty
  Epilogue epilogue = Epilogue::kNone;
  Act y;  // [T,N]; residual for kAdd, else input
};

// The LM head over chosen rows and the first half of sampling: logits[R,V] = h[rows] · w[V,C]ᵀ are
// reduced as SelectResult says and never stored, except for rows that ask to keep theirs.
struct SelectArgs {
  Act h;     // input [T,C], after the final norm
  Weight w;  // [V,C]
  const SelectRow* rows = nullptr;  // [R]
  int64_t row_count = 0;            // R
};

// Capacity of everything a step may use, allocated once by reserve().
struct StepLimits {
  int64_t rows = 0;         // T at most
  int64_t sequences = 0;    // S at most
  int64_t select_rows = 0;  // R at most
  int64_t full_rows = 0;    // rows of a select with keep_full at most
  int64_t listed = 0;       // listed tokens of all rows of a select together at most
  int64_t vocab = 0;        // V
  int64_t context = 0;      // positions of a sequence at most
};

class Ops {
 public:
  Ops() = default;
  virtual ~Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  virtual const DeviceInfo& info() const = 0;
  virtual DeviceMemory memory() const = 0;

  // Load time ------------------------------------------------------------------------------------
  Weight make_weight(int64_t n, int64_t k, WeightFormat format);
  void pack_weight(const Weight& w, const WeightPiece& piece);
  // Element by element, for tests and for checking tied weights: out[n_count, K] as fp32.
  void read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const;
  Vector make_vector(const float* data, int64_t size);
  Act make_act(int64_t rows, int64_t cols, ActKind kind);
  Kv make_kv(const KvShape& shape);
  void reserve(const StepLimits& limits);

  // A step: begin, the calls below, submit, collect ----------------------------------------------
  void copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count);  // before begin
  void begin(const StepInputs& in);  // also after a step that was abandoned before its submit
  void embed(const EmbedArgs& a);
  void norm(const NormArgs& a);
  void qkv(const QkvArgs& a);
  void attend(const AttendArgs& a);
  void linear(const LinearArgs& a);
  void select(const SelectArgs& a);
  void submit();
  // Waits for the oldest step in flight, and no longer; results of its select, valid until the next
  // begin or collect. Throws DEVICE.
  const std::vector<SelectResult>& collect();
  // Steps that were submitted and not collected: 0, 1 or 2.
  int64_t in_flight() const { return in_flight_; }
  // The full row [V] of select row i, which had keep_full. Valid until the next begin. Not while a
  // step is in flight.
  const float* full_row(int64_t select_index);

  // Tests: an activation as row-major fp32 [rows, cols] and back (rounded as the device rounds).
  void write_act(const Act& act, int64_t rows, const float* data);
  void read_act(const Act& act, int64_t rows, float* out) const;

 protected:
  // The step between begin and submit; valid in do_* of a step.
  const StepInputs& step() const { return step_; }
  // 0 or 1: of the step being made or being collected; another one in flight has the other number.
  int64_t slot() const { return slot_; }
  const StepLimits& limits() const { return limits_; }

  virtual Weight do_make_weight(int64_t n, int64_t k, WeightFormat format) = 0;
  virtual void do_pack_weight(const Weight& w, const WeightPiece& piece) = 0;
  virtual void do_read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const = 0;
  virtual Vector do_make_vector(const float* data, int64_t size) = 0;
  virtual Act do_make_act(int64_t rows, int64_t cols, ActKind kind) = 0;
  virtual Kv do_make_kv(const KvShape& shape) = 0;
  virtual void do_reserve(const StepLimits& limits) = 0;
  virtual void do_copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) = 0;
  virtual void do_begin() = 0;
  virtual void do_embed(const EmbedArgs& a) = 0;
  virtual void do_norm(const NormArgs& a) = 0;
  virtual void do_qkv(const QkvArgs& a) = 0;
  virtual void do_attend(const AttendArgs& a) = 0;
  virtual void do_linear(const LinearArgs& a) = 0;
  virtual void do_select(const SelectArgs& a) = 0;
  virtual void do_submit() = 0;
  virtual const std::vector<SelectResult>& do_collect() = 0;
  virtual const float* do_full_row(int64_t select_index) = 0;
  virtual void do_write_act(const Act& act, int64_t rows, const float* data) = 0;
  virtual void do_read_act(const Act& act, int64_t rows, float* out) const = 0;

 private:
  void check_tokens(const StepInputs& in) const;

  StepInputs step_;
  StepLimits limits_;
  bool open_ = false;           // between begin and submit
  int32_t highest_block_ = -1;  // of the step's block tables
  int64_t in_flight_ = 0;
  int64_t slot_ = 0;
  int64_t newest_slot_ = 0;     // of the step that was submitted last
  int64_t newest_selects_ = 0;  // its R
  int64_t selects_ = 0;         // of the step being made
};

}  // namespace polylm
