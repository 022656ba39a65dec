// ops_attention_test.cc: qkv, attend and copy_blocks of every device against float64, on ragged
// batches whose blocks are scattered and were full of NaN before, with prompts cut into chunks.
#include <array>
#include <cmath>
#include <limits>

#include "ops_rig.h"

namespace polylm::test {
namespace {

struct Shape {
  int64_t heads;
  int64_t head_size;
};

// What one token's row of h becomes: q (scaled), k, v, [3C] each rounded by `round`.
template <class Number, class Round>
std::vector<Number> project(const float* h, const TestMatrix& w, const std::vector<float>& bias,
                            Number scale, Round round) {
  const int64_t channels = w.w.k;
  std::vector<Number> out(bias.size());
  for (int64_t n = 0; n < w.w.n; ++n) {
    Number sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      sum += static_cast<Number>(h[c]) *
             static_cast<Number>(w.values[static_cast<size_t>(n * channels + c)]);
    }
    sum += static_cast<Number>(bias[static_cast<size_t>(n)]);
    out[static_cast<size_t>(n)] = round(n < channels ? sum * scale : sum);
  }
  return out;
}

// Attention of the row at `position`, textbook order, P and the result rounded by `round`.
template <class Number, class Round>
std::vector<Number> attend_plainly(const std::vector<std::vector<Number>>& qkv, int64_t position,
                                   const Shape& shape, Round round) {
  const int64_t channels = shape.heads * shape.head_size;
  std::vector<Number> out(static_cast<size_t>(channels));
  for (int64_t head = 0; head < shape.heads; ++head) {
    const auto c0 = static_cast<size_t>(head * shape.head_size);
    const auto size = static_cast<size_t>(shape.head_size);
    const auto keys = static_cast<size_t>(position + 1);
    std::vector<Number> p(keys);
    Number highest = -std::numeric_limits<Number>::infinity();
    for (size_t j = 0; j < keys; ++j) {
      for (size_t d = 0; d < size; ++d) {
        p[j] += qkv[keys - 1][c0 + d] * qkv[j][static_cast<size_t>(channels) + c0 + d];
      }
      highest = std::max(highest, p[j]);
    }
    Number sum = 0;
    for (Number& x : p) {
      x = std::exp(x - highest);
      sum += x;
    }
    for (size_t j = 0; j < keys; ++j) {
      const Number weight = round(p[j] / sum);
      for (size_t d = 0; d < size; ++d) {
        out[c0 + d] += weight * qkv[j][static_cast<size_t>(2 * channels) + c0 + d];
      }
    }
    for (size_t d = 0; d < size; ++d) out[c0 + d] = round(out[c0 + d]);
  }
  return out;
}

// One layer's attention over several sequences that grow chunk by chunk.
class AttentionRig {
 public:
  static constexpr int64_t kRows = 128;

  AttentionRig(const Subject& subject, const Shape& shape, int64_t context, int64_t sequences)
      : shape_(shape), precision_(subject.precision), ops_(subject.make(3)),
        random_(static_cast<uint64_t>(shape.head_size)) {
    const int64_t channels = shape.heads * shape.head_size;
    const float spread = 2.5F / std::sqrt(static_cast<float>(channels));
    w_ = bf16_matrix(*ops_, 3 * channels, channels,
                     random_.numbers(3 * channels * channels, spread));
    bias_ = random_.numbers(3 * channels, 0.3F);
    bias_vector_ = vector_of(*ops_, bias_);
    blocks_each_ = (context + block_tokens() - 1) / block_tokens();
    blocks_ = blocks_each_ * sequences + 2;
    h_ = ops_->make_act(kRows, channels, ActKind::kInput);
    q_ = ops_->make_act(kRows, channels, ActKind::kInput);
    out_ = ops_->make_act(kRows, channels, ActKind::kInput);
    kv_ = ops_->make_kv({2, shape.heads, shape.head_size, blocks_});
    ops_->reserve(roomy_limits(kRows, 10, context));
    poison();
    deal_blocks(sequences);
    tokens_.resize(static_cast<size_t>(sequences));
  }

  int64_t block_tokens() const { return ops_->info().block_tokens; }

  // The next `rows` tokens of a sequence join the coming step.
  void grow(size_t sequence, int64_t rows) {
    const auto first = static_cast<int64_t>(tokens_[sequence].size());
    const int64_t channels = shape_.heads * shape_.head_size;
    for (int64_t i = 0; i < rows; ++i) {
      tokens_[sequence].push_back(rounded(random_.numbers(channels, 1.0F)));
      const auto& row = tokens_[sequence].back();
      in_.insert(in_.end(), row.begin(), row.end());
      wanted_.push_back({sequence, first + i});
    }
    batch_.add(first, rows, tables_[sequence]);
  }

  void step(const std::string& what) {
    const int64_t rows = batch_.rows();
    ops_->write_act(h_, rows, in_.data());
    run_step(batch_);
    std::vector<float> got(in_.size());
    ops_->read_act(out_, rows, got.data());
    compare(got, what);
    batch_ = Batch();
    in_.clear();
    wanted_.clear();
  }

  // `to` becomes a copy of `from`: whole blocks shared, the last one copied on the device.
  void fork(size_t from, size_t to) {
    tokens_[to] = tokens_[from];
    const auto length = static_cast<int64_t>(tokens_[from].size());
    const auto last = static_cast<size_t>((length - 1) / block_tokens());
    const BlockCopy copy = {tables_[from][last], tables_[to][last]};
    ops_->copy_blocks(kv_, &copy, 1);
    for (size_t i = 0; i < last; ++i) tables_[to][i] = tables_[from][i];
  }

