// ops_select_test.cc: the LM head with its reductions, on every device: listed logits, candidates,
// sums, ties, full rows, numbers that are not finite; and the checks at the door of Ops.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops_rig.h"

namespace polylm::test {
namespace {

constexpr int64_t kHidden = 72;

struct Head {
  std::unique_ptr<Ops> ops;
  TestMatrix w;
  Act h;
  std::vector<float> in;  // as the device holds it
  int64_t vocab = 0;
  int64_t rows = 0;

  Head(const Subject& subject, int64_t vocabulary, int64_t row_count, bool ties = false)
      : ops(subject.make(3)), vocab(vocabulary), rows(row_count) {
    Random random(static_cast<uint64_t>(vocabulary));
    std::vector<float> values = random.numbers(vocab * kHidden, 0.6F);
    if (ties) {  // every row of w is one of five: thousands of equal logits
      for (int64_t n = 5; n < vocab; ++n) {
        std::copy_n(values.begin() + (n * n % 5) * kHidden, kHidden, values.begin() + n * kHidden);
      }
    }
    w = bf16_matrix(*ops, vocab, kHidden, values);
    h = ops->make_act(rows, kHidden, ActKind::kInput);
    ops->reserve(roomy_limits(rows, vocab, 64));
    in = random.numbers(rows * kHidden, 1.0F);
    write();
  }
  void write() {
    ops->write_act(h, rows, in.data());
    ops->read_act(h, rows, in.data());
  }
  const std::vector<SelectResult>& run(const std::vector<SelectRow>& wanted) {
    Batch batch;
    for (int64_t i = 0; i < rows; ++i) batch.add(0, 1, {static_cast<int32_t>(i)});
    ops->begin(batch.inputs());
    ops->select({h, w.w, wanted.data(), static_cast<int64_t>(wanted.size())});
    ops->submit();
    return ops->collect();
  }
  double logit(int64_t row, int64_t token) const {
    double sum = 0.0;
    for (int64_t c = 0; c < kHidden; ++c) {
      sum += static_cast<double>(in[static_cast<size_t>(row * kHidden + c)]) *
             static_cast<double>(w.values[static_cast<size_t>(token * kHidden + c)]);
    }
    return sum;
  }
};

// Everything in `r` follows from the full row of logits that the device itself reports.
void check_reductions(const SelectRow& wanted, const SelectResult& r, const float* full,
                      int64_t vocab) {
  std::vector<bool> listed(static_cast<size_t>(vocab), false);
  for (int64_t i = 0; i < wanted.listed_count; ++i) {
    EXPECT_EQ(r.listed_logits[i], full[wanted.listed[i]]);
    listed[static_cast<size_t>(wanted.listed[i])] = true;
  }
  std::vector<int32_t> rest;
  for (int64_t n = 0; n < vocab; ++n) {
    if (!listed[static_cast<size_t>(n)]) rest.push_back(static_cast<int32_t>(n));
  }
  std::sort(rest.begin(), rest.end(), [&](int32_t a, int32_t b) {
    return full[a] != full[b] ? full[a] > full[b] : a < b;
  });
  EXPECT(r.finite);
  EXPECT_EQ(r.candidate_count, std::min(kCandidates, static_cast<int64_t>(rest.size())));
  for (int64_t i = 0; i < r.candidate_count; ++i) {
    EXPECT_EQ(r.candidate_ids[i], rest[static_cast<size_t>(i)]);
    EXPECT_EQ(r.candidate_logits[i], full[rest[static_cast<size_t>(i)]]);
  }
  if (rest.empty()) {
    EXPECT_EQ(r.rest_max, -std::numeric_limits<float>::infinity());
    EXPECT_EQ(r.rest_sum_exp, 0.0);
    EXPECT_EQ(r.rest_sum_exp_tempered, 0.0);
    return;
  }
  EXPECT_EQ(r.rest_max, full[rest[0]]);
  double sum = 0.0;
  double tempered = 0.0;
  for (const int32_t n : rest) {
    const double below = static_cast<double>(full[n]) - static_cast<double>(r.rest_max);
    sum += std::exp(below);
    tempered += std::exp(below / static_cast<double>(wanted.temperature));
  }
  EXPECT_NEAR(r.rest_sum_exp, sum, sum * 3e-6);
  EXPECT_NEAR(r.rest_sum_exp_tempered, tempered, tempered * 3e-6);
}

void check_head(const Subject& subject, int64_t vocab, int64_t rows, bool ties) {
  Head head(subject, vocab, rows, ties);
  Random random(8);
  std::vector<std::vector<int32_t>> lists;
  std::vector<SelectRow> wanted;
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<int32_t> list;
    for (int64_t n = 0; n < vocab; ++n) {
      const bool all = i == 2 && vocab < 64;  // a row whose rest is empty
      if (all || random.below(std::max<int64_t>(2, vocab / 9)) == 0) {
        list.push_back(static_cast<int32_t>(n));
      }
    }
    std::reverse(list.begin(), list.end());
    if (i % 4 == 1) list.clear();
    lists.push_back(std::move(list));
  }
  for (int64_t i = 0; i < rows; ++i) {
    const auto& list = lists[static_cast<size_t>(i)];
    const float temperatures[] = {1.0F, 0.7F, 2.5F};
    wanted.push_back({.row = rows - 1 - i, .listed = list.data(),
                      .listed_count = static_cast<int64_t>(list.size()),
                      .temperature = temperatures[i % 3], .keep_full = true});
  }
  const auto& results = head.run(wanted);
  EXPECT_EQ(results.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const float* full = head.ops->full_row(static_cast<int64_t>(i));
    for (int64_t n = 0; n < vocab; n += 7) {
      EXPECT_NEAR(static_cast<double>(full[n]), head.logit(wanted[i].row, n), 2e-5);
    }
    check_reductions(wanted[i], results[i], full, vocab);
  }
}

void select_rows(const Subject& subject) {
  check_head(subject, 33, 5, false);
  check_head(subject, 1003, 3, false);
  check_head(subject, 1024, 1, false);
  check_head(subject, 5000, 70, false);
}

void select_ties(const Subject& subject) {
  check_head(subject, 40, 3, true);
  check_head(subject, 4100, 4, true);
}

// Rows without keep_full, an empty selection, and the same rows again give the same bits.
void select_again(const Subject& subject) {
  Head head(subject, 3000, 6);
  std::vector<SelectRow> wanted;
  for (int64_t i = 0; i < 6; ++i) wanted.push_back({.row = i});
  wanted[3].keep_full = true;
  const SelectResult first = head.run(wanted)[5];
  const std::vector<float> logits(first.candidate_logits, first.candidate_logits + kCandidates);
  EXPECT_THROWS_CODE(Code::kInternal, head.ops->full_row(6));
  EXPECT_NEAR(static_cast<double>(head.ops->full_row(3)[2999]), head.logit(3, 2999), 2e-5);
  EXPECT_EQ(head.run({}).size(), size_t{0});
  const SelectResult second = head.run(wanted)[5];
  EXPECT(std::equal(logits.begin(), logits.end(), second.candidate_logits));
  EXPECT_EQ(first.rest_sum_exp, second.rest_sum_exp);
}

void select_not_finite(const Subject& subject) {
  Head head(subject, 2100, 3);
  const float infinity = std::numeric_limits<float>::infinity();
  head.in[static_cast<size_t>(kHidden) + 4] = std::nanf("");
  for (size_t c = 0; c < static_cast<size_t>(kHidden); ++c) {
    head.in[static_cast<size_t>(2 * kHidden) + c] = c == 0 ? infinity : 0.0F;
  }
  head.write();
  const auto& results = head.run({{.row = 0}, {.row = 1}, {.row = 2}});
  EXPECT(results[0].finite);
  EXPECT_EQ(results[0].candidate_count, kCandidates);
  EXPECT(!results[1].finite);
  EXPECT(!results[2].finite);
}

POLYLM_FOR_EACH_DEVICE(select_rows)
POLYLM_FOR_EACH_DEVICE(select_ties)
POLYLM_FOR_EACH_DEVICE(select_again)
POLYLM_FOR_EACH_DEVICE(select_not_finite)

// ------------------------------------------------------------------------ checks at the door

void refuses_nonsense(const Subject& subject) {
  const auto ops = subject.make();
  Random random(9);
  const int64_t c = 16;
  const TestMatrix w = bf16_matrix(*ops, 40, c, random.numbers(40 * c, 1.0F));
  const TestMatrix wqkv = bf16_matrix(*ops, 3 * c, c, random.numbers(3 * c * c, 1.0F));
  const Act x = ops->make_act(4, c, ActKind::kInput);
  const Act q = ops->make_act(4, c, ActKind::kInput);
  const Act y = ops->make_act(4, 40, ActKind::kInput);
  const Act r = ops->make_act(4, c, ActKind::kResidual);
  const Kv kv = ops->make_kv({1, 2, 8, 3});
  ops->reserve({.rows = 4, .sequences = 2, .select_rows = 2, .full_rows = 1, .listed = 3,
                .vocab = 40, .context = 100});
  constexpr Code kBug = Code::kInternal;
  EXPECT_THROWS_CODE(kBug, ops->make_weight(0, 4, WeightFormat::kBf16));
  EXPECT_THROWS_CODE(Code::kLimit, ops->make_weight(int64_t{1} << 40, int64_t{1} << 40,
                                                    WeightFormat::kBf16));
  EXPECT_THROWS_CODE(kBug, ops->make_kv({1, 2, 12, 3}));
  EXPECT_THROWS_CODE(kBug, ops->make_kv({1, 2, 264, 3}));
  EXPECT_THROWS_CODE(kBug, ops->pack_weight(w.w, {.n0 = 39, .n_count = 2, .k_count = 1}));
  const float one = 1.0F;
  EXPECT_THROWS_CODE(kBug, ops->pack_weight(w.w, {.n_count = 1, .k_count = 1, .fp32_data = &one}));
  EXPECT_THROWS_CODE(kBug, ops->linear({x, w.w, Vector{}, Epilogue::kNone, y}));  // no step
  EXPECT_THROWS_CODE(kBug, ops->collect());
  {
    Batch batch;
    batch.add(0, 5, {0});
    EXPECT_THROWS_CODE(kBug, ops->begin(batch.inputs()));  // more rows than reserved
  }
  {
    Batch batch;
    batch.add(ops->info().block_tokens, 1, {0});
    EXPECT_THROWS_CODE(kBug, ops->begin(batch.inputs()));  // the table is too short
  }
  {
    Batch batch;
    batch.add(0, 1, {0});
    EXPECT_THROWS_CODE(kBug, ops->begin(batch.inputs({40})));  // no such token
  }
  Batch batch;
  batch.add(0, 2, {2});
  ops->begin(batch.inputs());
  EXPECT_THROWS_CODE(kBug, ops->linear({y, w.w, Vector{}, Epilogue::kNone, x}));
  EXPECT_THROWS_CODE(kBug, ops->linear({x, w.w, Vector{}, Epilogue::kAdd, y}));
  EXPECT_THROWS_CODE(kBug, ops->qkv({x, wqkv.w, Vector{}, kv, 1, 1.0F, q}));  // no such layer
  EXPECT_THROWS_CODE(kBug, ops->attend({q, kv, 0, q}));
  EXPECT_THROWS_CODE(kBug, ops->norm({r, Vector{}, Vector{}, 1e-5F, x}));
  const int32_t listed[] = {1, 2, 3, 40};
  const SelectRow bad_row = {.row = 2};
  const SelectRow bad_token = {.row = 0, .listed = listed + 3, .listed_count = 1};
  const SelectRow too_many = {.row = 0, .listed = listed, .listed_count = 4};
  const SelectRow cold = {.row = 0, .temperature = 0.0F};
  for (const SelectRow& row : {bad_row, bad_token, too_many, cold}) {
    EXPECT_THROWS_CODE(kBug, ops->select({x, w.w, &row, 1}));
  }
  ops->begin(batch.inputs());  // the open step is abandoned
  ops->submit();
  EXPECT_THROWS_CODE(kBug, ops->begin(batch.inputs()));  // a submitted one is not
  ops->collect();
}

POLYLM_FOR_EACH_DEVICE(refuses_nonsense)

}  // namespace
}  // namespace polylm::test
