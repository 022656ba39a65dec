// determinism_test.cc: a row's bits do not depend on what else is in the step, on the number of
// workers, or on how its prompt was cut: two layers and a head on every CPU kernel set, compared
// bit for bit. And a step makes no heap call. Not here: whether the bits are right (ops_*_test.cc).
#include <cmath>
#include <cstring>

#include "alloc_probe.h"
#include "ops_rig.h"
#include "platform/buffer.h"

namespace polylm::test {
namespace {

constexpr int64_t kHeads = 3, kHeadSize = 40, kHidden = kHeads * kHeadSize, kInner = 328;
constexpr int64_t kVocab = 2300, kContext = 320, kLayers = 2, kMostRows = 400, kSequences = 5;

struct Piece {
  size_t sequence;
  int64_t rows;
};
using Plan = std::vector<std::vector<Piece>>;  // steps of pieces

// What must not change: the final hidden states of every position, and the head's answers.
struct Trace {
  std::vector<std::vector<float>> hidden;  // [sequence], rows of kHidden
  std::vector<std::vector<double>> head;   // [sequence], numbers of every select result
};

class TinyModel {
 public:
  TinyModel(const Subject& subject, int64_t threads) : ops_(subject.make(threads)) {
    Random random(11);
    wte_ = matrix(kVocab, kHidden, &random).w;
    wpe_ = matrix(kContext, kHidden, &random).w;
    for (Layer& l : layers_) {
      l.ln = vector_of(*ops_, ones(&random));
      l.ln_bias = vector_of(*ops_, random.numbers(kHidden, 0.2F));
      l.qkv = matrix(3 * kHidden, kHidden, &random).w;
      l.qkv_bias = vector_of(*ops_, random.numbers(3 * kHidden, 0.2F));
      l.out = matrix(kHidden, kHidden, &random).w;
      l.up = matrix(kInner, kHidden, &random).w;
      l.up_bias = vector_of(*ops_, random.numbers(kInner, 0.2F));
      l.down = matrix(kHidden, kInner, &random).w;
    }
    x_ = ops_->make_act(kMostRows, kHidden, ActKind::kResidual);
    h_ = ops_->make_act(kMostRows, kHidden, ActKind::kInput);
    q_ = ops_->make_act(kMostRows, kHidden, ActKind::kInput);
    a_ = ops_->make_act(kMostRows, kHidden, ActKind::kInput);
    f_ = ops_->make_act(kMostRows, kInner, ActKind::kInput);
    const int64_t each = kContext / ops_->info().block_tokens;
    kv_ = ops_->make_kv({kLayers, kHeads, kHeadSize, each * kSequences});
    ops_->reserve(roomy_limits(kMostRows, kVocab, kContext));
    for (int64_t s = 0; s < kSequences; ++s) {
      std::vector<int32_t> table;  // interleaved: neighbours in time are far apart in memory
      for (int64_t b = 0; b < each; ++b) table.push_back(static_cast<int32_t>(b * kSequences + s));
      tables_.push_back(table);
    }
  }

  Trace run(const Plan& plan) {
    Trace trace;
    trace.hidden.resize(kSequences);
    trace.head.resize(kSequences);
    std::vector<int64_t> position(kSequences, 0);
    for (const auto& pieces : plan) {
      Batch batch;
      std::vector<int32_t> tokens;
      std::vector<SelectRow> wanted;
      for (const Piece& p : pieces) {
        batch.add(position[p.sequence], p.rows, tables_[p.sequence]);
        for (int64_t i = 0; i < p.rows; ++i) {
          tokens.push_back(token(p.sequence, position[p.sequence] + i));
        }
        position[p.sequence] += p.rows;
        wanted.push_back({.row = batch.rows() - 1, .listed = kListed, .listed_count = 3,
                          .temperature = 0.8F});
      }
      const auto& results = step(batch.inputs(tokens), wanted);
      std::vector<float> hidden(tokens.size() * static_cast<size_t>(kHidden));
      ops_->read_act(h_, batch.rows(), hidden.data());
      auto from = hidden.begin();
      for (size_t i = 0; i < pieces.size(); ++i) {
        auto& to = trace.hidden[pieces[i].sequence];
        const auto count = static_cast<std::ptrdiff_t>(pieces[i].rows * kHidden);
        to.insert(to.end(), from, from + count);
        from += count;
        note(results[i], position[pieces[i].sequence], &trace.head[pieces[i].sequence]);
      }
    }
    return trace;
  }

