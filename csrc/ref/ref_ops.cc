// ref_ops.cc: what each operation means, in scalar loops with double accumulators. See ref_ops.h.
#include "ref/ref_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "platform/bf16.h"
#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

size_t at(int64_t index) { return static_cast<size_t>(index); }

double gelu_tanh(double x) {
  const double inner = 0.7978845608028653558798921198687 * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + std::tanh(inner));
}

double gelu_erf(double x) { return 0.5 * x * (1.0 + std::erf(x * 0.70710678118654752440)); }

double apply(Epilogue epilogue, double x) {
  if (epilogue == Epilogue::kGeluTanh) return gelu_tanh(x);
  if (epilogue == Epilogue::kGeluErf) return gelu_erf(x);
  return x;
}

int64_t vector_bytes(const std::vector<float>& v) {
  return static_cast<int64_t>(v.size() * sizeof(float));
}

}  // namespace

RefOps::RefOps(Precision precision) {
  info_.kind = "ref";
  info_.name = "reference (scalar, double accumulators)";
  info_.precision = precision;
  info_.block_tokens = kRefBlockTokens;
}

DeviceMemory RefOps::memory() const {
  DeviceMemory m;
  for (const Matrix& w : matrices_) m.weights_bytes += vector_bytes(w.data);
  for (const auto& v : vectors_) m.weights_bytes += vector_bytes(v);
  for (const Cache& c : caches_) m.kv_bytes += vector_bytes(c.k) + vector_bytes(c.v);
  for (const Activation& a : acts_) m.workspace_bytes += vector_bytes(a.data);
  m.workspace_bytes += vector_bytes(logits_);
  return m;
}

// --------------------------------------------------------------------------------- load time

Weight RefOps::do_make_weight(int64_t n, int64_t k, WeightFormat format) {
  matrices_.push_back(Matrix{n, k, std::vector<float>(at(n * k), 0.0F)});
  return Weight{n, k, format, narrow<int32_t>(static_cast<int64_t>(matrices_.size()) - 1)};
}

void RefOps::do_pack_weight(const Weight& w, const WeightPiece& p) {
  Matrix& m = matrices_[at(w.handle)];
  for (int64_t i = 0; i < p.n_count; ++i) {
    float* row = &m.data[at((p.n0 + i) * m.k + p.k0)];
    for (int64_t j = 0; j < p.k_count; ++j) {
      const int64_t from = i * p.stride_n + j * p.stride_k;
      row[j] = p.bf16_data != nullptr ? bf16_to_float(p.bf16_data[from]) : p.fp32_data[from];
    }
  }
}

void RefOps::do_read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const {
  const Matrix& m = matrix(w);
  std::copy_n(&m.data[at(n0 * m.k)], at(n_count * m.k), out);
}

Vector RefOps::do_make_vector(const float* data, int64_t size) {
  vectors_.emplace_back(data, data + size);
  return Vector{size, narrow<int32_t>(static_cast<int64_t>(vectors_.size()) - 1)};
}

Act RefOps::do_make_act(int64_t rows, int64_t cols, ActKind kind) {
  acts_.push_back(Activation{cols, kind, std::vector<float>(at(rows * cols), 0.0F)});
  return Act{rows, cols, kind, narrow<int32_t>(static_cast<int64_t>(acts_.size()) - 1)};
}

Kv RefOps::do_make_kv(const KvShape& shape) {
  const int64_t channels = shape.heads * shape.head_size;
  const int64_t tokens = checked_mul(checked_mul(shape.layers, shape.blocks), kRefBlockTokens);
  const auto size = at(checked_mul(tokens, channels));
  caches_.push_back(Cache{shape, std::vector<float>(size), std::vector<float>(size)});
  return Kv{shape, narrow<int32_t>(static_cast<int64_t>(caches_.size()) - 1)};
}

void RefOps::do_reserve(const StepLimits& limits) {
  scores_.resize(at(limits.context));
  logits_.resize(at(checked_mul(limits.select_rows, limits.vocab)));
  is_listed_.resize(at(limits.vocab));
  order_.resize(at(limits.vocab));
  listed_logits_.resize(at(limits.listed));
  candidate_ids_.resize(at(limits.select_rows * kCandidates));
  candidate_logits_.resize(at(limits.select_rows * kCandidates));
  results_.reserve(at(limits.select_rows));
}

// ------------------------------------------------------------------------------------ a step

void RefOps::do_copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) {
  Cache& cache = caches_[at(kv.handle)];
  const int64_t block = kRefBlockTokens * kv.shape.heads * kv.shape.head_size;
  for (int64_t layer = 0; layer < kv.shape.layers; ++layer) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t from = (layer * kv.shape.blocks + copies[i].from) * block;
      const int64_t to = (layer * kv.shape.blocks + copies[i].to) * block;
      std::copy_n(&cache.k[at(from)], at(block), &cache.k[at(to)]);
      std::copy_n(&cache.v[at(from)], at(block), &cache.v[at(to)]);
    }
  }
}

