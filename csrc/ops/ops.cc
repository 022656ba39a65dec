// ops.cc: the shape checks of every operation, made once and for all devices; then the device's
// do_*. A failed check is INTERNAL: the engine asked for something that no model can mean. Not
// here: anything about how a device computes. Trap: checks run on every call of every step, so
// they cost O(sequences + rows), never O(work).
#include "ops/ops.h"

#include <algorithm>
#include <cmath>

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

void check_weight(const Weight& w) {
  POLYLM_CHECK(w.n > 0 && w.k > 0);
  POLYLM_CHECK_LE(0, w.handle);
}

// A bias or none.
void check_bias(const Vector& v, int64_t size) {
  if (v.size == 0) return;
  POLYLM_CHECK_EQ(v.size, size);
  POLYLM_CHECK_LE(0, v.handle);
}

void check_act(const Act& act, int64_t rows, int64_t cols, ActKind kind) {
  POLYLM_CHECK_LE(0, act.handle);
  POLYLM_CHECK_LE(rows, act.rows);
  POLYLM_CHECK_EQ(act.cols, cols);
  POLYLM_CHECK(act.kind == kind);
}

void check_kv(const Kv& kv, int64_t layer, int64_t channels) {
  POLYLM_CHECK_LE(0, kv.handle);
  POLYLM_CHECK(layer >= 0 && layer < kv.shape.layers);
  POLYLM_CHECK_EQ(kv.shape.heads * kv.shape.head_size, channels);
}

}  // namespace

// --------------------------------------------------------------------------------- load time

Weight Ops::make_weight(int64_t n, int64_t k, WeightFormat format) {
  POLYLM_CHECK(n > 0 && k > 0);
  checked_mul(checked_mul(n, k), 8);
  const Weight w = do_make_weight(n, k, format);
  check_weight(w);
  return w;
}

void Ops::pack_weight(const Weight& w, const WeightPiece& piece) {
  check_weight(w);
  POLYLM_CHECK(piece.n_count >= 0 && piece.k_count >= 0);
  POLYLM_CHECK(piece.n0 >= 0 && piece.n0 <= w.n && piece.n_count <= w.n - piece.n0);
  POLYLM_CHECK(piece.k0 >= 0 && piece.k0 <= w.k && piece.k_count <= w.k - piece.k0);
  if (piece.n_count == 0 || piece.k_count == 0) return;
  POLYLM_CHECK((piece.bf16_data != nullptr) == (w.format == WeightFormat::kBf16));
  POLYLM_CHECK((piece.fp32_data != nullptr) == (w.format == WeightFormat::kFp32));
  do_pack_weight(w, piece);
}

void Ops::read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const {
  check_weight(w);
  POLYLM_CHECK(n0 >= 0 && n0 <= w.n && n_count >= 0 && n_count <= w.n - n0);
  if (n_count == 0) return;
  POLYLM_CHECK(out != nullptr);
  do_read_weight(w, n0, n_count, out);
}

Vector Ops::make_vector(const float* data, int64_t size) {
  POLYLM_CHECK(data != nullptr && size > 0);
  return do_make_vector(data, size);
}

Act Ops::make_act(int64_t rows, int64_t cols, ActKind kind) {
  POLYLM_CHECK(rows >= 0 && cols > 0);
  checked_mul(checked_mul(rows, cols), 8);
  return do_make_act(rows, cols, kind);
}

Kv Ops::make_kv(const KvShape& shape) {
  POLYLM_CHECK(shape.layers > 0 && shape.heads > 0 && shape.blocks > 0);
  POLYLM_CHECK(shape.head_size >= 8 && shape.head_size <= 256 && shape.head_size % 8 == 0);
  return do_make_kv(shape);
}

void Ops::reserve(const StepLimits& limits) {
  POLYLM_CHECK(!open_ && in_flight_ == 0);
  POLYLM_CHECK(limits.rows >= 0 && limits.sequences >= 0 && limits.select_rows >= 0);
  POLYLM_CHECK(limits.full_rows >= 0 && limits.listed >= 0);
  POLYLM_CHECK(limits.vocab >= 0 && limits.context >= 0);
  POLYLM_CHECK_LE(limits.full_rows, limits.select_rows);
  do_reserve(limits);
  limits_ = limits;
}

// ------------------------------------------------------------------------------------ a step

