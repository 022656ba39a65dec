// cuda_rig.h: a layer and a head on the CUDA device, driven with sequences whose rows have roles;
// what the tests that are particular to that device share.
#pragma once

#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "ops_rig.h"

namespace polylm::test {

// A layer and a head, driven with sequences whose rows have roles.
class Stack {
 public:
  static constexpr int64_t kHeads = 2, kHeadSize = 40, kHidden = kHeads * kHeadSize, kInner = 200;
  static constexpr int64_t kVocab = 1500, kContext = 608, kRows = 320, kSequences = 3;
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

  // The residual stream of all rows after one step; pieces of generated rows come first. The last
  // row of every piece is selected, with `listed` listed tokens, and keeps its logits.
  std::vector<float> step(const std::vector<Piece>& pieces, int64_t listed = 0) {
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
    std::vector<int32_t> list;
    for (int64_t i = 0; i < listed; ++i) list.push_back(static_cast<int32_t>(i * 37 % kVocab));
    std::vector<SelectRow> selects;
    for (const SequenceRows& s : sequences) {
      selects.push_back({.row = s.first_row + s.row_count - 1, .listed = list.data(),
                         .listed_count = listed, .temperature = 0.7F, .keep_full = true});
    }
    start(in, selects);
    take_answers(ops_->collect(), listed);
    std::vector<float> out(static_cast<size_t>(in.rows * kHidden));
    ops_->read_act(x_, in.rows, out.data());
    return out;
  }

  void start(const StepInputs& in, const std::vector<SelectRow>& selects) {
    ops_->begin(in);
    ops_->embed({wte_, Weight{}, x_});
    ops_->norm({x_, norm_, norm_, 1e-5F, h_});
    ops_->qkv({h_, qkv_, Vector{}, kv_, 0, 0.158F, q_});
    ops_->attend({q_, kv_, 0, a_});
    ops_->linear({a_, up_, Vector{}, Epilogue::kGeluTanh, f_});
    ops_->linear({f_, down_, Vector{}, Epilogue::kAdd, x_});
    ops_->select({h_, wte_, selects.data(), static_cast<int64_t>(selects.size())});
    ops_->submit();
  }
  Ops& ops() { return *ops_; }
  int64_t blocks_each() const { return each_; }
  // Everything that the last step's select gave, per piece.
  const std::vector<std::vector<double>>& answers() const { return answers_; }

 private:
  void take_answers(const std::vector<SelectResult>& results, int64_t listed) {
    answers_.clear();
    for (size_t i = 0; i < results.size(); ++i) {
      const SelectResult& r = results[i];
      EXPECT(r.finite);
      std::vector<double> all = {static_cast<double>(r.rest_max), r.rest_sum_exp,
                                 r.rest_sum_exp_tempered};
      for (int64_t j = 0; j < listed; ++j) all.push_back(static_cast<double>(r.listed_logits[j]));
      for (int64_t j = 0; j < r.candidate_count; ++j) {
        all.push_back(static_cast<double>(r.candidate_ids[j]));
        all.push_back(static_cast<double>(r.candidate_logits[j]));
      }
      const float* full = ops_->full_row(static_cast<int64_t>(i));
      all.insert(all.end(), full, full + kVocab);
      answers_.push_back(std::move(all));
    }
  }
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
  std::vector<std::vector<double>> answers_;
};

// Greedy decoding on a Stack: every step has one row of each of some sequences, in any order, whose
// tokens come from the host or from the step in flight.
class Greedy {
 public:
  explicit Greedy(Stack* stack) : stack_(stack) {
    stack->step({{0, 0, 250, false}, {1, 0, 40, false}, {2, 0, 7, false}});
    for (int64_t s = 0; s < Stack::kSequences; ++s) next_[s] = {s == 0 ? 250 : s == 1 ? 40 : 7, 5};
  }

  // Starts a step of these sequences. `fed`: all were in the step before, which is in flight.
  void submit(const std::vector<int64_t>& sequences, bool fed) {
    Step& step = steps_.emplace_back();
    step.sequences = sequences;
    for (const int64_t s : sequences) {
      const auto row = static_cast<int64_t>(step.rows.size());
      step.tables.push_back({});
      for (int64_t b = 0; b < stack_->blocks_each(); ++b) {
        step.tables.back().push_back(static_cast<int32_t>(b * Stack::kSequences + s));
      }
      step.rows.push_back({row, 1, next_[s].position++, step.tables.back().data(),
                           stack_->blocks_each()});
      step.tokens.push_back(next_[s].token);
      step.selects.push_back({.row = row, .temperature = 0.7F});
      if (fed) step.sources.push_back(place_in_last_[s]);
    }
    for (size_t i = 0; i < sequences.size(); ++i) {
      place_in_last_[sequences[i]] = static_cast<int32_t>(i);
    }
    const auto count = static_cast<int64_t>(sequences.size());
    stack_->start({count, count, fed ? nullptr : step.tokens.data(), step.rows.data(), count,
                   fed ? step.sources.data() : nullptr}, step.selects);
  }
  // Everything that the oldest step in flight gave, in order of the sequences' numbers.
  std::vector<double> collect() {
    const std::vector<SelectResult>& results = stack_->ops().collect();
    const Step& step = steps_[collected_++];
    std::vector<double> all;
    for (int64_t s = 0; s < Stack::kSequences; ++s) {
      for (size_t i = 0; i < step.sequences.size(); ++i) {
        if (step.sequences[i] != s) continue;
        const SelectResult& r = results.at(i);
        EXPECT_EQ(r.candidate_count, kCandidates);
        next_[s].token = r.candidate_ids[0];
        all.insert(all.end(), {static_cast<double>(r.rest_max), r.rest_sum_exp});
        all.insert(all.end(), r.candidate_ids, r.candidate_ids + r.candidate_count);
        all.insert(all.end(), r.candidate_logits, r.candidate_logits + r.candidate_count);
      }
    }
    return all;
  }

 private:
  struct Step {
    std::vector<int64_t> sequences;
    std::vector<std::vector<int32_t>> tables;
    std::vector<SequenceRows> rows;
    std::vector<int32_t> tokens, sources;
    std::vector<SelectRow> selects;
  };
  struct Next {
    int64_t position = 0;
    int32_t token = 0;
  };
  Stack* stack_;
  std::deque<Step> steps_;
  size_t collected_ = 0;
  Next next_[Stack::kSequences];
  int32_t place_in_last_[Stack::kSequences] = {};
};

// Rows [first, first + count) of `all` have the bits of `want`.
inline void expect_rows(const std::vector<float>& all, int64_t first,
                        const std::vector<float>& want, const std::string& what) {
  const float* at = all.data() + first * Stack::kHidden;
  if (std::memcmp(at, want.data(), want.size() * sizeof(float)) != 0) {
    report_failure(__FILE__, __LINE__, what + ": other bits than alone");
  }
}

}  // namespace polylm::test