void RefOps::do_begin() { results_.clear(); }

void RefOps::do_embed(const EmbedArgs& a) {
  const Matrix& wte = matrix(a.wte);
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    for (int64_t t = 0; t < s.row_count; ++t) {
      const int64_t row = s.first_row + t;
      const float* token = &wte.data[at(step().tokens[row] * wte.k)];
      float* x = act_row(a.x, row);
      std::copy_n(token, at(wte.k), x);
      if (a.wpe.n == 0) continue;
      const float* position = &matrix(a.wpe).data[at((s.first_position + t) * wte.k)];
      for (int64_t c = 0; c < wte.k; ++c) x[c] += position[c];
    }
  }
}

void RefOps::do_norm(const NormArgs& a) {
  const int64_t cols = a.weight.size;
  const float* weight = vector_or_null(a.weight);
  const float* bias = vector_or_null(a.bias);
  for (int64_t t = 0; t < step().rows; ++t) {
    const float* x = act_row(a.x, t);
    float* h = act_row(a.h, t);
    double mean = 0.0;
    for (int64_t c = 0; c < cols; ++c) mean += x[c];
    mean /= static_cast<double>(cols);
    double variance = 0.0;
    for (int64_t c = 0; c < cols; ++c) variance += (x[c] - mean) * (x[c] - mean);
    variance /= static_cast<double>(cols);
    const double scale = 1.0 / std::sqrt(variance + static_cast<double>(a.epsilon));
    for (int64_t c = 0; c < cols; ++c) h[c] = rounded((x[c] - mean) * scale * weight[c] + bias[c]);
  }
}

void RefOps::do_qkv(const QkvArgs& a) {
  const Matrix& w = matrix(a.w);
  const float* bias = vector_or_null(a.bias);
  Cache& cache = caches_[at(a.kv.handle)];
  const int64_t channels = w.k;
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    for (int64_t t = 0; t < s.row_count; ++t) {
      const int64_t position = s.first_position + t;
      const int64_t block = s.blocks[position / kRefBlockTokens];
      const int64_t slot = (a.layer * a.kv.shape.blocks + block) * kRefBlockTokens +
                           position % kRefBlockTokens;
      const float* h = act_row(a.h, s.first_row + t);
      float* q = act_row(a.q, s.first_row + t);
      float* k = &cache.k[at(slot * channels)];
      float* v = &cache.v[at(slot * channels)];
      for (int64_t n = 0; n < w.n; ++n) {
        double y = dot(h, &w.data[at(n * w.k)], w.k);
        if (bias != nullptr) y += bias[n];
        if (n < channels) {
          q[n] = rounded(y * static_cast<double>(a.q_scale));
        } else {
          (n < 2 * channels ? k[n - channels] : v[n - 2 * channels]) = rounded(y);
        }
      }
    }
  }
}

void RefOps::do_attend(const AttendArgs& a) {
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    for (int64_t t = 0; t < s.row_count; ++t) attend_row(a, s, t);
  }
}

// Row t of sequence s over positions [0, first_position + t], head by head.
void RefOps::attend_row(const AttendArgs& a, const SequenceRows& s, int64_t t) {
  const Cache& cache = caches_[at(a.kv.handle)];
  const int64_t head_size = a.kv.shape.head_size;
  const int64_t channels = a.kv.shape.heads * head_size;
  const int64_t keys = s.first_position + t + 1;
  const auto slot_of = [&](int64_t key) {
    const int64_t block = s.blocks[key / kRefBlockTokens];
    return (a.layer * a.kv.shape.blocks + block) * kRefBlockTokens + key % kRefBlockTokens;
  };
  for (int64_t head = 0; head < a.kv.shape.heads; ++head) {
    const float* q = act_row(a.q, s.first_row + t) + head * head_size;
    float* out = act_row(a.out, s.first_row + t) + head * head_size;
    double highest = -std::numeric_limits<double>::infinity();
    for (int64_t key = 0; key < keys; ++key) {
      const float* k = &cache.k[at(slot_of(key) * channels + head * head_size)];
      scores_[at(key)] = dot(q, k, head_size);
      highest = std::max(highest, scores_[at(key)]);
    }
    double sum = 0.0;
    for (int64_t key = 0; key < keys; ++key) {
      scores_[at(key)] = rounded(std::exp(scores_[at(key)] - highest));
      sum += scores_[at(key)];
    }
    for (int64_t d = 0; d < head_size; ++d) {
      double y = 0.0;
      for (int64_t key = 0; key < keys; ++key) {
        const auto v = cache.v[at(slot_of(key) * channels + head * head_size + d)];
        y += scores_[at(key)] * static_cast<double>(v);
      }
      out[d] = rounded(y / sum);
    }
  }
}