void Ops::copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) {
  POLYLM_CHECK(in_flight_ == 0 || count == 0);
  POLYLM_CHECK_LE(0, kv.handle);
  POLYLM_CHECK(count >= 0 && (count == 0 || copies != nullptr));
  for (int64_t i = 0; i < count; ++i) {
    POLYLM_CHECK(copies[i].from >= 0 && copies[i].from < kv.shape.blocks);
    POLYLM_CHECK(copies[i].to >= 0 && copies[i].to < kv.shape.blocks);
    POLYLM_CHECK(copies[i].from != copies[i].to);
  }
  if (count > 0) do_copy_blocks(kv, copies, count);
}

// Tokens of the host where no step is in flight, else sources in the one that is.
void Ops::check_tokens(const StepInputs& in) const {
  if (in.sources == nullptr) {
    POLYLM_CHECK_EQ(in_flight_, int64_t{0});
    POLYLM_CHECK(in.rows == 0 || in.tokens != nullptr);
    for (int64_t i = 0; i < in.rows; ++i) {
      POLYLM_CHECK(in.tokens[i] >= 0 && in.tokens[i] < limits_.vocab);
    }
    return;
  }
  POLYLM_CHECK(info().feeds_back && in.tokens == nullptr);
  POLYLM_CHECK_EQ(in_flight_, int64_t{1});
  POLYLM_CHECK_EQ(in.generated_rows, in.rows);
  for (int64_t i = 0; i < in.rows; ++i) {
    POLYLM_CHECK(in.sources[i] >= 0 && in.sources[i] < newest_selects_);
  }
}

void Ops::begin(const StepInputs& in) {
  open_ = false;  // an abandoned step is legal
  POLYLM_CHECK(in.rows >= 0 && in.generated_rows >= 0 && in.generated_rows <= in.rows);
  POLYLM_CHECK_LE(in.rows, limits_.rows);
  POLYLM_CHECK(in.sequence_count >= 0);
  POLYLM_CHECK_LE(in.sequence_count, limits_.sequences);
  POLYLM_CHECK(in.rows == 0 || in.sequences != nullptr);
  check_tokens(in);
  int64_t next_row = 0;
  highest_block_ = -1;
  const int64_t block_tokens = info().block_tokens;
  for (int64_t i = 0; i < in.sequence_count; ++i) {
    const SequenceRows& s = in.sequences[i];
    POLYLM_CHECK_EQ(s.first_row, next_row);
    POLYLM_CHECK(s.row_count >= 0 && s.row_count <= in.rows - next_row);
    next_row += s.row_count;
    POLYLM_CHECK(next_row <= in.generated_rows || s.first_row >= in.generated_rows);
    POLYLM_CHECK(s.first_position >= 0 && s.first_position <= limits_.context);
    POLYLM_CHECK_LE(s.first_position + s.row_count, limits_.context);
    const int64_t used = ceil_div(s.first_position + s.row_count, block_tokens);
    POLYLM_CHECK_LE(used, s.block_count);
    for (int64_t b = 0; b < used; ++b) {
      POLYLM_CHECK_LE(0, s.blocks[b]);
      highest_block_ = std::max(highest_block_, s.blocks[b]);
    }
  }
  POLYLM_CHECK_EQ(next_row, in.rows);
  step_ = in;
  selects_ = 0;
  slot_ = in_flight_ == 0 ? 0 : 1 - newest_slot_;
  do_begin();
  open_ = true;
}

void Ops::embed(const EmbedArgs& a) {
  POLYLM_CHECK(open_);
  check_weight(a.wte);
  POLYLM_CHECK_LE(limits_.vocab, a.wte.n);
  check_act(a.x, step_.rows, a.wte.k, ActKind::kResidual);
  if (a.wpe.n != 0) {
    check_weight(a.wpe);
    POLYLM_CHECK_EQ(a.wpe.k, a.wte.k);
    for (int64_t i = 0; i < step_.sequence_count; ++i) {
      const SequenceRows& s = step_.sequences[i];
      POLYLM_CHECK_LE(s.first_position + s.row_count, a.wpe.n);
    }
  }
  if (step_.rows > 0) do_embed(a);
}

void Ops::norm(const NormArgs& a) {
  POLYLM_CHECK(open_);
  check_act(a.x, step_.rows, a.weight.size, ActKind::kResidual);
  check_act(a.h, step_.rows, a.weight.size, ActKind::kInput);
  POLYLM_CHECK(a.weight.size > 0 && a.weight.handle >= 0);
  POLYLM_CHECK(a.bias.handle >= 0);
  POLYLM_CHECK_EQ(a.bias.size, a.weight.size);
  POLYLM_CHECK(a.epsilon >= 0.0F);
  if (step_.rows > 0) do_norm(a);
}

