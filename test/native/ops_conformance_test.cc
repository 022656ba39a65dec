// ops_conformance_test.cc: every device does what ops.h says, operation by operation, against
// float64 on the numbers that the device holds. The tolerance is set by a rival: a plain loop with
// float32 sums and the same roundings; twice its error is allowed.
#include <cmath>
#include <limits>
#include <thread>

#include "ops_rig.h"

namespace polylm::test {
namespace {

constexpr double kProbe = 2e-7;  // below this, errors are float32's own

double gelu_tanh(double x) {
  return 0.5 * x * (1.0 + std::tanh(0.7978845608028653559 * (x + 0.044715 * x * x * x)));
}
double gelu_erf(double x) { return 0.5 * x * (1.0 + std::erf(x * 0.70710678118654752440)); }
double apply(Epilogue e, double x) {
  return e == Epilogue::kGeluTanh ? gelu_tanh(x) : e == Epilogue::kGeluErf ? gelu_erf(x) : x;
}

float as_input(Precision p, float x) {
  return p == Precision::kBf16 ? bf16_to_float(bf16_from_float(x)) : x;
}

void expect_within_rival(const std::vector<float>& got, const std::vector<float>& rival,
                         const std::vector<double>& truth, const std::string& what) {
  const double error = relative_error(got, truth);
  const double allowed = 2.0 * relative_error(rival, truth) + kProbe;
  if (!(error <= allowed)) {
    report_failure(__FILE__, __LINE__,
                   what + ": error " + show(error) + ", allowed " + show(allowed));
  }
}

// Rows 0..rows-1, each a sequence of its own at position 0 in its own block.
Batch single_rows(int64_t rows) {
  Batch batch;
  for (int64_t i = 0; i < rows; ++i) batch.add(0, 1, {static_cast<int32_t>(i)});
  return batch;
}

// ------------------------------------------------------------------------------------ weights

// Pieces of odd sizes at odd places with the given strides, packed by three threads.
void check_pieces(Ops& ops, WeightFormat format, bool transposed) {
  const int64_t n = 83, k = 131;
  Random random(1);
  const std::vector<float> values = rounded(random.numbers(n * k, 2.0F));
  std::vector<float> source(values.size());  // as the file has it
  const int64_t stride_n = transposed ? 1 : k;
  const int64_t stride_k = transposed ? n : 1;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      source[static_cast<size_t>(i * stride_n + j * stride_k)] =
          values[static_cast<size_t>(i * k + j)];
    }
  }
  const std::vector<uint16_t> halves = to_bf16(source);
  const Weight w = ops.make_weight(n, k, format);
  const std::vector<int64_t> n_cuts = {0, 1, 16, 37, 64, 83};
  const std::vector<int64_t> k_cuts = {0, 3, 32, 97, 131};
  const auto pack_some = [&](size_t first) {
    for (size_t i = first; i + 1 < n_cuts.size(); i += 3) {
      for (size_t j = 0; j + 1 < k_cuts.size(); ++j) {
        WeightPiece p{.n0 = n_cuts[i], .n_count = n_cuts[i + 1] - n_cuts[i], .k0 = k_cuts[j],
                      .k_count = k_cuts[j + 1] - k_cuts[j], .stride_n = stride_n,
                      .stride_k = stride_k};
        const int64_t from = p.n0 * stride_n + p.k0 * stride_k;
        if (format == WeightFormat::kBf16) p.bf16_data = halves.data() + from;
        if (format == WeightFormat::kFp32) p.fp32_data = source.data() + from;
        ops.pack_weight(w, p);
      }
    }
  };
  std::thread second(pack_some, 1);
  std::thread third(pack_some, 2);
  pack_some(0);
  second.join();
  third.join();
  std::vector<float> read(values.size());
  ops.read_weight(w, 0, 40, read.data());
  ops.read_weight(w, 40, n - 40, read.data() + 40 * k);
  EXPECT(read == values);
}

