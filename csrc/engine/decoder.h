// decoder.h: the decoding policy of one generate request: greedy, sampling with n outputs, or beam
// search. Knows tokens, scores and text; knows nothing of blocks, steps or other requests. The
// engine asks what select must deliver, feeds the results, and follows the transitions.
// Engine thread only. Trap: the first advance gets one row (the prompt's last), whatever the width.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/request.h"
#include "ops/shapes.h"

namespace polylm {

class Tokenizer;

// One running hypothesis after a step: continues `parent` (an index among the hypotheses before the
// step) with `token`.
struct Transition {
  int32_t parent = 0;
  int32_t token = 0;
};

// New text and tokens of one output that can no longer change.
struct OutputDelta {
  int32_t output = 0;
  std::string text;
  std::vector<TokenInfo> tokens;
};

// What select must deliver for one running hypothesis. `listed` is appended to a buffer of the
// engine's, reserved at admission: at most max(prompt, padTo) + max_tokens + 1,024 (bias) + 1,024
// (allow, choices) + the stop ids, and never more than V. With more bias rules, or more allowed
// tokens, nothing is listed and the full row is kept.
struct SelectNeeds {
  float temperature = 1.0F;
  bool keep_full = false;
};

// Gives the full row of the i-th row passed to advance, when its SelectNeeds asked to keep it.
class FullRows {
 public:
  virtual const float* row(int64_t index) = 0;  // [V]

 protected:
  ~FullRows() = default;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Hypotheses that can run at the same time: 1, n, or num_beams. Never grows.
  virtual int64_t width_max() const = 0;
  // Hypotheses running now, i.e. rows of the next step; 0 when done, 1 before the first advance.
  virtual int64_t width() const = 0;
  // Appends to `listed` the tokens whose raw logits the next advance needs for hypothesis h.
  virtual SelectNeeds needs(int64_t h, std::vector<int32_t>* listed) = 0;
  // rows[0, width()): the results, in order of the running hypotheses; listed[h] as needs gave it.
  // Fills `next` (cleared first) with the hypotheses that run on. Throws NUMERIC for NaN logits.
  virtual void advance(const SelectResult* rows, const std::vector<int32_t>* listed,
                       FullRows& full, std::vector<Transition>* next) = 0;
  // What has become certain since the last call, at most one entry per output: a token comes with
  // the text that it completes (text may be held back for a character or a stop string; its tokens
  // then wait too). With beams only output 0, as far as all running hypotheses and the best
  // finished one agree. Once width() is 0, or after finish, one more drain gives all that is left:
  // the deltas of an output joined are exactly its text and its tokens.
  virtual void drain(std::vector<OutputDelta>* out) = 0;
  // Speculation: guesses at most `most` tokens that come next. Where there are any, exactly one
  // hypothesis runs; until the next advance needs(h) means the row after h of them, and advance
  // takes 1 + so many rows: it follows the guesses while it would have chosen the same, and `next`
  // says what comes behind the accepted() ones. Asked again before, it forgets the guesses.
  virtual void draft(int64_t /*most*/, std::vector<int32_t>* out) { out->clear(); }
  // Whether the token after every generated row is its best candidate, whatever came before: then
  // nothing but the end is left to decide here, needs says the same of every row and lists nothing,
  // and it may be asked for rows whose tokens are not known yet. One hypothesis.
  virtual bool feeds_back() const { return false; }
  // Guesses that the last advance found right.
  virtual int64_t accepted() const { return 0; }
  // The outputs, best first, at most n. Called once: when width() is 0, or to stop early with
  // reason kAbort (then the best running ones are returned as they are).
  virtual std::vector<OutputResult> finish(bool aborted) = 0;
};

// `tokenizer` may be null (ids in, ids out; params.stop must then be empty). `prompt` are the ids
// after truncation; `max_tokens` is params.max_tokens after limiting to the room left; vocab is V.
std::unique_ptr<Decoder> make_decoder(const SamplingParams& params, std::vector<int32_t> prompt,
                                      int64_t max_tokens, int64_t vocab,
                                      std::shared_ptr<const Tokenizer> tokenizer);

// Throws INVALID_OPTION for anything contradictory or out of range for this vocabulary, context and
// number of sequences; the message starts with the option's public name and a colon.
void check_params(const SamplingParams& params, int64_t vocab, int64_t context,
                  int64_t max_sequences, bool has_tokenizer);

// Names of the processors in the order they run, and of the given options that have no effect.
struct Explanation {
  std::vector<std::string> processors;
  std::vector<std::string> inert;
};
Explanation explain(const SamplingParams& params);

}  // namespace polylm
