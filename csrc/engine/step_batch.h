// step_batch.h: the buffers of one step: rows, sequences, selects and copies, all reserved once,
// and handed to the model as StepInputs and SelectRows. Not here: which rows (scheduler.h) or what
// becomes of them (step.cc).
// Trap: rows of generated tokens must all be added before the first row of a prompt. Rows of tokens
// that are being chosen (add_next) are alone in their step.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/decoder.h"
#include "engine/sequence.h"
#include "model/model.h"
#include "ops/shapes.h"

namespace polylm {

// Listed tokens that one generated row may have, beyond those of the context.
inline constexpr int64_t kExtraListed = 4096;

class StepBatch {
 public:
  // The capacity of a step: what the model reserves, and these buffers.
  StepBatch(const StepLimits& limits, int64_t max_sequences);

  void clear();
  // Asks the decoder what it needs of its next rows, and checks it. Throws LIMIT. Nothing is added
  // when it throws.
  void ask(Decoder& decoder, int64_t width);
  // Positions [computed, end) of a sequence.
  void add_rows(Sequence& sequence, int64_t end, Role role);
  // The row behind the last token of a sequence: its token is the best candidate of select `source`
  // of the step in flight.
  void add_next(Sequence& sequence, int64_t source);
  // The row that was added last but `back`, with what hypothesis h of the last ask needs.
  void add_select(int64_t h, int64_t back = 0);
  // The row of this step, with one listed token or none.
  void add_score(int64_t row, int32_t listed);
  void add_kept(int64_t row);

  int64_t rows() const { return static_cast<int64_t>(tokens_.size() + sources_.size()); }
  int64_t select_count() const { return static_cast<int64_t>(selects_.size()); }
  int64_t asked_first() const { return asked_first_; }
  // The listed tokens of the asked rows, from index asked_first of that time on.
  const std::vector<int32_t>* listed(int64_t first) const {
    return &listed_[static_cast<size_t>(first)];
  }
  StepInputs inputs() const;
  SelectRows selects() const;
  const std::vector<BlockCopy>& copies() const { return copies_; }

 private:
  void add_sequence(Sequence& sequence, int64_t begin, int64_t end);

  int64_t vocab_;
  int64_t listed_per_row_;
  int64_t generated_rows_ = 0;
  int64_t asked_first_ = 0;  // of the last ask
  int64_t asked_count_ = 0;  // of all
  std::vector<int32_t> tokens_;             // [T], or
  std::vector<int32_t> sources_;            // [T]
  std::vector<SequenceRows> sequences_;     // [S]
  std::vector<SelectRow> selects_;          // [R]
  std::vector<BlockCopy> copies_;           // [S]
  std::vector<std::vector<int32_t>> listed_;  // [max_sequences], of asked rows
  std::vector<SelectNeeds> needs_;            // [max_sequences]
  std::vector<int32_t> scored_;               // [kScoreRows], the listed token of scored rows
};

// Capacity for an engine of this size.
struct EngineOptions;
StepLimits step_limits(const EngineOptions& options, int64_t vocab);

}  // namespace polylm