 private:
  void run_step(Batch& batch) {
    const float scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_size));
    ops_->begin(batch.inputs());
    ops_->qkv({h_, w_.w, bias_vector_, kv_, 1, scale, q_});
    ops_->attend({q_, kv_, 1, out_});
    ops_->submit();
    ops_->collect();
  }

  // Every slot of every block holds NaN, as a crashed step may leave it.
  void poison() {
    const int64_t channels = shape_.heads * shape_.head_size;
    const std::vector<float> nan(static_cast<size_t>(kRows * channels), std::nanf(""));
    for (int64_t b = 0; b < blocks_; ++b) {
      Batch batch;
      batch.add(0, block_tokens(), {static_cast<int32_t>(b)});
      ops_->write_act(h_, block_tokens(), nan.data());
      run_step(batch);
    }
  }

  void deal_blocks(int64_t sequences) {
    std::vector<int32_t> all;
    for (int64_t b = 0; b < blocks_; ++b) all.push_back(static_cast<int32_t>(b));
    for (size_t i = all.size() - 1; i > 0; --i) {
      std::swap(all[i], all[static_cast<size_t>(random_.below(static_cast<int64_t>(i) + 1))]);
    }
    for (int64_t s = 0; s < sequences; ++s) {
      tables_.emplace_back(all.begin() + s * blocks_each_, all.begin() + (s + 1) * blocks_each_);
    }
  }

  void compare(const std::vector<float>& got, const std::string& what) {
    const bool bf16 = precision_ == Precision::kBf16;
    const auto exact = [](double x) { return x; };
    const auto plain = [bf16](float x) { return bf16 ? bf16_to_float(bf16_from_float(x)) : x; };
    const double scale = 1.0 / std::sqrt(static_cast<double>(shape_.head_size));
    std::vector<double> truth;
    std::vector<float> rival;
    for (const auto& [sequence, position] : wanted_) {
      auto& projected = truth_[sequence];
      auto& projected_rival = rival_[sequence];
      for (size_t i = projected.size(); i <= static_cast<size_t>(position); ++i) {
        const float* h = tokens_[sequence][i].data();
        projected.push_back(project<double>(h, w_, bias_, scale, exact));
        projected_rival.push_back(project<float>(h, w_, bias_, static_cast<float>(scale), plain));
      }
      std::vector<std::vector<double>> upto(projected.begin(), projected.begin() + position + 1);
      std::vector<std::vector<float>> upto_rival(projected_rival.begin(),
                                                 projected_rival.begin() + position + 1);
      const auto t = attend_plainly<double>(upto, position, shape_, exact);
      const auto r = attend_plainly<float>(upto_rival, position, shape_, plain);
      truth.insert(truth.end(), t.begin(), t.end());
      rival.insert(rival.end(), r.begin(), r.end());
    }
    const double error = relative_error(got, truth);
    const double allowed = 2.0 * relative_error(rival, truth) + 5e-7;
    if (!(error <= allowed)) {
      report_failure(__FILE__, __LINE__,
                     what + ", heads of " + show(shape_.head_size) + ": error " + show(error) +
                         ", allowed " + show(allowed));
    }
  }

  Shape shape_;
  Precision precision_;
  std::unique_ptr<Ops> ops_;
  Random random_;
  TestMatrix w_;
  std::vector<float> bias_;
  Vector bias_vector_;
  int64_t blocks_each_ = 0;
  int64_t blocks_ = 0;
  Act h_, q_, out_;
  Kv kv_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::vector<std::vector<float>>> tokens_;  // [sequence][position][C]
  std::array<std::vector<std::vector<double>>, 4> truth_;  // projections by sequence
  std::array<std::vector<std::vector<float>>, 4> rival_;
  Batch batch_;
  std::vector<float> in_;
  std::vector<std::pair<size_t, int64_t>> wanted_;
};

void attention_shapes(const Subject& subject) {
  for (const Shape& shape : {Shape{1, 16}, Shape{3, 8}, Shape{2, 24}, Shape{3, 40}, Shape{2, 64},
                             Shape{3, 80}, Shape{1, 96}, Shape{2, 128}, Shape{1, 256}}) {
    AttentionRig rig(subject, shape, 128, 4);
    rig.grow(0, 1);
    rig.grow(1, 33);
    rig.grow(2, 0);
    rig.grow(3, 64);
    rig.step("prompts");
    rig.grow(0, 31);  // up to the end of a block
    rig.grow(1, 1);
    rig.grow(2, 40);
    rig.grow(3, 1);
    rig.step("chunks");
    for (size_t s = 0; s < 4; ++s) rig.grow(s, 1);
    rig.step("one each");
  }
}

// Several segments of 256 keys, chunk ends in the middle of blocks, segments and groups of rows.
void attention_segments(const Subject& subject) {
  AttentionRig rig(subject, {2, 32}, 608, 2);
  for (const int64_t rows : {100, 27, 128, 1, 1, 125, 70, 58, 2, 1}) {
    rig.grow(0, rows);
    rig.step("a prompt in chunks");
  }
  rig.grow(0, 1);
  rig.grow(1, 90);
  rig.step("a long and a short one");
}

void attention_fork(const Subject& subject) {
  AttentionRig rig(subject, {2, 48}, 96, 3);
  rig.grow(0, 43);
  rig.step("before the fork");
  rig.fork(0, 1);
  rig.fork(0, 2);
  for (int round = 0; round < 9; ++round) {
    for (size_t s = 0; s < 3; ++s) rig.grow(s, 1);
    rig.step("after the fork");
  }
}

POLYLM_FOR_EACH_DEVICE(attention_shapes)
POLYLM_FOR_EACH_DEVICE(attention_segments)
POLYLM_FOR_EACH_DEVICE(attention_fork)

}  // namespace
}  // namespace polylm::test
