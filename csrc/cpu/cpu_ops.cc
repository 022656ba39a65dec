// cpu_ops.cc: how each operation is split over the workers. See cpu_ops.h.
#include "cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>

#include "platform/checked.h"
#include "platform/cpu_features.h"
#include "platform/error.h"

namespace polylm {
namespace {

constexpr int64_t kValuesCols = kMostCutTiles * kTileN;
constexpr int64_t kRowChunk = 8;       // rows of embed and norm that a worker takes at once

size_t at(int64_t index) { return static_cast<size_t>(index); }

Finish finish_of(Epilogue e) {
  switch (e) {
    case Epilogue::kGeluTanh: return Finish::kGeluTanh;
    case Epilogue::kGeluErf: return Finish::kGeluErf;
    case Epilogue::kAdd: return Finish::kAdd;
    case Epilogue::kNone: break;
  }
  return Finish::kStore;
}

// Dot products of bf16 have no float32 form: the next lower set of kernels does those products.
Isa isa_for(Isa wanted, Precision precision) {
  if (precision == Precision::kBf16) return wanted;
  if (wanted == Isa::kNeonBf16) return Isa::kNeon;
  return wanted > Isa::kAvx512 && wanted <= Isa::kAmx ? Isa::kAvx512 : wanted;
}

std::string reason_for(Isa wanted, Isa used) {
  if (used != wanted) {
    return std::string("float32 arithmetic uses ") + isa_name(used) + "; " + isa_name(wanted) +
           " multiplies bf16 only";
  }
  for (int i = kIsaCount - 1; i > static_cast<int>(used); --i) {
    const Isa better = static_cast<Isa>(i);
    const std::string obstacle = isa_obstacle(better);
    if (better == Isa::kAmx && cpu_features().amx_bf16) {
      return std::string(isa_name(better)) + ": " + obstacle;
    }
    if (obstacle.empty()) return std::string(isa_name(better)) + " works here but was not chosen";
  }
  return "";
}

}  // namespace

// K or V of a block on its way into the cache.
struct alignas(64) CpuOps::Scratch {
  float values[kCpuBlockTokens][kValuesCols];
};

CpuOps::CpuOps(const CpuOptions& options) : attention_(context_), select_(context_) {
  const Isa isa = isa_for(options.isa, options.precision);
  const std::string obstacle = isa_obstacle(isa);
  if (!obstacle.empty()) {
    fail(Code::kDevice, std::string("instruction set ") + isa_name(isa) + ": " + obstacle);
  }
  POLYLM_CHECK(options.threads >= 0 && options.threads <= ThreadPool::kMaxWorkers);
  context_.kernels = &kernels_of(isa);
  context_.kind = input_kind(*context_.kernels, options.precision);
  context_.workers =
      std::min(ThreadPool::default_workers(options.threads), ThreadPool::kMaxWorkers);
  context_.inline_work = options.inline_work;
  ThreadPool::shared().grow(context_.workers);
  info_.kind = "cpu";
  info_.name = cpu_name();
  info_.isa = isa_name(isa);
  info_.reason = options.note;
  const std::string reason = reason_for(options.isa, isa);
  if (!reason.empty()) info_.reason += (options.note.empty() ? "" : "; ") + reason;
  info_.precision = options.precision;
  info_.block_tokens = kCpuBlockTokens;
  scratch_ = Buffer(context_.workers * static_cast<int64_t>(sizeof(Scratch)), "workers");
  sums_ = Buffer(context_.workers * sums_bytes(context_), "workers");
}

DeviceMemory CpuOps::memory() const {
  DeviceMemory m;
  for (const PackedMatrix& w : matrices_) m.weights_bytes += w.buffer.size_bytes();
  for (const auto& v : vectors_) m.weights_bytes += static_cast<int64_t>(v.size() * sizeof(float));
  for (const KvCache& c : caches_) m.kv_bytes += c.buffer.size_bytes();
  for (const Activation& a : acts_) m.workspace_bytes += a.buffer.size_bytes();
  m.workspace_bytes += places_.size_bytes() + scratch_.size_bytes() + wide_.size_bytes();
  m.workspace_bytes += sums_.size_bytes() + attention_.size_bytes() + select_.size_bytes();
  return m;
}

// --------------------------------------------------------------------------------- load time

// The first touch of fresh pages, by the workers that will read them. Left to packing, every
// thread would come to every huge page at the same time, and all but one clear it in vain.
void CpuOps::touch(const Buffer& fresh) const {
  constexpr int64_t kPageBytes = 4096;
  constexpr int64_t kShareBytes = 2 << 20;
  const int64_t shares = ceil_div(fresh.size_bytes(), kShareBytes);
  context_.for_each(shares, 1, fresh.size_bytes(), [&](Range some, int64_t) {
    const int64_t end = std::min(some.end * kShareBytes, fresh.size_bytes());
    for (int64_t at = some.begin * kShareBytes; at < end; at += kPageBytes) {
      *(fresh.as<volatile char>() + at) = 0;
    }
  });
}

Weight CpuOps::do_make_weight(int64_t n, int64_t k, WeightFormat format) {
  PackedMatrix made = make_packed(n, k, format);
  touch(made.buffer);
  if (format == WeightFormat::kFp32 && context_.kind == InputKind::kBf16 && !widens_) {
    widens_ = true;
    reserve_late();
  }
  const std::lock_guard lock(matrices_mutex_);
  matrices_.push_back(std::move(made));
  return Weight{n, k, format, narrow<int32_t>(static_cast<int64_t>(matrices_.size()) - 1)};
}

void CpuOps::do_pack_weight(const Weight& w, const WeightPiece& piece) {
  PackedMatrix* m = nullptr;
  {
    const std::lock_guard lock(matrices_mutex_);
    m = &matrices_[at(w.handle)];
  }
  pack_piece(piece, m);
}

void CpuOps::do_read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const {
  for (int64_t i = 0; i < n_count; ++i) unpack_row(matrix(w), n0 + i, out + i * w.k);
}

Vector CpuOps::do_make_vector(const float* data, int64_t size) {
  std::vector<float> padded(at(round_up(size, kTileN)), 0.0F);
  std::copy_n(data, size, padded.begin());
  vectors_.push_back(std::move(padded));
  return Vector{size, narrow<int32_t>(static_cast<int64_t>(vectors_.size()) - 1)};
}

Act CpuOps::do_make_act(int64_t rows, int64_t cols, ActKind kind) {
  Activation a;
  a.kind = kind;
  a.stride = act_stride(cols);
  a.row_bytes = a.stride * (kind == ActKind::kResidual ? 4 : context_.element_bytes());
  a.buffer = Buffer(checked_mul(rows, a.row_bytes), "activations");
  acts_.push_back(std::move(a));
  if (kind == ActKind::kInput) {
    widest_input_ = std::max(widest_input_, cols);
    most_rows_ = std::max(most_rows_, rows);
    reserve_late();
  }
  return Act{rows, cols, kind, narrow<int32_t>(static_cast<int64_t>(acts_.size()) - 1)};
}

Kv CpuOps::do_make_kv(const KvShape& shape) {
  caches_.push_back(make_kv_cache(shape, info_.precision == Precision::kBf16));
  most_heads_ = std::max(most_heads_, shape.heads);
  reserve_late();
  return Kv{shape, narrow<int32_t>(static_cast<int64_t>(caches_.size()) - 1)};
}

void CpuOps::do_reserve(const StepLimits& limits) {
  reserved_ = limits;
  places_ = Buffer(limits.rows * static_cast<int64_t>(sizeof(RowPlace)), "the step's tables");
  reserve_late();
}

// What depends on the limits and on the activations or caches, whichever came last.
void CpuOps::reserve_late() {
  if (reserved_.rows > 0) {
    select_.reserve(reserved_, widest_input_);
    attention_.reserve(reserved_, most_heads_);
  }
  if (widens_) {
    wide_ = Buffer(checked_mul(most_rows_, act_stride(widest_input_) * 4), "activations");
  }
}

// ------------------------------------------------------------------------------------ a step

void CpuOps::do_copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) {
  const KvCache& cache = caches_[at(kv.handle)];
  const int64_t jobs = kv.shape.layers * count;
  context_.for_each(jobs, 1, jobs * cache.block_bytes(), [&](Range some, int64_t) {
    const BlockCopy& copy = copies[some.begin % count];
    copy_block(cache, some.begin / count, copy.from, copy.to);
  });
}

