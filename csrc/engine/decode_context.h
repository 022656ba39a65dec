// decode_context.h: what every decoding policy of a request starts from. Plain data.
// Trap: `prefix` (pads + prompt) is what processors and lengths see, `prompt` what text continues.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/decoder.h"

namespace polylm {

struct DecodeContext {
  SamplingParams params;
  std::vector<int32_t> prompt;
  std::vector<int32_t> prefix;
  int64_t max_tokens = 0;
  int64_t vocab = 0;
  std::shared_ptr<const Tokenizer> tokenizer;  // may be null

  int64_t prefix_width() const { return static_cast<int64_t>(prefix.size()); }
  bool sampling() const { return params.temperature > 0.0; }
};

std::unique_ptr<Decoder> make_sample_decoder(DecodeContext context);  // greedy too
std::unique_ptr<Decoder> make_beam_decoder(DecodeContext context);

// A row's logits are unusable, or the options leave no token for output token `step`.
[[noreturn]] void fail_not_finite(int64_t step);
[[noreturn]] void fail_no_token(const char* option, int64_t step);

}  // namespace polylm
