// ops_rig.h: what the tests of operations share: the devices to test, random numbers, packed
// weights, batches of sequences. A check is a function of a Subject; POLYLM_FOR_EACH_DEVICE makes
// one test of it for every device and precision, skipped (and counted) where the machine lacks it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/cpu_ops.h"
#ifdef POLYLM_CUDA
#include "cuda/device.h"
#endif
#include "harness.h"
#include "ops/ops.h"
#include "platform/bf16.h"
#include "ref/ref_ops.h"

namespace polylm::test {

// Whether the rows of every Batch are generated tokens; Subject::make sets it.
inline bool batches_are_generated = false;

struct Subject {
  bool is_ref = false;
  Isa isa = Isa::kScalar;
  Precision precision = Precision::kBf16;
  bool is_cuda = false;
  bool generated = false;  // rows play the role of generated tokens, else of prompt tokens

  std::unique_ptr<Ops> make(int64_t threads = 2) const {
    batches_are_generated = generated;
    if (is_ref) return std::make_unique<RefOps>(precision);
    if (is_cuda) return make_cuda();
    const std::string obstacle = isa_obstacle(isa);
    if (!obstacle.empty()) skip(std::string(isa_name(isa)) + ": " + obstacle);
    CpuOptions options;
    options.precision = precision;
    options.threads = threads;
    options.isa = isa;
    options.inline_work = 0;  // wake the workers for every job, however small
    return std::make_unique<CpuOps>(options);
  }

  std::unique_ptr<Ops> make_cuda() const {
#ifdef POLYLM_CUDA
    const std::string obstacle = cuda_device(0).reason;
    if (!obstacle.empty()) skip("cuda: " + obstacle);
    return make_cuda_ops({precision, 0});
#else
    skip("cuda: this build has no CUDA kernels");
#endif
  }
};

// Numbers in [-1, 1), the same for the same seed on every machine.
class Random {
 public:
  explicit Random(uint64_t salt) : state_(seed() * 0x9E3779B97F4A7C15u + salt) {}
  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  float number() { return static_cast<float>(static_cast<double>(next() >> 11) * 0x1.0p-52 - 1.0); }
  int64_t below(int64_t limit) {
    return static_cast<int64_t>(next() % static_cast<uint64_t>(limit));
  }
  std::vector<float> numbers(int64_t count, float scale) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& x : out) x = number() * scale;
    return out;
  }

 private:
  uint64_t state_;
};

inline std::vector<uint16_t> to_bf16(const std::vector<float>& from) {
  std::vector<uint16_t> out(from.size());
  std::transform(from.begin(), from.end(), out.begin(), bf16_from_float);
  return out;
}
inline std::vector<float> rounded(const std::vector<float>& from) {
  std::vector<float> out(from.size());
  std::transform(from.begin(), from.end(), out.begin(),
                 [](float x) { return bf16_to_float(bf16_from_float(x)); });
  return out;
}

// A packed bf16 matrix and its exact values [n, k].
struct TestMatrix {
  Weight w;
  std::vector<float> values;
};
inline TestMatrix bf16_matrix(Ops& ops, int64_t n, int64_t k, const std::vector<float>& from) {
  TestMatrix m;
  m.w = ops.make_weight(n, k, WeightFormat::kBf16);
  m.values = rounded(from);
  const std::vector<uint16_t> halves = to_bf16(from);
  WeightPiece piece{.n0 = 0, .n_count = n, .k0 = 0, .k_count = k, .stride_n = k, .stride_k = 1};
  piece.bf16_data = halves.data();
  ops.pack_weight(m.w, piece);
  return m;
}
inline Vector vector_of(Ops& ops, const std::vector<float>& from) {
  return ops.make_vector(from.data(), static_cast<int64_t>(from.size()));
}

// A batch under construction. Block tables are owned here; add() may be given a table to go on.
class Batch {
 public:
  void add(int64_t first_position, int64_t rows, const std::vector<int32_t>& table) {
    tables_.push_back(table);
    parts_.push_back({row_count_, rows, first_position, nullptr,
                      static_cast<int64_t>(table.size())});
    row_count_ += rows;
  }
  // `tokens` may be shorter than the batch: the rest is token 0.
  const StepInputs& inputs(std::vector<int32_t> tokens = {}) {
    tokens_ = std::move(tokens);
    tokens_.resize(static_cast<size_t>(row_count_), 0);
    for (size_t i = 0; i < parts_.size(); ++i) parts_[i].blocks = tables_[i].data();
    in_ = {row_count_, batches_are_generated ? row_count_ : 0, tokens_.data(), parts_.data(),
           static_cast<int64_t>(parts_.size())};
    return in_;
  }
  int64_t rows() const { return row_count_; }

