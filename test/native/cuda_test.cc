// cuda_test.cc: what is particular to the CUDA device: prompt and generated rows in one step with
// bits that depend on neither, more rows than one launch takes, errors, and how it is chosen. On a
// card, or on the emulator; skipped where there is neither.
#include <cmath>
#include <cstring>

#include "backends.h"
#include "ops_rig.h"

#ifdef POLYLM_ONLY_CUDA
#include <cuda_runtime.h>
#endif

namespace polylm::test {
namespace {

constexpr int64_t kHeads = 2, kHeadSize = 40, kHidden = kHeads * kHeadSize, kInner = 200;
constexpr int64_t kVocab = 1500, kContext = 608, kRows = 320, kSequences = 3;

// A layer and a head, driven with sequences whose rows have roles.
class Stack {
 public:
  struct Piece {
    int64_t sequence;
    int64_t first;  // position
    int64_t rows;
    bool generated;
  };

  Stack() : ops_(Subject{.precision = Precision::kBf16, .is_cuda = true}.make()), random_(21) {
    wte_ = matrix(kVocab, kHidden);
    qkv_ = matrix(3 * kHidden, kHidden);
    up_ = matrix(kInner, kHidden);
    down_ = matrix(kHidden, kInner);
    norm_ = vector_of(*ops_, random_.numbers(kHidden, 1.0F));
    x_ = ops_->make_act(kRows, kHidden, ActKind::kResidual);
    h_ = ops_->make_act(kRows, kHidden, ActKind::kInput);
    q_ = ops_->make_act(kRows, kHidden, ActKind::kInput);
    a_ = ops_->make_act(kRows, kHidden, ActKind::kInput);
    f_ = ops_->make_act(kRows, kInner, ActKind::kInput);
    each_ = kContext / ops_->info().block_tokens;
    kv_ = ops_->make_kv({1, kHeads, kHeadSize, each_ * kSequences});
    ops_->reserve(roomy_limits(kRows, kVocab, kContext));
  }

  // The residual stream of all rows after one step; pieces of generated rows come first.
  std::vector<float> step(const std::vector<Piece>& pieces) {
    std::vector<SequenceRows> sequences;
    std::vector<std::vector<int32_t>> tables;
    std::vector<int32_t> tokens;
    StepInputs in;
    for (const Piece& p : pieces) {
      tables.emplace_back();
      for (int64_t b = 0; b < each_; ++b) {
        tables.back().push_back(static_cast<int32_t>(b * kSequences + p.sequence));
      }
      for (int64_t i = 0; i < p.rows; ++i) {
        tokens.push_back(static_cast<int32_t>((p.sequence * 331 + (p.first + i) * 17) % kVocab));
      }
      sequences.push_back({in.rows, p.rows, p.first, nullptr, each_});
      in.rows += p.rows;
      if (p.generated) in.generated_rows += p.rows;
    }
    for (size_t i = 0; i < sequences.size(); ++i) sequences[i].blocks = tables[i].data();
    in.tokens = tokens.data();
    in.sequences = sequences.data();
    in.sequence_count = static_cast<int64_t>(sequences.size());
    const SelectRow last = {.row = in.rows - 1, .keep_full = true};
    start(in, last);
    EXPECT(ops_->collect().at(0).finite);
    std::vector<float> out(static_cast<size_t>(in.rows * kHidden));
    ops_->read_act(x_, in.rows, out.data());
    return out;
  }

  void start(const StepInputs& in, const SelectRow& last) {
    ops_->begin(in);
    ops_->embed({wte_, Weight{}, x_});
    ops_->norm({x_, norm_, norm_, 1e-5F, h_});
    ops_->qkv({h_, qkv_, Vector{}, kv_, 0, 0.158F, q_});
    ops_->attend({q_, kv_, 0, a_});
    ops_->linear({a_, up_, Vector{}, Epilogue::kGeluTanh, f_});
    ops_->linear({f_, down_, Vector{}, Epilogue::kAdd, x_});
    ops_->select({h_, wte_, &last, 1});
    ops_->submit();
  }
  Ops& ops() { return *ops_; }

 private:
  Weight matrix(int64_t n, int64_t k) {
    const float spread = 2.0F / std::sqrt(static_cast<float>(k));
    return bf16_matrix(*ops_, n, k, random_.numbers(n * k, spread)).w;
  }