void pack_weights(const Subject& subject) {
  const auto ops = subject.make();
  for (const bool transposed : {false, true}) {
    check_pieces(*ops, WeightFormat::kBf16, transposed);
    check_pieces(*ops, WeightFormat::kFp32, transposed);
  }
  // A matrix of whole tiles in one piece, both orders: the fast paths.
  Random random(2);
  const std::vector<float> values = rounded(random.numbers(64 * 96, 1.0F));
  const std::vector<uint16_t> halves = to_bf16(values);
  const Weight w = ops->make_weight(64, 96, WeightFormat::kBf16);
  WeightPiece p{.n_count = 64, .k_count = 96, .stride_n = 1, .stride_k = 64};
  p.bf16_data = halves.data();
  ops->pack_weight(w, p);
  std::vector<float> read(values.size());
  ops->read_weight(w, 0, 64, read.data());
  for (size_t i = 0; i < 64; ++i) {
    for (size_t j = 0; j < 96; ++j) EXPECT_EQ(read[i * 96 + j], values[j * 64 + i]);
  }
}

// -------------------------------------------------------------------------------- embed, norm

void embed_rows(const Subject& subject) {
  const auto ops = subject.make();
  const int64_t vocab = 77, positions = 90, cols = 56;
  Random random(3);
  const TestMatrix wte = bf16_matrix(*ops, vocab, cols, random.numbers(vocab * cols, 1.0F));
  const TestMatrix wpe = bf16_matrix(*ops, positions, cols, random.numbers(positions * cols, 1.0F));
  const Act x = ops->make_act(80, cols, ActKind::kResidual);
  ops->reserve(roomy_limits(80, vocab, positions));
  for (const bool with_positions : {true, false}) {
    Batch batch;
    batch.add(7, 3, {4, 1, 2});
    batch.add(0, 0, {});
    batch.add(12, 70, {0, 3, 5, 6, 7, 8});
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < 73; ++i) tokens.push_back(static_cast<int32_t>(random.below(vocab)));
    ops->begin(batch.inputs(tokens));
    ops->embed({.wte = wte.w, .wpe = with_positions ? wpe.w : Weight{}, .x = x});
    ops->submit();
    ops->collect();
    std::vector<float> got(73 * 56);
    ops->read_act(x, 73, got.data());
    for (int64_t t = 0; t < 73; ++t) {
      const int64_t position = t < 3 ? 7 + t : 12 + t - 3;
      for (int64_t c = 0; c < cols; ++c) {
        float want = wte.values[static_cast<size_t>(tokens[static_cast<size_t>(t)] * cols + c)];
        if (with_positions) want += wpe.values[static_cast<size_t>(position * cols + c)];
        EXPECT_EQ(got[static_cast<size_t>(t * cols + c)], want);
      }
    }
  }
}

