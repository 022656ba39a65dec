// request.h: what a caller asks of the engine and what comes back, as plain data. Checked where it
// is made (check_request in sampling.cc); after that the engine trusts it.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/error.h"

namespace polylm {

enum class EarlyStopping : uint8_t { kFalse, kTrue, kNever };
enum class BeamScoring : uint8_t { kHf455, kHf431 };

// Added to the logit of the last token of `tokens` when the sequence ends with the tokens before it
// (one token: always). -inf bans. Hugging Face's sequence_bias, bad_words_ids, suppress_tokens.
struct BiasRule {
  std::vector<int32_t> tokens;
  float value = 0.0F;
};

// A rule of one token.
struct TokenBias {
  int32_t id = 0;
  float value = 0.0F;
};

struct SamplingParams {
  // The scalars of sampling_params.def. kInt -> int64_t, kReal -> double, kBool -> bool.
#define ROW_kInt(name, value) int64_t name = value;
#define ROW_kReal(name, value) double name = value;
#define ROW_kBool(name, value) bool name = (value) != 0;
#define ROW(name, js_name, type, min, max, value, meaning) ROW_##type(name, value)
#include "engine/sampling_params.def"
#undef ROW
#undef ROW_kInt
#undef ROW_kReal
#undef ROW_kBool
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  BeamScoring beam_scoring = BeamScoring::kHf455;
  std::vector<std::string> stop;        // UTF-8, none empty
  std::vector<int32_t> stop_token_ids;  // distinct, in [0, V)
  std::vector<BiasRule> bias;
  std::vector<TokenBias> token_bias;  // more rules, compact: there may be one for each token
  std::vector<int32_t> allow_tokens;                // distinct; empty: everything
  std::vector<std::vector<int32_t>> allow_choices;  // token sequences of which one must come out

  bool has_bias() const { return !bias.empty() || !token_bias.empty(); }
};

// A part of a prompt: text (control tokens never recognised in it unless parse_special) or ids.
struct PromptPart {
  std::string text;              // UTF-8, used when ids is empty
  std::vector<int32_t> ids;      // verbatim
  bool is_control = false;       // ids are control tokens between texts (a template's markers)
  bool parse_special = false;
};

enum class RequestKind : uint8_t {
  kGenerate,
  kScore,   // log-probability of each token from score_from on, given those before it
  kLogits,  // full rows after the given positions
};

struct Request {
  RequestKind kind = RequestKind::kGenerate;
  std::vector<PromptPart> prompt;  // joined by the intake thread
  bool add_special_tokens = true;
  bool max_tokens_given = false;   // else max_tokens is limited to the room left
  bool truncate_left = false;      // onOverflow: keep the last context - max_tokens prompt tokens
  bool batch = false;              // nobody waits for it alone: interactive requests go first
  bool stream = false;             // wants kDelta events
  bool return_on_abort = false;    // cancel ends with a result, not with kFailed(ABORTED)
  int64_t queue_timeout_ms = -1;   // -1: none
  std::string cache_salt;          // beginnings are shared only within equal salts
  std::string caller;              // who takes turns with others where the salt does not say it
  SamplingParams params;
  int64_t score_from = 0;             // kScore: index of the first token that is scored, >= 1
  int64_t score_top = 0;              // kScore: alternatives listed with each token, 0..20
  std::vector<int64_t> logits_positions;  // kLogits: in the prompt; negative ones from its end
};

struct TokenAlternative {
  int32_t id = 0;
  float logprob = 0.0F;
};

// One token with its log-probability; [text_begin, text_end) are bytes of the output's text.
struct TokenInfo {
  int32_t id = 0;
  float logprob = 0.0F;
  int32_t text_begin = 0;
  int32_t text_end = 0;
  std::vector<TokenAlternative> top;
};

enum class FinishReason : uint8_t { kStop, kLength, kAbort };

struct OutputResult {
  std::string text;             // decode(prompt + tokens) without decode(prompt)
  std::vector<int32_t> tokens;  // ends with the stop token, if one stopped it
  double score = std::numeric_limits<double>::quiet_NaN();  // beams: sequences_scores
  FinishReason finish_reason = FinishReason::kLength;
  int32_t stopped_by_token = -1;
  int32_t stopped_by_string = -1;   // index in params.stop
  std::vector<TokenInfo> logprobs;  // one per token, when asked for
};

struct ScoredToken {
  TokenInfo token;
  bool is_greedy = false;  // the token is the argmax of its row
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t truncated_tokens = 0;
};

struct Timings {  // milliseconds of the monotonic clock
  double queue_ms = 0;
  double prefill_ms = 0;
  double time_to_first_token_ms = 0;
  double decode_ms = 0;
};

struct RequestResult {
  std::vector<OutputResult> outputs;  // best first
  std::vector<ScoredToken> scored;    // kScore
  std::vector<int32_t> prompt_ids;    // kScore: the ids that were scored
  std::vector<float> logits;          // kLogits: [positions, V]
  int64_t logits_rows = 0;
  Usage usage;
  Timings timings;
  uint64_t seed = 0;
};

enum class EventKind : uint8_t {
  kAdmitted,  // options valid, length checked, in the queue
  kPrefill,   // done of total prompt tokens are computed
  kDelta,     // new certain text and tokens of one output
  kFinished,  // result
  kFailed,    // error
};

struct Event {
  uint64_t request = 0;
  EventKind kind = EventKind::kAdmitted;
  int64_t done = 0;
  int64_t total = 0;
  int32_t output = 0;
  std::string text;
  std::vector<TokenInfo> tokens;
  std::shared_ptr<RequestResult> result;
  std::optional<Error> error;
};

}  // namespace polylm
