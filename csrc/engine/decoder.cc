// decoder.cc: which policy decodes a request. The policies are sample_decoder.cc and
// beam_decoder.cc; what may be asked of them is checked in check_params.cc.
#include "engine/decoder.h"

#include "engine/decode_context.h"
#include "platform/error.h"

namespace polylm {

void fail_not_finite(int64_t step) {
  fail(Code::kNumeric,
       "the logits of output token " + std::to_string(step) + " contain NaN or infinity");
}

void fail_no_token(const char* option, int64_t step) {
  fail(Code::kInvalidOption, std::string(option) + ": no token is left for output token " +
                                 std::to_string(step) + ", expected at least one");
}

std::unique_ptr<Decoder> make_decoder(const SamplingParams& params, std::vector<int32_t> prompt,
                                      int64_t max_tokens, int64_t vocab,
                                      std::shared_ptr<const Tokenizer> tokenizer) {
  POLYLM_CHECK(!prompt.empty());
  POLYLM_CHECK_LE(1, max_tokens);
  const auto width = static_cast<int64_t>(prompt.size());
  if (params.pad_to_length > 0 && params.pad_to_length < width) {
    fail(Code::kInvalidOption, "padTo: length " + std::to_string(params.pad_to_length) +
                                   " with a prompt of " + std::to_string(width) +
                                   " tokens, expected at least as many");
  }
  DecodeContext context;
  context.params = params;
  const int64_t pads = params.pad_to_length > 0 ? params.pad_to_length - width : 0;
  context.prefix.assign(static_cast<size_t>(pads), static_cast<int32_t>(params.pad_to_token));
  context.prefix.insert(context.prefix.end(), prompt.begin(), prompt.end());
  context.prompt = std::move(prompt);
  context.max_tokens = max_tokens;
  context.vocab = vocab;
  context.tokenizer = std::move(tokenizer);
  return params.num_beams > 1 ? make_beam_decoder(std::move(context))
                              : make_sample_decoder(std::move(context));
}

}  // namespace polylm
