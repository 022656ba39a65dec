// select_head.h: the LM head and the first half of sampling on the CPU. Workers take
// vocabulary blocks of 1,024 tokens; a block's logits live in cache, are reduced there and never
// stored, except for rows that keep theirs. Sums are folded in block order and ties go to the lower
// id, so the result does not depend on the number of workers. Not here: which token wins (engine).
#pragma once

#include <vector>

#include "cpu/context.h"
#include "ops/ops.h"
#include "platform/buffer.h"

namespace polylm {

class SelectHead {
 public:
  explicit SelectHead(const CpuContext& context) : context_(context) {}

  // Room for steps of these limits and rows of `input_cols` numbers at most. Load time.
  void reserve(const StepLimits& limits, int64_t input_cols);
  // h: inputs of the step; results() is valid until the next clear().
  void run(const SelectRow* rows, int64_t row_count, const PackedMatrix& w, const char* h,
           int64_t h_stride);
  void clear() { results_.clear(); }
  const std::vector<SelectResult>& results() const { return results_; }
  const float* full_row(int64_t index) const;
  int64_t size_bytes() const;

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  struct Listed {
    int32_t token;
    int32_t place;  // in listed_logits_
  };
  struct RowState;  // what one worker knows of one row
  struct Scratch;   // of one worker

  // Rows [first_row, first_row + rows) whose logits of a block are in cache at once.
  struct Group {
    int64_t first_row = 0;
    int64_t rows = 0;
  };

  static bool better(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
  void prepare_rows(const SelectRow* rows, int64_t row_count);
  void gather_rows(const SelectRow* rows, int64_t row_count, const PackedMatrix& w, const char* h,
                   int64_t h_stride);
  void reduce_group(const SelectRow* rows, Group g, const PackedMatrix& w, SharedWork* blocks,
                    int64_t worker);
  void reduce_block(const SelectRow& wanted, int64_t index, int64_t block, float* logits,
                    int64_t count, RowState* state, Scratch* s);
  static void keep_best(RowState* state);
  void merge_row(const SelectRow& wanted, int64_t index, int64_t workers, Scratch* s);

  Scratch* scratch_of(int64_t worker) const;

  const CpuContext& context_;
  StepLimits limits_;
  int64_t block_count_ = 0;
  int64_t x_stride_ = 0;

  Buffer x_;               // [select_rows, x_stride]: the chosen rows as w's product wants them
  Buffer scratch_;         // Scratch [workers]
  Buffer sums_;            // BlockSums [select_rows, block_count]
  Buffer tops_;            // Candidate [workers, select_rows, kCandidates]
  Buffer top_counts_;      // int32 [workers, select_rows], -1: a logit was not finite
  Buffer listed_;          // Listed [listed], sorted by token within a row
  Buffer listed_begin_;    // int64 [select_rows + 1]
  Buffer listed_logits_;   // float [listed]
  Buffer candidate_ids_;   // int32 [select_rows, kCandidates]
  Buffer candidate_logits_;  // float, the same
  Buffer full_;            // float [full_rows, V], touched by rows that keep theirs
  Buffer full_index_;      // int32 [select_rows], -1: not kept
  std::vector<SelectResult> results_;
};

}  // namespace polylm
