// odd_requests.h: random requests that try every decoding option over its whole range and a little
// beyond: denormals, numbers whose float is 0 or infinite, bounds and their neighbours, sums of
// biases, all modes. For the sweep.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "sim_reference.h"

namespace polylm::test {

// `text`: with stop strings. Most, not all, pass check_params.
SamplingParams odd_params(Rng& rng, int64_t vocab, const std::vector<int32_t>& prompt, bool text);
// A request with them, or one that scores or wants logits.
Request odd_request(Rng& rng, int64_t vocab, bool text);

}  // namespace polylm::test