 private:
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> parts_;
  std::vector<int32_t> tokens_;
  StepInputs in_;
  int64_t row_count_ = 0;
};

inline StepLimits roomy_limits(int64_t rows, int64_t vocab, int64_t context) {
  return {.rows = rows, .sequences = rows, .select_rows = rows, .full_rows = rows,
          .listed = rows * 64, .vocab = vocab, .context = context};
}

// |a - truth| / |truth| over all numbers (relative Frobenius norm).
template <class A>
double relative_error(const A& a, const std::vector<double>& truth) {
  double off = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < truth.size(); ++i) {
    const double d = static_cast<double>(a[i]) - truth[i];
    off += d * d;
    size += truth[i] * truth[i];
  }
  return std::sqrt(off / (size > 0.0 ? size : 1.0));
}

}  // namespace polylm::test

#define POLYLM_ONE_DEVICE(check, name, ref, isa_value, precision_value)                    \
  TEST(check##_##name) {                                                                   \
    check(::polylm::test::Subject{.is_ref = ref, .isa = ::polylm::Isa::isa_value,          \
                                  .precision = ::polylm::Precision::precision_value});     \
  }
#define POLYLM_ONE_CUDA(check, name, precision_value, is_generated)                        \
  TEST(check##_cuda_##name) {                                                              \
    check(::polylm::test::Subject{.precision = ::polylm::Precision::precision_value,       \
                                  .is_cuda = true, .generated = is_generated});            \
  }
// Where the kernels of csrc/cuda are in this program: for cards, or run by the emulator.
#ifdef POLYLM_CUDA
#define POLYLM_FOR_EACH_CUDA(check)                       \
  POLYLM_ONE_CUDA(check, prompt_bf16, kBf16, false)       \
  POLYLM_ONE_CUDA(check, generated_bf16, kBf16, true)     \
  POLYLM_ONE_CUDA(check, fp32, kFp32, false)
#else
#define POLYLM_FOR_EACH_CUDA(check)
#endif
#ifdef POLYLM_ONLY_CUDA  // the program that emulates a card: the CPU is tested elsewhere
#define POLYLM_FOR_EACH_CPU(check)
#define POLYLM_FOR_EACH_REF(check)
#else
#define POLYLM_FOR_EACH_CPU(check)                                   \
  POLYLM_ONE_DEVICE(check, scalar_bf16, false, kScalar, kBf16)       \
  POLYLM_ONE_DEVICE(check, scalar_fp32, false, kScalar, kFp32)       \
  POLYLM_ONE_DEVICE(check, avx2_bf16, false, kAvx2, kBf16)           \
  POLYLM_ONE_DEVICE(check, avx2_fp32, false, kAvx2, kFp32)           \
  POLYLM_ONE_DEVICE(check, avx512_bf16, false, kAvx512, kBf16)       \
  POLYLM_ONE_DEVICE(check, avx512_fp32, false, kAvx512, kFp32)       \
  POLYLM_ONE_DEVICE(check, avx512bf16, false, kAvx512Bf16, kBf16)    \
  POLYLM_ONE_DEVICE(check, amx, false, kAmx, kBf16)                  \
  POLYLM_ONE_DEVICE(check, neon_bf16, false, kNeon, kBf16)           \
  POLYLM_ONE_DEVICE(check, neon_fp32, false, kNeon, kFp32)           \
  POLYLM_ONE_DEVICE(check, neonbf16, false, kNeonBf16, kBf16)
#define POLYLM_FOR_EACH_REF(check)                                   \
  POLYLM_ONE_DEVICE(check, ref_bf16, true, kScalar, kBf16)           \
  POLYLM_ONE_DEVICE(check, ref_fp32, true, kScalar, kFp32)
#endif
#define POLYLM_FOR_EACH_FAST(check) \
  POLYLM_FOR_EACH_CPU(check)        \
  POLYLM_FOR_EACH_CUDA(check)
#define POLYLM_FOR_EACH_DEVICE(check) \
  POLYLM_FOR_EACH_REF(check)          \
  POLYLM_FOR_EACH_FAST(check)
