// sim_reference.h: what a request must give on the simulated device, computed without an engine: no
// batch, no blocks, no scheduler, just the decoder and the hash of each hypothesis' own history.
// And random requests to try. For tests of the engine.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>

#include "engine/engine.h"
#include "engine/intake.h"
#include "engine/request.h"
#include "sim_ops.h"

namespace polylm::test {

using Rng = std::mt19937_64;
int64_t pick(Rng& rng, int64_t least, int64_t most);  // both included
bool chance(Rng& rng, double probability);

struct Outcome {
  std::optional<Code> error;
  RequestResult result;
};

Outcome sim_reference(const SimOptions& options, const Work& work,
                      std::shared_ptr<const Tokenizer> tokenizer);

// What differs, "" when nothing does. Times are not compared.
std::string difference(const Outcome& expected, const Event& last);
// The same for a request that was cancelled with return_on_abort: what came must be a beginning.
std::string abort_difference(const Outcome& expected, const Request& request, const Event& last);

struct RequestMix {
  int64_t most_prompt = 40;
  int64_t most_tokens = 24;
  int64_t most_width = 6;
  bool text = false;  // stop strings
  bool alike = false;  // many prompts begin alike
  double plain = 0.0;  // so many are greedy and nothing else
};
Request random_request(Rng& rng, const SimOptions& options, const RequestMix& mix);

IntakeLimits sim_intake_limits(const SimOptions& options, const EngineOptions& engine);

// A tokenizer whose ids are those of the simulated vocabulary.
std::shared_ptr<const Tokenizer> sim_tokenizer(int64_t vocab);

}  // namespace polylm::test