void CpuOps::do_begin() {
  select_.clear();
  attention_.begin(step());
  auto* places = places_.as<RowPlace>();
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    for (int64_t t = 0; t < s.row_count; ++t) {
      const int64_t position = s.first_position + t;
      places[s.first_row + t] = {s.blocks[position / kCpuBlockTokens],
                                 static_cast<int32_t>(position % kCpuBlockTokens), position};
    }
  }
}

void CpuOps::do_embed(const EmbedArgs& a) {
  const int64_t rows = step().rows;
  context_.for_each(rows, kRowChunk, rows * a.wte.k * 4, [&](Range some, int64_t) {
    for (int64_t row = some.begin; row < some.end; ++row) {
      auto* x = reinterpret_cast<float*>(row_of(a.x, row));
      unpack_row(matrix(a.wte), step().tokens[row], x);
      if (a.wpe.n != 0) add_row(matrix(a.wpe), places_.as<RowPlace>()[row].position, x);
    }
  });
}

void CpuOps::do_norm(const NormArgs& a) {
  const int64_t rows = step().rows;
  NormRowArgs common;
  common.cols = a.weight.size;
  common.weight = vector_or_null(a.weight);
  common.bias = vector_or_null(a.bias);
  common.epsilon = a.epsilon;
  common.kind = context_.kind;
  context_.for_each(rows, kRowChunk, rows * a.weight.size * 4, [&](Range some, int64_t) {
    for (int64_t row = some.begin; row < some.end; ++row) {
      NormRowArgs one = common;
      one.x = reinterpret_cast<const float*>(row_of(a.x, row));
      one.out = row_of(a.h, row);
      context_.kernels->norm(one);
    }
  });
}

