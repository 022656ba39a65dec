// draw.h: tokens by inverse CDF. The order of the CDF is fixed, so that one uniform number always
// means one token: the entries of a row by rank, then (where nothing cut it off) the tail by id, in
// blocks of kSumTokens. The tail is walked only when the number falls into it.
// Not here: where the numbers come from (platform/philox.h), which tokens remain (warpers.h).
// Trap: weights are relative to the row's own mass; a full row is fetched only in draw_tail.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/decoder.h"
#include "engine/score_row.h"

namespace polylm {

// The entry that the number u in [0, 1) means. vocab: length of a full row. `full_index` is the
// row's index for FullRows, asked only when u falls into the tail.
Entry draw(ScoreRow* row, double u, int64_t vocab, FullRows& full, int64_t full_index);

// A drawn token of one of several rows.
struct DrawnEntry {
  int32_t row = 0;
  Entry entry;
};

// Draws without replacement from the rows together, each weighted by its scores as they are, in the
// order of the rows. Entries drawn are erased from their rows. Where all that is left has no weight
// beside what was drawn (exp of the difference is 0), weights are taken relative to the best of it.
class RowsDraw {
 public:
  void reserve(int64_t rows) { mass_.reserve(static_cast<size_t>(rows)); }
  // full_index[i]: index of rows[i] for FullRows.
  void start(std::vector<ScoreRow>* rows, int64_t count, const std::vector<int64_t>* full_index,
             int64_t vocab);
  // False when nothing is left.
  bool next(double u, FullRows& full, DrawnEntry* out);

 private:
  bool weigh();
  bool take(size_t at, double target, FullRows& full, Entry* out);

  std::vector<ScoreRow>* rows_ = nullptr;
  const std::vector<int64_t>* full_index_ = nullptr;
  int64_t count_ = 0;
  int64_t vocab_ = 0;
  double log_z_ = 0.0;
  std::vector<double> mass_;  // of each row, relative to exp(log_z_)
};

}  // namespace polylm
