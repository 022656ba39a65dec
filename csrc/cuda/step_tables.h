// step_tables.h: what a step needs of the host, laid out for one copy to the card: rows, tiles of
// prompt rows, block tables, and the tables of the rows whose logits are wanted. Host code without
// CUDA. Not here: the copy (cuda_step.cu), results (cuda_head.h).
// Trap: where things lie depends on the step's shape alone, so that a graph of one step serves
// every step of that shape. A step of generated rows is therefore filled up to a bucket.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace polylm {

// How large a step is: everything that decides sizes of launches and places of tables.
struct StepShape {
  int32_t rows = 0;
  int32_t generated = 0;
  int32_t tiles = 0;     // of prompt rows
  int32_t tables = 0;    // entries of all block tables
  int32_t segments = 0;  // of 256 keys, most of any generated row
  int32_t selects = 0;
  int32_t listed = 0;
  bool keeps = false;    // whether a row keeps its logits
  bool repeats = false;  // generated rows only, filled up to a bucket: worth a graph
  int32_t slot = 0;      // which page-locked buffers it is sent from and answers into

  bool operator==(const StepShape&) const = default;
};

// Bytes from the beginning of the upload.
struct TablePlaces {
  int64_t tiles = 0;
  int64_t tables = 0;
  int64_t wanted = 0;
  int64_t gather = 0;
  int64_t kept = 0;
  int64_t broken = 0;  // zeros
  int64_t listed = 0;
  int64_t end = 0;
};
TablePlaces places_of(const StepShape& shape);

// The shape of a step. `most_rows`: what its activations have room for.
StepShape shape_of(const StepInputs& in, const SelectRow* selects, int64_t select_count,
                   const StepLimits& limits, int64_t most_rows);
// Bytes that the upload of any step within these limits fits.
int64_t most_upload_bytes(const StepLimits& limits);
// Writes everything that places_of(shape) has a place for.
void fill_tables(const StepInputs& in, const SelectRow* selects, int64_t select_count,
                 const StepShape& shape, char* upload);

}  // namespace polylm