void CpuOps::do_qkv(const QkvArgs& a) {
  const KvCache& cache = caches_[at(a.kv.handle)];
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    const int64_t end = s.first_position + s.row_count;
    for (int64_t p = round_up(s.first_position, kCpuBlockTokens); p < end; p += kCpuBlockTokens) {
      prepare_block(cache, a.layer, s.blocks[p / kCpuBlockTokens],
                    std::min(kCpuBlockTokens, end - p));
    }
  }
  const float* bias = vector_or_null(a.bias);
  auto* scratch = scratch_.as<Scratch>();
  const Product p = product(a.h, matrix(a.w));
  p.run(sums_.as<float>(), [&](const Panel& panel, int64_t worker) {
    if (bias != nullptr) {
      FinishArgs f;
      f.acc = panel.sums;
      f.acc_stride = panel.stride;
      f.rows = panel.rows;
      f.cols = panel.cols;
      f.bias = bias + panel.first_col;
      f.finish = Finish::kPlain;
      f.out = panel.sums;
      f.out_stride = panel.stride;
      context_.kernels->finish(f);
    }
    store_qkv(a, cache, panel, scratch + worker);
  });
}

// Columns [0, C) of a panel are q, then come k and v; a panel may hold parts of two or three.
void CpuOps::store_qkv(const QkvArgs& a, const KvCache& cache, const Panel& panel, Scratch* s) {
  const int64_t channels = a.w.k;
  const int64_t last = std::min(panel.first_col + panel.cols, 3 * channels);
  const InputKind cache_kind = cache.is_bf16 ? InputKind::kBf16 : InputKind::kExact;
  for (int64_t c = panel.first_col; c < last;) {
    const int64_t which = c / channels;
    const int64_t count = std::min(last, (which + 1) * channels) - c;
    const int64_t c0 = c - which * channels;
    const float* y = panel.sums + (c - panel.first_col);
    if (which == 0) {
      for (int64_t r = 0; r < panel.rows; ++r) {
        char* to = row_of(a.q, panel.first_row + r) + c0 * context_.element_bytes();
        context_.kernels->store_inputs(context_.kind, y + r * panel.stride, a.q_scale, to, count);
      }
    } else {
      for (int64_t r = 0; r < panel.rows;) {
        const int64_t tokens = run_of_places(panel.first_row + r, panel.rows - r);
        for (int64_t t = 0; t < tokens; ++t) {
          context_.kernels->store_inputs(cache_kind, y + (r + t) * panel.stride, 1.0F,
                                         s->values[t], count);
        }
        const RowPlace& place = places_.as<RowPlace>()[panel.first_row + r];
        const KvRows rows = {place.slot, tokens, c0, count, s->values,
                             kValuesCols * (cache.is_bf16 ? 2 : 1)};
        (which == 1 ? write_k : write_v)(cache, cache.block(a.layer, place.block), rows);
        r += tokens;
      }
    }
    c += count;
  }
}