  std::unique_ptr<Ops> ops_;
  Random random_;
  Weight wte_, qkv_, up_, down_;
  Vector norm_;
  Act x_, h_, q_, a_, f_;
  Kv kv_;
  int64_t each_ = 0;
};

// Rows [first, first + count) of `all` have the bits of `want`.
void expect_rows(const std::vector<float>& all, int64_t first, const std::vector<float>& want,
                 const std::string& what) {
  const float* at = all.data() + first * kHidden;
  if (std::memcmp(at, want.data(), want.size() * sizeof(float)) != 0) {
    report_failure(__FILE__, __LINE__, what + ": other bits than alone");
  }
}

}  // namespace

TEST(cuda_rows_of_both_roles_in_one_step) {
  Stack alone;
  alone.step({{0, 0, 290, false}});
  const std::vector<float> generated = alone.step({{0, 290, 1, true}});
  const std::vector<float> prompt = alone.step({{1, 0, 70, false}});
  alone.step({{2, 0, 9, false}});
  const std::vector<float> drafts = alone.step({{2, 9, 3, true}});
  Stack together;
  together.step({{0, 0, 290, false}, {2, 0, 9, false}});
  const std::vector<float> all =
      together.step({{0, 290, 1, true}, {2, 9, 3, true}, {1, 0, 70, false}});
  expect_rows(all, 0, generated, "a generated row");
  expect_rows(all, 1, drafts, "draft rows");
  expect_rows(all, 4, prompt, "prompt rows");
}

// 300 generated rows are more than one launch of decode attention takes, and 3 segments deep.
TEST(cuda_many_generated_rows) {
  Stack one_by_one;
  one_by_one.step({{0, 0, 260, false}});
  Stack at_once;
  at_once.step({{0, 0, 260, false}});
  const std::vector<float> all = at_once.step({{0, 260, 300, true}});
  for (int64_t i = 0; i < 300; i += 60) {
    expect_rows(all, i, one_by_one.step({{0, 260 + i, 60, true}}), "rows from " + show(i));
  }
}

// An abandoned step leaves nothing behind that the next one could read.
TEST(cuda_abandoned_step) {
  Stack stack;
  const std::vector<float> want = stack.step({{0, 0, 5, false}});
  const int32_t tokens[] = {7, 8};
  const int32_t table[] = {1};
  const SequenceRows rows = {0, 2, 0, table, 1};
  stack.ops().begin({2, 0, tokens, &rows, 1});
  const std::vector<float> again = stack.step({{0, 0, 5, false}});
  EXPECT(want == again);
}

TEST(cuda_device_names) {
#ifdef POLYLM_CUDA
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda:99"}));
  const auto automatic = make_ops({.device = "auto"});
  EXPECT_EQ(automatic->info().kind, std::string("cpu"));
  EXPECT(automatic->info().reason.find("cuda: ") == 0);
  const std::vector<DeviceReport> reports = list_devices();
  EXPECT(reports.size() >= 2);
  EXPECT_EQ(reports.at(1).kind, std::string("cuda"));
  EXPECT(!reports.at(1).reason.empty());
  if (reports.at(1).usable) {
    EXPECT_EQ(make_ops({.device = "cuda"})->info().kind, std::string("cuda"));
  } else {
    EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  }
#else
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  skip("cuda: this build has no CUDA kernels");
#endif
}

#ifdef POLYLM_ONLY_CUDA  // what only an emulated card can be asked to do

TEST(cuda_want_of_memory_is_recoverable) {
  const int before = emulator::live_allocations();
  for (int nth = 1; nth < 40; ++nth) {
    bool failed = false;
    emulator::fail_allocation(nth);
    try {
      Stack stack;
    } catch (const Error& e) {
      failed = true;
      EXPECT_EQ(show(e.code()), show(Code::kInsufficientMemory));
      EXPECT(e.message().find("bytes") != std::string::npos);
    }
    emulator::fail_allocation(0);
    EXPECT_EQ(emulator::live_allocations(), before);
    if (!failed) {
      EXPECT(nth > 20);
      Stack().step({{0, 0, 3, false}});
      return;
    }
  }
  EXPECT(false);
}

// Last, because it is for ever: after a sticky error no CUDA model of the process works again.
TEST(cuda_zz_sticky_error_is_fatal_for_every_model) {
  Stack first;
  Stack second;
  first.step({{0, 0, 3, false}});
  emulator::break_device(cudaErrorIllegalAddress);
  EXPECT_THROWS_CODE(Code::kDevice, first.step({{0, 3, 1, true}}));
  emulator::break_device(cudaSuccess);
  EXPECT_THROWS_CODE(Code::kDevice, second.step({{0, 0, 3, false}}));
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  EXPECT_EQ(make_ops({.device = "cpu"})->info().kind, std::string("cpu"));
}

#endif

}  // namespace polylm::test