void Ops::qkv(const QkvArgs& a) {
  POLYLM_CHECK(open_);
  check_weight(a.w);
  POLYLM_CHECK_EQ(a.w.n, 3 * a.w.k);
  check_bias(a.bias, a.w.n);
  check_act(a.h, step_.rows, a.w.k, ActKind::kInput);
  check_act(a.q, step_.rows, a.w.k, ActKind::kInput);
  check_kv(a.kv, a.layer, a.w.k);
  POLYLM_CHECK_LT(highest_block_, a.kv.shape.blocks);
  if (step_.rows > 0) do_qkv(a);
}

void Ops::attend(const AttendArgs& a) {
  POLYLM_CHECK(open_);
  check_kv(a.kv, a.layer, a.q.cols);
  check_act(a.q, step_.rows, a.q.cols, ActKind::kInput);
  check_act(a.out, step_.rows, a.q.cols, ActKind::kInput);
  POLYLM_CHECK(a.q.handle != a.out.handle);
  POLYLM_CHECK_LT(highest_block_, a.kv.shape.blocks);
  if (step_.rows > 0) do_attend(a);
}

void Ops::linear(const LinearArgs& a) {
  POLYLM_CHECK(open_);
  check_weight(a.w);
  check_bias(a.bias, a.w.n);
  check_act(a.x, step_.rows, a.w.k, ActKind::kInput);
  check_act(a.y, step_.rows, a.w.n,
            a.epilogue == Epilogue::kAdd ? ActKind::kResidual : ActKind::kInput);
  POLYLM_CHECK(a.x.handle != a.y.handle);
  if (step_.rows > 0) do_linear(a);
}

void Ops::select(const SelectArgs& a) {
  POLYLM_CHECK(open_);
  check_weight(a.w);
  check_act(a.h, step_.rows, a.w.k, ActKind::kInput);
  POLYLM_CHECK_EQ(a.w.n, limits_.vocab);
  POLYLM_CHECK(a.row_count >= 0 && (a.row_count == 0 || a.rows != nullptr));
  POLYLM_CHECK_LE(a.row_count, limits_.select_rows);
  int64_t listed = 0;
  int64_t full = 0;
  for (int64_t i = 0; i < a.row_count; ++i) {
    const SelectRow& r = a.rows[i];
    POLYLM_CHECK(r.row >= 0 && r.row < step_.rows);
    POLYLM_CHECK(r.temperature > 0.0F && std::isfinite(r.temperature));
    POLYLM_CHECK(r.listed_count >= 0 && (r.listed_count == 0 || r.listed != nullptr));
    for (int64_t j = 0; j < r.listed_count; ++j) {
      POLYLM_CHECK(r.listed[j] >= 0 && r.listed[j] < a.w.n);
    }
    listed += r.listed_count;
    full += r.keep_full ? 1 : 0;
  }
  POLYLM_CHECK_LE(listed, limits_.listed);
  POLYLM_CHECK_LE(full, limits_.full_rows);
  selects_ = a.row_count;
  do_select(a);
}

void Ops::submit() {
  POLYLM_CHECK(open_);
  do_submit();
  open_ = false;
  ++in_flight_;
  newest_slot_ = slot_;
  newest_selects_ = selects_;
}

const std::vector<SelectResult>& Ops::collect() {
  POLYLM_CHECK_LT(int64_t{0}, in_flight_);
  open_ = false;  // what was begun and not submitted is abandoned
  slot_ = in_flight_ == 1 ? newest_slot_ : 1 - newest_slot_;
  --in_flight_;
  return do_collect();
}

const float* Ops::full_row(int64_t select_index) {
  POLYLM_CHECK(!open_ && in_flight_ == 0);
  POLYLM_CHECK(select_index >= 0 && select_index < limits_.select_rows);
  return do_full_row(select_index);
}

// ------------------------------------------------------------------------------------- tests

void Ops::write_act(const Act& act, int64_t rows, const float* data) {
  POLYLM_CHECK(act.handle >= 0 && rows >= 0);
  POLYLM_CHECK_LE(rows, act.rows);
  if (rows > 0) do_write_act(act, rows, data);
}

void Ops::read_act(const Act& act, int64_t rows, float* out) const {
  POLYLM_CHECK(act.handle >= 0 && rows >= 0);
  POLYLM_CHECK_LE(rows, act.rows);
  if (rows > 0) do_read_act(act, rows, out);
}

}  // namespace polylm