void norm_rows(const Subject& subject) {
  for (const int64_t cols : {8, 40, 80, 240, 1000}) {
    const auto ops = subject.make();
    const int64_t rows = 19;
    Random random(4);
    const std::vector<float> weight = random.numbers(cols, 2.0F);
    const std::vector<float> bias = random.numbers(cols, 1.0F);
    const Act x = ops->make_act(rows, cols, ActKind::kResidual);
    const Act h = ops->make_act(rows, cols, ActKind::kInput);
    const NormArgs args = {x, vector_of(*ops, weight), vector_of(*ops, bias), 1e-5F, h};
    ops->reserve(roomy_limits(rows, 10, 64));
    std::vector<float> in = random.numbers(rows * cols, 3.0F);
    for (float& v : in) v += 5.0F;  // a mean that is not small
    ops->write_act(x, rows, in.data());
    Batch batch = single_rows(rows);
    ops->begin(batch.inputs());
    ops->norm(args);
    ops->submit();
    ops->collect();
    std::vector<float> got(in.size());
    ops->read_act(h, rows, got.data());
    std::vector<double> truth(in.size());
    std::vector<float> rival(in.size());
    for (int64_t t = 0; t < rows; ++t) {
      const float* v = &in[static_cast<size_t>(t * cols)];
      double mean = 0.0;
      double variance = 0.0;
      for (int64_t c = 0; c < cols; ++c) mean += static_cast<double>(v[c]);
      mean /= static_cast<double>(cols);
      for (int64_t c = 0; c < cols; ++c) {
        variance += (static_cast<double>(v[c]) - mean) * (static_cast<double>(v[c]) - mean);
      }
      const double scale = 1.0 / std::sqrt(variance / static_cast<double>(cols) + 1e-5);
      for (int64_t c = 0; c < cols; ++c) {
        const auto i = static_cast<size_t>(c);
        const double normal = (static_cast<double>(v[c]) - mean) * scale;
        const double y = normal * static_cast<double>(weight[i]) + static_cast<double>(bias[i]);
        truth[static_cast<size_t>(t * cols + c)] = y;
        rival[static_cast<size_t>(t * cols + c)] =
            as_input(subject.precision, static_cast<float>(y));
      }
    }
    expect_within_rival(got, rival, truth, "norm of " + show(cols));
  }
}

// ------------------------------------------------------------------------------------- linear

struct LinearCase {
  int64_t k;
  int64_t n;
  Epilogue epilogue;
  bool bias;
  WeightFormat format;
};

void check_linear(const Subject& subject, const LinearCase& c, int64_t most_rows) {
  const auto ops = subject.make();
  Random random(static_cast<uint64_t>(c.k * 31 + c.n));
  const bool residual = c.epilogue == Epilogue::kAdd;
  const float spread = 2.0F / std::sqrt(static_cast<float>(c.k));
  std::vector<float> w = random.numbers(c.n * c.k, spread);
  const std::vector<float> bias = random.numbers(c.n, 0.5F);
  if (c.format == WeightFormat::kBf16) w = rounded(w);
  const Weight weight = ops->make_weight(c.n, c.k, c.format);
  const std::vector<uint16_t> halves = to_bf16(w);
  WeightPiece piece{.n_count = c.n, .k_count = c.k, .stride_n = c.k, .stride_k = 1};
  if (c.format == WeightFormat::kBf16) piece.bf16_data = halves.data();
  if (c.format == WeightFormat::kFp32) piece.fp32_data = w.data();
  ops->pack_weight(weight, piece);
  const Act x = ops->make_act(most_rows, c.k, ActKind::kInput);
  const Act y = ops->make_act(most_rows, c.n, residual ? ActKind::kResidual : ActKind::kInput);
  const LinearArgs args = {x, weight, c.bias ? vector_of(*ops, bias) : Vector{}, c.epilogue, y};
  ops->reserve(roomy_limits(most_rows, 10, 64));
  for (const int64_t rows : {0, 1, 2, 3, 5, 16, 17, 33, 64, 100}) {
    if (rows > most_rows) break;
    std::vector<float> in = random.numbers(rows * c.k, 1.5F);
    std::vector<float> before = random.numbers(rows * c.n, 1.0F);
    ops->write_act(x, rows, in.data());
    ops->read_act(x, rows, in.data());  // as the device holds it
    ops->write_act(y, rows, before.data());
    Batch batch = single_rows(rows);
    ops->begin(batch.inputs());
    ops->linear(args);
    ops->submit();
    ops->collect();
    std::vector<float> got(before.size());
    ops->read_act(y, rows, got.data());
    std::vector<double> truth(got.size());
    std::vector<float> rival(got.size());
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t n = 0; n < c.n; ++n) {
        const auto at = static_cast<size_t>(t * c.n + n);
        const float b = c.bias ? bias[static_cast<size_t>(n)] : 0.0F;
        double exact = static_cast<double>(b);
        float plain = 0.0F;
        for (int64_t i = 0; i < c.k; ++i) {
          const float xi = in[static_cast<size_t>(t * c.k + i)];
          const float wi = w[static_cast<size_t>(n * c.k + i)];
          exact += static_cast<double>(xi) * static_cast<double>(wi);
          plain += xi * wi;
        }
        plain += b;
        truth[at] = residual ? static_cast<double>(before[at]) + exact : apply(c.epilogue, exact);
        const auto shaped = static_cast<float>(apply(c.epilogue, static_cast<double>(plain)));
        rival[at] = residual ? before[at] + plain : as_input(subject.precision, shaped);
      }
    }
    expect_within_rival(got, rival, truth, "linear " + show(c.k) + " to " + show(c.n) + ", " +
                                               show(rows) + " rows");
  }
}