// How many of `most` rows from `row` on go into one block one after the other.
int64_t CpuOps::run_of_places(int64_t row, int64_t most) const {
  const auto* places = places_.as<RowPlace>() + row;
  int64_t count = 1;
  while (count < most && places[count].block == places->block &&
         places[count].slot == places->slot + count) {
    ++count;
  }
  return count;
}

void CpuOps::do_attend(const AttendArgs& a) {
  AttentionArgs args;
  args.q = row_of(a.q, 0);
  args.out = row_of(a.out, 0);
  args.stride = act(a.q).stride;
  args.cache = &caches_[at(a.kv.handle)];
  args.layer = a.layer;
  attention_.run(args);
}

void CpuOps::do_linear(const LinearArgs& a) {
  FinishArgs common;
  common.finish = finish_of(a.epilogue);
  common.kind = context_.kind;
  common.out_stride = act(a.y).stride;
  const int64_t y_bytes = a.epilogue == Epilogue::kAdd ? 4 : context_.element_bytes();
  const float* bias = vector_or_null(a.bias);
  const Product p = product(a.x, matrix(a.w));
  p.run(sums_.as<float>(), [&](const Panel& panel, int64_t) {
    FinishArgs f = common;
    f.acc = panel.sums;
    f.acc_stride = panel.stride;
    f.rows = panel.rows;
    f.cols = panel.cols;
    f.bias = bias == nullptr ? nullptr : bias + panel.first_col;
    f.out = row_of(a.y, panel.first_row) + panel.first_col * y_bytes;
    context_.kernels->finish(f);
  });
}

void CpuOps::do_select(const SelectArgs& a) {
  select_.run(a.rows, a.row_count, matrix(a.w), row_of(a.h, 0), act(a.h).stride);
}

// ---------------------------------------------------------------------------------- products

Product CpuOps::product(const Act& x, const PackedMatrix& w) {
  const int64_t rows = step().rows;
  const bool wide = w.format == WeightFormat::kFp32 && context_.kind == InputKind::kBf16;
  const int64_t stride = act(x).stride;
  if (wide) {
    for (int64_t row = 0; row < rows; ++row) {
      context_.kernels->load_inputs(context_.kind, row_of(x, row), wide_.as<float>() + row * stride,
                                    stride);
    }
  }
  return Product(context_, w, wide ? wide_.as<char>() : row_of(x, 0), stride, rows);
}

// ------------------------------------------------------------------------------------- tests

void CpuOps::do_write_act(const Act& a, int64_t rows, const float* data) {
  const bool residual = a.kind == ActKind::kResidual;
  const InputKind kind = residual ? InputKind::kExact : context_.kind;
  for (int64_t row = 0; row < rows; ++row) {
    context_.kernels->store_inputs(kind, data + row * a.cols, 1.0F, row_of(a, row), a.cols);
  }
}

void CpuOps::do_read_act(const Act& a, int64_t rows, float* out) const {
  const Activation& from = acts_[at(a.handle)];
  const bool residual = a.kind == ActKind::kResidual;
  const InputKind kind = residual ? InputKind::kExact : context_.kind;
  for (int64_t row = 0; row < rows; ++row) {
    context_.kernels->load_inputs(kind, from.buffer.as<char>() + row * from.row_bytes,
                                  out + row * a.cols, a.cols);
  }
}

const PackedMatrix& CpuOps::matrix(const Weight& w) const { return matrices_[at(w.handle)]; }

const float* CpuOps::vector_or_null(const Vector& v) const {
  return v.size == 0 ? nullptr : vectors_[at(v.handle)].data();
}

}  // namespace polylm
