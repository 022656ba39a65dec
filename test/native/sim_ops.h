// sim_ops.h: a device that computes nothing but checks everything: a KV cell holds the token that
// was written to it and a hash of all before it, attention walks the block table and compares, and
// logits are a hash of the history that it saw. So a batched run must equal a run without any
// cache, token for token, and a wrong block, a missed copy or a wrong role changes tokens or is
// counted as a violation. Not here: numerics (ref). For tests of the engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/model.h"
#include "ops/ops.h"
#include "platform/error.h"

namespace polylm::test {

struct SimOptions {
  int64_t block_tokens = 4;
  int64_t layers = 2;
  int64_t vocab = 61;
  int64_t context = 96;
  uint64_t seed = 1;
  bool roles_matter = true;  // logits depend on which tokens were generated
  bool feeds_back = false;   // a step may follow one in flight
  // One history in so many has NaN logits; 0: none. A function of the history, like everything.
  uint64_t nan_every = 0;
  // Every layer takes so long, to have something to interrupt.
  int64_t layer_us = 0;

  // Faults: the n-th step (from 0) throws this; -1: never.
  int64_t fault_step = -1;
  Code fault = Code::kDevice;
  bool fault_is_bad_alloc = false;
  // One step in so many throws at a random place; 0: none. From `seed` and the number of the step.
  uint64_t fault_every = 0;

  // Bugs that tests must notice.
  bool skip_copies = false;       // copy_blocks does nothing
  int64_t wrong_block_every = 0;  // one sequence in so many reads a foreign block
  bool swap_roles = false;        // one generated row counts as prompt
  bool wrong_source = false;      // tokens in flight come from the row before the right one
};

// The history of one sequence, extended token by token. Give `generated` only where roles matter.
uint64_t sim_extend(uint64_t history, int32_t token, bool generated);
uint64_t sim_start(const SimOptions& options);
// [V] logits after a history; multiples of 1/8, so that ties happen. All NaN for some.
void sim_logits(const SimOptions& options, uint64_t history, float* logits);
// select's reduction of one row of sim_logits. The vectors hold what `result` points to.
struct SimRow {
  std::vector<float> logits, listed, candidate_logits;
  std::vector<int32_t> candidate_ids;
  std::vector<uint8_t> is_listed;  // [V]
};
SelectResult sim_select(const SelectRow& wanted, SimRow* row);

class SimOps final : public Ops {
 public:
  explicit SimOps(const SimOptions& options);

  const DeviceInfo& info() const override { return info_; }
  DeviceMemory memory() const override;

  int64_t violations() const { return violations_; }
  int64_t steps() const { return steps_; }
  int64_t prompt_rows_seen() const { return prompt_rows_seen_; }
  int64_t max_rows_seen() const { return max_rows_seen_; }
  // Steps that took their tokens from one in flight.
  int64_t fed_steps() const { return fed_steps_; }
  // Blocks that steps in flight write.
  std::vector<int32_t> blocks_in_flight() const;
  // What the last fault of fault_every threw.
  Code fault_thrown() const { return fault_thrown_; }

 protected:
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
  void do_submit() override { made().in_flight = true; }
  const std::vector<SelectResult>& do_collect() override;
  const float* do_full_row(int64_t select_index) override;
  void do_write_act(const Act& act, int64_t rows, const float* data) override;
  void do_read_act(const Act& act, int64_t rows, float* out) const override;

 private:
  // Where a step may fail.
  enum class Place : uint8_t { kBegin, kFirstLayer, kLastLayer, kSelect, kCollect, kFullRow };
  // What is kept of a step until its results are no longer wanted.
  struct Made {
    bool in_flight = false;
    std::vector<SequenceRows> sequences;
    std::vector<std::vector<int32_t>> tables;  // of the sequences; a bug may change them
    std::vector<SelectRow> wanted;
    std::vector<SimRow> rows;
    std::vector<SelectResult> results;
    bool fault_planned = false;
    Place fault_place = Place::kBegin;
    uint64_t fault_kind = 0;
  };
  struct Cell {
    int32_t token = -1;
    int32_t position = -1;
    bool generated = false;
    uint64_t history = 0;  // up to and with this token
  };
  Cell& cell(int64_t layer, const SequenceRows& s, int64_t position);
  void walk(int64_t layer, const SequenceRows& s);
  Made& made() { return made_[static_cast<size_t>(slot())]; }
  int32_t token_of(int64_t row) const;
  void check_follows();
  void plan_fault();
  void maybe_throw(Place place);
  [[noreturn]] void throw_fault(Code code, bool is_bad_alloc);

  SimOptions options_;
  DeviceInfo info_;
  KvShape kv_shape_;
  std::vector<Cell> cells_;  // [layers, blocks, B]
  std::vector<uint64_t> seen_;  // [T] what attention saw in the last layer
  Made made_[2];
  int32_t handles_ = 0;
  int64_t violations_ = 0;
  int64_t steps_ = 0;
  uint64_t begun_ = 0;
  Code fault_thrown_ = Code::kInternal;
  int64_t fed_steps_ = 0;
  int64_t sequences_seen_ = 0;
  int64_t max_rows_seen_ = 0;
  std::atomic<int64_t> prompt_rows_seen_{0};
};

// Drives SimOps as a real family would.
class SimModel final : public Model {
 public:
  explicit SimModel(const SimOptions& options);

  const ModelConfig& config() const override { return config_; }
  Ops& ops() override { return ops_; }
  const Kv& kv() const override { return kv_; }
  int64_t parameter_count() const override { return 1; }
  void reserve(const StepLimits& limits, int64_t kv_blocks) override;
  bool forward(const StepInputs& in, const SelectRows& select,
               const std::atomic<bool>& stop) override;
  SimOps& sim() { return ops_; }

 private:
  SimOptions options_;
  ModelConfig config_;
  SimOps ops_;
  Weight head_;
  Vector norm_;
  Kv kv_;
  Act x_, h_, q_, out_;
};

}  // namespace polylm::test
