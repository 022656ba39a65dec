// scoring.h: log-probabilities out of what select returns for one row, without the row. Not here:
// the processed distribution and sampling (decoder). Pure functions.
// Trap: the rest's sums leave the listed token out; it must be added, and it may be the maximum.
#pragma once

#include <cstdint>

#include "engine/request.h"
#include "ops/shapes.h"

namespace polylm {

// `row` is the result of a select row whose only listed token is `token`. Throws NUMERIC when the
// row is not finite. `top` is at most kCandidates.
ScoredToken score_row(const SelectResult& row, int32_t token, int64_t top);

}  // namespace polylm
