// intake.h: turns a request as the caller made it into one that the engine can run: prompt parts
// joined into ids, length checked against the context, worst case counted in blocks. A function of
// its arguments; the thread that calls it is in engine.cc. Not here: the checks of options
// (check_params), which the caller has made. Throws INVALID_PROMPT, CONTEXT_OVERFLOW,
// INSUFFICIENT_MEMORY, INVALID_OPTION (positions), TOKENIZER_MISSING.
// Trap: the last token of a scored text is never computed, so a score may be one token longer than
// the context.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/scheduler.h"

namespace polylm {

class Tokenizer;

using Clock = std::chrono::steady_clock;

// Text of a prompt that truncate_left may cut: at most this times the context.
inline constexpr int64_t kPromptBytesPerToken = 64;

struct IntakeLimits {
  int64_t context_size = 0;
  int64_t vocab_size = 0;
  int64_t max_sequences = 0;
  int64_t block_tokens = 0;
  int64_t kv_blocks = 0;
  int64_t block_bytes = 0;  // of one block in all layers; for messages
};

// A request that will fit when others make room.
struct Work {
  Request request;           // its prompt is empty now
  std::vector<int32_t> ids;  // the prompt after truncation
  int64_t max_tokens = 0;    // limited to the room left; 0 for scoring
  int64_t truncated = 0;     // tokens cut off on the left
  int64_t prompt_rows = 0;   // rows to compute: all ids, or those whose logits are wanted
  Demand demand;
  std::vector<int64_t> positions;  // kLogits: as asked, each in [0, ids)
  std::vector<int64_t> kept;       // kLogits: the same, ascending and distinct
};

// The ids of a request's prompt parts, joined; unchecked. For callers that want them beforehand.
std::vector<int32_t> encode_prompt(const Request& request, const Tokenizer* tokenizer);

Work prepare_request(Request request, const IntakeLimits& limits, const Tokenizer* tokenizer);

// Hypotheses that a generate request may run at the same time; 1 for scoring.
int64_t request_width(const Request& request);

}  // namespace polylm
