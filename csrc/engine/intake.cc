// intake.cc: joining, checking and cutting of prompts. Runs on the intake thread, so a long prompt
// delays no step.
#include "engine/intake.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "platform/checked.h"
#include "platform/error.h"
#include "text/tokenizer.h"

namespace polylm {
namespace {

int64_t count_of(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

[[noreturn]] void invalid_prompt(const char* reason, const std::string& message,
                                 std::string hint = "") {
  fail(Code::kInvalidPrompt, message, std::move(hint), {{"reason", std::string(reason)}});
}

[[noreturn]] void overflow(int64_t prompt, int64_t max_tokens, const IntakeLimits& limits) {
  fail(Code::kContextOverflow,
       "promptTokens " + std::to_string(prompt) + " and maxTokens " + std::to_string(max_tokens) +
           " exceed contextSize " + std::to_string(limits.context_size),
       "shorten the prompt, lower maxTokens, or set onOverflow to 'truncateLeft'",
       {{"promptTokens", prompt},
        {"maxTokens", max_tokens},
        {"contextSize", limits.context_size}});
}

// Text that can never fit is refused before it is encoded: as lib/prompt.ts does, but in bytes.
void check_text_size(const Request& request, const IntakeLimits& limits,
                     const Tokenizer* tokenizer) {
  int64_t bytes = 0;
  for (const PromptPart& part : request.prompt) {
    bytes = checked_add(bytes, static_cast<int64_t>(part.text.size()));
  }
  if (bytes == 0) return;
  const int64_t per_token =
      tokenizer == nullptr ? kPromptBytesPerToken : tokenizer->bytes_per_token();
  const int64_t fitting = checked_mul(per_token, limits.context_size + 2);
  const int64_t cut = checked_mul(kPromptBytesPerToken, limits.context_size);
  const int64_t most = request.truncate_left ? std::max(fitting, cut) : fitting;
  if (bytes <= most) return;
  if (!request.truncate_left) {
    const int64_t max_tokens =
        request.kind == RequestKind::kGenerate ? request.params.max_tokens : 0;
    overflow((bytes + per_token - 1) / per_token, max_tokens, limits);
  }
  invalid_prompt("too long",
                 "the prompt has " + std::to_string(bytes) + " bytes of text, at most " +
                     std::to_string(most) + " are cut to a context of " +
                     std::to_string(limits.context_size) + " tokens");
}

[[noreturn]] void no_tokenizer() {
  fail(Code::kTokenizerMissing, "the prompt is text, but the model has no tokenizer",
       "give token ids, or put tokenizer.model beside config.json");
}

// Several parts: bos before the first and eos after the last, where the checkpoint asks for them; a
// text behind another part is encoded as the tail of a longer text.
std::vector<int32_t> join_parts(const Request& request, const Tokenizer* tokenizer) {
  std::vector<int32_t> ids;
  bool at_start = true;
  for (const PromptPart& part : request.prompt) {
    if (part.ids.empty() && !part.text.empty()) {
      if (tokenizer == nullptr) no_tokenizer();
      const std::vector<int32_t> more = tokenizer->encode(
          part.text, {.add_special_tokens = false, .parse_special = part.parse_special,
                      .at_start = at_start});
      ids.insert(ids.end(), more.begin(), more.end());
    }
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    at_start = at_start && part.ids.empty() && part.text.empty();
  }
  if (!request.add_special_tokens || tokenizer == nullptr) return ids;
  const std::vector<int32_t> special =
      tokenizer->encode("", {.add_special_tokens = true, .at_start = false});
  for (const int32_t id : special) {
    const bool first = &id == special.data() && id == tokenizer->bos_id();
    ids.insert(first ? ids.begin() : ids.end(), id);
  }
  return ids;
}

std::vector<int32_t> join_prompt(const Request& request, const Tokenizer* tokenizer) {
  const std::vector<PromptPart>& parts = request.prompt;
  if (parts.size() != 1) return join_parts(request, tokenizer);
  if (!parts[0].ids.empty()) return parts[0].ids;
  if (tokenizer == nullptr) no_tokenizer();
  return tokenizer->encode(parts[0].text, {.add_special_tokens = request.add_special_tokens,
                                           .parse_special = parts[0].parse_special});
}

// A tokenizer may have added tokens that the model has no row for.
std::string beyond_hint(const Tokenizer* tokenizer, int32_t id) {
  const std::string_view piece = tokenizer == nullptr ? "" : tokenizer->piece(id);
  if (piece.empty()) return "";
  return "it is the tokenizer's token " + quoted(piece) +
         ", which the model does not have; with parseSpecial false it is read as ordinary text";
}

void check_ids(const std::vector<int32_t>& ids, const IntakeLimits& limits,
               const Tokenizer* tokenizer) {
  if (ids.empty()) {
    invalid_prompt("empty", "the prompt has no tokens",
                   "without a bos token an empty text cannot be continued");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < limits.vocab_size) continue;
    fail(Code::kInvalidPrompt,
         "token " + std::to_string(i) + " of the prompt is " + std::to_string(ids[i]) +
             ", expected 0 to " + std::to_string(limits.vocab_size - 1),
         beyond_hint(tokenizer, ids[i]),
         {{"reason", std::string("token out of range")}, {"index", static_cast<int64_t>(i)}});
  }
}

// Cuts the prompt to at most `most` tokens, or throws.
void cut_left(Work* work, int64_t most, const IntakeLimits& limits) {
  const int64_t excess = count_of(work->ids) - most;
  if (excess <= 0) return;
  if (!work->request.truncate_left || most <= 0) {
    overflow(count_of(work->ids), work->max_tokens, limits);
  }
  work->ids.erase(work->ids.begin(), work->ids.begin() + excess);
  work->truncated = excess;
}

void fit_generate(Work* work, const IntakeLimits& limits) {
  work->max_tokens = work->request.params.max_tokens;
  const int64_t room = limits.context_size - count_of(work->ids);
  if (!work->request.max_tokens_given && room > 0) {
    work->max_tokens = std::min(work->max_tokens, room);
  }
  cut_left(work, limits.context_size - work->max_tokens, limits);
  work->prompt_rows = count_of(work->ids);
}

void fit_score(Work* work, const IntakeLimits& limits) {
  int64_t& from = work->request.score_from;
  const int64_t given = count_of(work->ids);
  if (from < 1 || from > given) {
    fail(Code::kInvalidOption,
         "scoreFrom: " + std::to_string(from) + " is not between 1 and the prompt's " +
             std::to_string(given) + " tokens");
  }
  cut_left(work, limits.context_size + 1, limits);
  if (from - work->truncated < 1) overflow(given, 0, limits);  // it would cut scored tokens
  from -= work->truncated;
  work->prompt_rows = from == count_of(work->ids) ? 0 : count_of(work->ids) - 1;
}

void fit_logits(Work* work, const IntakeLimits& limits) {
  const int64_t given = count_of(work->ids);
  cut_left(work, limits.context_size, limits);
  work->positions = work->request.logits_positions;
  for (int64_t& position : work->positions) {
    const int64_t asked = position;
    if (position < 0) position += given;  // counts from the end
    position -= work->truncated;
    if (position >= 0 && position < count_of(work->ids)) continue;
    fail(Code::kInvalidOption, "positions: " + std::to_string(asked) +
                                   " is not a position of the prompt's " +
                                   std::to_string(given) + " tokens, of which the first " +
                                   std::to_string(work->truncated) + " were cut off");
  }
  work->kept = work->positions;
  std::sort(work->kept.begin(), work->kept.end());
  work->kept.erase(std::unique(work->kept.begin(), work->kept.end()), work->kept.end());
  work->prompt_rows = work->kept.empty() ? 0 : work->kept.back() + 1;
}

void check_fits_memory(const Work& work, const IntakeLimits& limits) {
  if (work.demand.rows > limits.max_sequences) {
    const std::string name = work.request.params.num_beams > 1 ? "numBeams" : "n";
    fail(Code::kInvalidOption, name + ": " + std::to_string(work.demand.rows) +
                                   " is more than maxSequences " +
                                   std::to_string(limits.max_sequences));
  }
  if (work.demand.blocks <= limits.kv_blocks) return;
  const bool many = work.demand.rows > 1;
  const std::string suggestions =
      many ? "shorten the prompt, lower maxTokens, numBeams or n, or raise kvMemory"
           : "shorten the prompt, lower maxTokens, or raise kvMemory";
  fail(Code::kInsufficientMemory,
       "the request may need " + std::to_string(work.demand.blocks * limits.block_tokens) +
           " tokens of KV cache, the model has " +
           std::to_string(limits.kv_blocks * limits.block_tokens),
       suggestions,
       {{"required", checked_mul(work.demand.blocks, limits.block_bytes)},
        {"available", checked_mul(limits.kv_blocks, limits.block_bytes)},
        // One a line; the binding's other side makes a list of them.
        {"suggestions", std::string("a shorter prompt\na lower maxTokens\n") +
                            (many ? "a lower numBeams or n\n" : "") + "a larger kvMemory"}});
}

}  // namespace

std::vector<int32_t> encode_prompt(const Request& request, const Tokenizer* tokenizer) {
  return join_prompt(request, tokenizer);
}

int64_t request_width(const Request& request) {
  if (request.kind != RequestKind::kGenerate) return 1;
  const SamplingParams& params = request.params;
  return params.num_beams > 1 ? params.num_beams : params.n;
}

Work prepare_request(Request request, const IntakeLimits& limits, const Tokenizer* tokenizer) {
  Work work;
  check_text_size(request, limits, tokenizer);
  work.ids = join_prompt(request, tokenizer);
  check_ids(work.ids, limits, tokenizer);
  work.request = std::move(request);
  work.request.prompt = {};
  switch (work.request.kind) {
    case RequestKind::kGenerate:
      fit_generate(&work, limits);
      break;
    case RequestKind::kScore:
      fit_score(&work, limits);
      break;
    case RequestKind::kLogits:
      fit_logits(&work, limits);
      break;
  }
  work.demand.rows = request_width(work.request);
  work.demand.blocks = blocks_for_request(work.prompt_rows, work.max_tokens, work.demand.rows,
                                          limits.block_tokens);
  check_fits_memory(work, limits);
  return work;
}

}  // namespace polylm