  Ops& ops() { return *ops_; }

 private:
  struct Layer {
    Vector ln, ln_bias, qkv_bias, up_bias;
    Weight qkv, out, up, down;
  };
  static constexpr int32_t kListed[3] = {2, 1029, 2299};

  TestMatrix matrix(int64_t n, int64_t k, Random* random) {
    const float spread = 3.0F / std::sqrt(static_cast<float>(k));
    return bf16_matrix(*ops_, n, k, random->numbers(n * k, spread));
  }
  static std::vector<float> ones(Random* random) {
    std::vector<float> out = random->numbers(kHidden, 0.3F);
    for (float& x : out) x += 1.0F;
    return out;
  }
  static int32_t token(size_t sequence, int64_t position) {
    Random random(sequence * 1000 + static_cast<uint64_t>(position));
    return static_cast<int32_t>(random.below(kVocab));
  }

  const std::vector<SelectResult>& step(const StepInputs& in,
                                        const std::vector<SelectRow>& wanted) {
    const AllocCount heap_calls;
    Ops& ops = *ops_;
    ops.begin(in);
    ops.embed({wte_, wpe_, x_});
    for (int64_t i = 0; i < kLayers; ++i) {
      const Layer& l = layers_[i];
      ops.norm({x_, l.ln, l.ln_bias, 1e-5F, h_});
      ops.qkv({h_, l.qkv, l.qkv_bias, kv_, i, 0.158F, q_});
      ops.attend({q_, kv_, i, a_});
      ops.linear({a_, l.out, Vector{}, Epilogue::kAdd, x_});
      ops.norm({x_, l.ln, l.ln_bias, 1e-5F, h_});
      ops.linear({h_, l.up, l.up_bias, i == 0 ? Epilogue::kGeluTanh : Epilogue::kGeluErf, f_});
      ops.linear({f_, l.down, Vector{}, Epilogue::kAdd, x_});
    }
    ops.norm({x_, layers_[0].ln, layers_[0].ln_bias, 1e-5F, h_});
    ops.select({h_, wte_, wanted.data(), static_cast<int64_t>(wanted.size())});
    ops.submit();
    const auto& results = ops.collect();
    EXPECT_EQ(heap_calls.count(), int64_t{0});
    return results;
  }

  // Plans end their pieces at different places; all of them end one at the whole sequence.
  static void note(const SelectResult& r, int64_t position, std::vector<double>* to) {
    if (position != kWhole) return;
    for (int i = 0; i < 3; ++i) to->push_back(static_cast<double>(r.listed_logits[i]));
    for (int64_t i = 0; i < r.candidate_count; ++i) {
      to->push_back(static_cast<double>(r.candidate_ids[i]));
      to->push_back(static_cast<double>(r.candidate_logits[i]));
    }
    to->push_back(static_cast<double>(r.rest_max));
    to->push_back(r.rest_sum_exp);
    to->push_back(r.rest_sum_exp_tempered);
  }

 public:
  static constexpr int64_t kWhole = 300;  // tokens of a sequence: into the second segment