void RefOps::do_linear(const LinearArgs& a) {
  const Matrix& w = matrix(a.w);
  const float* bias = vector_or_null(a.bias);
  for (int64_t t = 0; t < step().rows; ++t) {
    const float* x = act_row(a.x, t);
    float* y = act_row(a.y, t);
    for (int64_t n = 0; n < w.n; ++n) {
      double sum = dot(x, &w.data[at(n * w.k)], w.k);
      if (bias != nullptr) sum += bias[n];
      if (a.epilogue == Epilogue::kAdd) {
        y[n] = static_cast<float>(static_cast<double>(y[n]) + sum);
      } else {
        y[n] = rounded(apply(a.epilogue, sum));
      }
    }
  }
}

void RefOps::do_select(const SelectArgs& a) {
  const Matrix& w = matrix(a.w);
  results_.resize(at(a.row_count));
  int64_t listed = 0;
  for (int64_t i = 0; i < a.row_count; ++i) {
    const float* h = act_row(a.h, a.rows[i].row);
    float* logits = &logits_[at(i * w.n)];
    for (int64_t n = 0; n < w.n; ++n) {
      logits[n] = static_cast<float>(dot(h, &w.data[at(n * w.k)], w.k));
    }
    results_[at(i)] = SelectResult{};
    results_[at(i)].listed_logits = listed_logits_.data() + listed;
    for (int64_t j = 0; j < a.rows[i].listed_count; ++j) {
      listed_logits_[at(listed + j)] = logits[a.rows[i].listed[j]];
    }
    listed += a.rows[i].listed_count;
    reduce_row(a.rows[i], i);
  }
}

// Fills results_[index] from its full row of logits.
void RefOps::reduce_row(const SelectRow& wanted, int64_t index) {
  SelectResult& r = results_[at(index)];
  const auto vocab = static_cast<int64_t>(is_listed_.size());
  const float* logits = &logits_[at(index * vocab)];
  std::fill(is_listed_.begin(), is_listed_.end(), uint8_t{0});
  for (int64_t j = 0; j < wanted.listed_count; ++j) is_listed_[at(wanted.listed[j])] = 1;
  int64_t rest = 0;
  r.rest_max = kMinusInfinity;
  for (int64_t n = 0; n < vocab; ++n) {
    if (std::isnan(logits[n]) || logits[n] == -kMinusInfinity) r.finite = false;
    if (is_listed_[at(n)] != 0 || logits[n] == kMinusInfinity) continue;
    order_[at(rest++)] = static_cast<int32_t>(n);
    r.rest_max = std::max(r.rest_max, logits[n]);
  }
  r.candidate_count = r.finite ? std::min(kCandidates, rest) : 0;
  r.candidate_ids = &candidate_ids_[at(index * kCandidates)];
  r.candidate_logits = &candidate_logits_[at(index * kCandidates)];
  if (r.candidate_count == 0) return;
  for (int64_t i = 0; i < rest; ++i) {
    const auto below = static_cast<double>(logits[order_[at(i)]]) - static_cast<double>(r.rest_max);
    r.rest_sum_exp += std::exp(below);
    r.rest_sum_exp_tempered += std::exp(below / static_cast<double>(wanted.temperature));
  }
  std::partial_sort(order_.begin(), order_.begin() + r.candidate_count, order_.begin() + rest,
                    [&](int32_t x, int32_t y) {
                      return logits[x] != logits[y] ? logits[x] > logits[y] : x < y;
                    });
  for (int64_t i = 0; i < r.candidate_count; ++i) {
    candidate_ids_[at(index * kCandidates + i)] = order_[at(i)];
    candidate_logits_[at(index * kCandidates + i)] = logits[order_[at(i)]];
  }
}

const float* RefOps::do_full_row(int64_t select_index) {
  POLYLM_CHECK_LT(select_index, static_cast<int64_t>(results_.size()));
  return &logits_[at(select_index) * is_listed_.size()];
}

// ------------------------------------------------------------------------------------- tests

void RefOps::do_write_act(const Act& act, int64_t rows, const float* data) {
  float* to = act_row(act, 0);
  for (int64_t i = 0; i < rows * act.cols; ++i) {
    to[i] = act.kind == ActKind::kInput ? rounded(static_cast<double>(data[i])) : data[i];
  }
}

void RefOps::do_read_act(const Act& act, int64_t rows, float* out) const {
  std::copy_n(acts_[at(act.handle)].data.data(), at(rows * act.cols), out);
}

// ------------------------------------------------------------------------------------- parts

float RefOps::rounded(double value) const {
  const auto single = static_cast<float>(value);
  return info_.precision == Precision::kBf16 ? bf16_to_float(bf16_from_float(single)) : single;
}

const RefOps::Matrix& RefOps::matrix(const Weight& w) const { return matrices_[at(w.handle)]; }

const float* RefOps::vector_or_null(const Vector& v) const {
  return v.size == 0 ? nullptr : vectors_[at(v.handle)].data();
}

float* RefOps::act_row(const Act& act, int64_t row) {
  return acts_[at(act.handle)].data.data() + row * act.cols;
}

double RefOps::dot(const float* x, const float* w, int64_t size) {
  double sum = 0.0;
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(w[i]);
  return sum;
}

}  // namespace polylm