void linear_rows(const Subject& subject) {
  constexpr auto kBf16 = WeightFormat::kBf16;
  check_linear(subject, {64, 240, Epilogue::kNone, true, kBf16}, 100);
  check_linear(subject, {240, 64, Epilogue::kAdd, true, kBf16}, 100);
  check_linear(subject, {72, 88, Epilogue::kGeluTanh, true, kBf16}, 100);
  check_linear(subject, {128, 1003, Epilogue::kGeluErf, true, kBf16}, 33);
  check_linear(subject, {8, 17, Epilogue::kNone, false, kBf16}, 100);
  check_linear(subject, {1000, 40, Epilogue::kAdd, false, kBf16}, 17);
  check_linear(subject, {104, 72, Epilogue::kGeluTanh, true, WeightFormat::kFp32}, 64);
  check_linear(subject, {1100, 24, Epilogue::kAdd, true, WeightFormat::kFp32}, 5);
}

// More rows, columns and K than one block of a product holds: each row has the bits that it has
// among others, however many, and the first is right.
void linear_blocks_on(const Subject& subject, int64_t threads) {
  const auto ops = subject.make(threads);
  const int64_t k = 4230, n = 290, most_rows = 290;
  Random random(17);
  const TestMatrix w = bf16_matrix(*ops, n, k, random.numbers(n * k, 0.03F));
  const Act x = ops->make_act(most_rows, k, ActKind::kInput);
  const Act y = ops->make_act(most_rows, n, ActKind::kResidual);
  ops->reserve(roomy_limits(most_rows, 10, 64));
  const std::vector<float> in = rounded(random.numbers(most_rows * k, 1.0F));
  const auto product = [&](int64_t first, int64_t rows) {
    const std::vector<float> zeros(static_cast<size_t>(rows * n), 0.0F);
    ops->write_act(x, rows, in.data() + first * k);
    ops->write_act(y, rows, zeros.data());
    Batch batch = single_rows(rows);
    ops->begin(batch.inputs());
    ops->linear({x, w.w, Vector{}, Epilogue::kAdd, y});
    ops->submit();
    ops->collect();
    std::vector<float> out(zeros.size());
    ops->read_act(y, rows, out.data());
    return out;
  };
  const std::vector<float> all = product(0, most_rows);
  for (const int64_t rows : {1, 2, 16, 17, 31, 32, 33, 48, 49, 257}) {
    const int64_t first = most_rows - rows;
    const std::vector<float> some = product(first, rows);
    EXPECT(std::equal(some.begin(), some.end(), all.begin() + first * n));
  }
  std::vector<double> truth;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (int64_t j = 0; j < k; ++j) {
      sum += static_cast<double>(in[static_cast<size_t>(j)]) *
             static_cast<double>(w.values[static_cast<size_t>(i * k + j)]);
    }
    truth.push_back(sum);
  }
  EXPECT(relative_error(all, truth) < 2.5e-6);
}

// One worker has long strips, several have more of them.
[[maybe_unused]] void linear_blocks(const Subject& subject) {
  for (const int64_t threads : {1, 3}) linear_blocks_on(subject, threads);
}