 private:
  std::unique_ptr<Ops> ops_;
  Weight wte_, wpe_;
  Layer layers_[kLayers];
  Act x_, h_, q_, a_, f_;
  Kv kv_;
  std::vector<std::vector<int32_t>> tables_;
};

Plan chunks_of(size_t sequence, int64_t size) {
  Plan plan;
  for (int64_t done = 0; done < TinyModel::kWhole; done += size) {
    plan.push_back({{sequence, std::min(size, TinyModel::kWhole - done)}});
  }
  return plan;
}

void expect_same(const Trace& want, const Trace& got, size_t sequence, const std::string& what) {
  const auto& a = want.hidden[sequence];
  const auto& b = got.hidden[sequence];
  if (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) != 0) {
    size_t at = 0;
    while (at < std::min(a.size(), b.size()) && a[at] == b[at]) ++at;
    report_failure(__FILE__, __LINE__, what + ": hidden states differ from position " +
                                           show(at / static_cast<size_t>(kHidden)));
  }
  if (want.head[sequence] != got.head[sequence]) {
    report_failure(__FILE__, __LINE__, what + ": the head's answers differ");
  }
}

void bits_of_chunks(const Subject& subject) {
  TinyModel model(subject, 1);
  const Trace whole = model.run(chunks_of(0, TinyModel::kWhole));
  EXPECT(!whole.head[0].empty());
  for (const int64_t size : {1, 7, 32, 64, 100, 255, 257}) {
    expect_same(whole, model.run(chunks_of(0, size)), 0, "chunks of " + show(size));
  }
}

void bits_of_batches(const Subject& subject) {
  TinyModel model(subject, 1);
  std::vector<Trace> alone;
  for (size_t s = 0; s < 3; ++s) alone.push_back(model.run(chunks_of(s, TinyModel::kWhole)));
  Plan mixed;  // sequence 0 in tens, 1 one by one from its middle, 2 whole at once, 3 and 4 noise
  for (int64_t i = 0; i < 30; ++i) {
    mixed.push_back({{0, 10}, {3, 1 + i % 3}});
    if (i == 4) mixed.back().push_back({1, 290});
    if (i >= 20) mixed.back().push_back({1, 1});
    if (i == 7) mixed.back().insert(mixed.back().begin(), {2, 300});
    if (i % 5 == 0) mixed.back().insert(mixed.back().begin(), {4, 11});
  }
  const Trace batched = model.run(mixed);
  for (size_t s = 0; s < 3; ++s) {
    expect_same(alone[s], batched, s, "sequence " + show(s) + " in a batch");
  }
}

void bits_of_threads(const Subject& subject) {
  Plan plan = {{{0, 300}}, {{1, 5}, {2, 299}}, {{1, 294}, {2, 1}}, {{1, 1}}};
  TinyModel one(subject, 1);
  const Trace want = one.run(plan);
  for (const int64_t threads : {2, 3, 4}) {
    TinyModel many(subject, threads);
    const Trace got = many.run(plan);
    for (size_t s = 0; s < 3; ++s) expect_same(want, got, s, show(threads) + " workers");
  }
}

// Other processors may not reach the same bits, but the same one does, run after run.
void bits_of_runs(const Subject& subject) {
  TinyModel model(subject, 4);
  const Trace first = model.run(chunks_of(3, 150));
  expect_same(first, model.run(chunks_of(3, 150)), 3, "the second run");
}

// With an inaccessible page behind every buffer nothing changes: no kernel reads or writes past it.
void bits_with_guards(const Subject& subject) {
  TinyModel plain(subject, 2);
  const Plan plan = {{{0, 33}, {1, 1}}, {{0, 267}, {1, 1}}};
  const Trace want = plain.run(plan);
  set_buffer_guards(true);
  TinyModel guarded(subject, 2);
  set_buffer_guards(false);
  expect_same(want, guarded.run(plan), 0, "guarded buffers");
}

POLYLM_FOR_EACH_FAST(bits_with_guards)
POLYLM_FOR_EACH_FAST(bits_of_chunks)
POLYLM_FOR_EACH_FAST(bits_of_batches)
POLYLM_FOR_EACH_FAST(bits_of_threads)
POLYLM_FOR_EACH_FAST(bits_of_runs)

}  // namespace
}  // namespace polylm::test