// The float32 outputs of the longest product of the family stay within 1e-6 of the truth.
void long_sums(const Subject& subject) {
  const auto ops = subject.make();
  const int64_t k = 20480, n = 33, rows = 3;
  Random random(6);
  const TestMatrix m = bf16_matrix(*ops, n, k, random.numbers(n * k, 1.0F));
  const Act x = ops->make_act(rows, k, ActKind::kInput);
  const Act y = ops->make_act(rows, n, ActKind::kResidual);
  ops->reserve(roomy_limits(rows, 10, 64));
  std::vector<float> in = random.numbers(rows * k, 1.0F);
  ops->write_act(x, rows, in.data());
  ops->read_act(x, rows, in.data());
  const std::vector<float> zeros(static_cast<size_t>(rows * n));
  ops->write_act(y, rows, zeros.data());
  Batch batch = single_rows(rows);
  ops->begin(batch.inputs());
  ops->linear({x, m.w, Vector{}, Epilogue::kAdd, y});
  ops->submit();
  ops->collect();
  std::vector<float> got(zeros.size());
  ops->read_act(y, rows, got.data());
  std::vector<double> truth(got.size());
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        truth[static_cast<size_t>(t * n + i)] +=
            static_cast<double>(in[static_cast<size_t>(t * k + j)]) *
            static_cast<double>(m.values[static_cast<size_t>(i * k + j)]);
      }
    }
  }
  EXPECT(relative_error(got, truth) < 1e-6);
}

// The gelu of every size of number, also where its own formula would cancel or overflow.
void gelu_everywhere(const Subject& subject) {
  const auto ops = subject.make();
  const int64_t cols = 1601;
  const std::vector<float> zeros(static_cast<size_t>(cols * 8));
  const TestMatrix one = bf16_matrix(*ops, cols, 8, zeros);
  std::vector<float> points(static_cast<size_t>(cols));
  for (int64_t i = 0; i < cols; ++i) {
    points[static_cast<size_t>(i)] = static_cast<float>(i - 800) * 0.0125F;
  }
  points[0] = -1e30F;
  points[1600] = 1e30F;
  const Vector bias = vector_of(*ops, points);  // 0 · x + point
  const Act x = ops->make_act(1, 8, ActKind::kInput);
  const Act y = ops->make_act(1, cols, ActKind::kInput);
  ops->reserve(roomy_limits(1, 10, 64));
  for (const Epilogue e : {Epilogue::kGeluTanh, Epilogue::kGeluErf}) {
    Batch batch = single_rows(1);
    ops->begin(batch.inputs());
    ops->linear({x, one.w, bias, e, y});
    ops->submit();
    ops->collect();
    std::vector<float> got(points.size());
    ops->read_act(y, 1, got.data());
    const double relative = subject.precision == Precision::kBf16 ? 4.2e-3 : 3e-6;
    for (size_t i = 1; i + 1 < points.size(); ++i) {
      const double truth = apply(e, static_cast<double>(points[i]));
      // Far left, the plain formula of the truth itself loses all digits: absolute there.
      EXPECT_NEAR(static_cast<double>(got[i]), truth, std::fabs(truth) * relative + 1e-7);
    }
    EXPECT_NEAR(static_cast<double>(got[0]), 0.0, 1e-3);
    EXPECT(got[1600] > 0.99e30F);
  }
}

POLYLM_FOR_EACH_DEVICE(pack_weights)
POLYLM_FOR_EACH_DEVICE(embed_rows)
POLYLM_FOR_EACH_DEVICE(norm_rows)
POLYLM_FOR_EACH_DEVICE(linear_rows)
POLYLM_FOR_EACH_CPU(linear_blocks)
POLYLM_FOR_EACH_DEVICE(long_sums)
POLYLM_FOR_EACH_DEVICE(gelu_everywhere)

}  // namespace
}  // namespace polylm::test
