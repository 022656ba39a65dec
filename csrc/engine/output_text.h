// output_text.h: the text of one output while its tokens come in: incremental decoding, stop
// strings, and which bytes belong to which token. Not here: stop token ids (the decoders).
// Trap: `text` grows only by what is certain; `decoded` may be ahead of it by what is held back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/decoder.h"
#include "engine/request.h"
#include "text/stop_matcher.h"
#include "text/stream_decoder.h"
#include "text/token_stops.h"

namespace polylm {

class Tokenizer;

// A value: copying it forks the text.
class OutputText {
 public:
  // Text that continues `prompt`. tokenizer may be null: no text, all ranges empty.
  OutputText(const SamplingParams& params, const std::vector<int32_t>& prompt,
             std::shared_ptr<const Tokenizer> tokenizer);

  // Appends a token and sets its range in the text (bytes; it may grow or shrink at the end, see
  // clamp). True when it completed a stop string.
  bool push(int32_t id, TokenInfo* info);
  // A token that ends the output and does not show.
  void push_silent(TokenInfo* info);
  // No more tokens: releases what was held back.
  void finish();
  // Ranges of the finished text: cut where a stop string cut it, the last shown token extended to
  // what finish released.
  void clamp(std::vector<TokenInfo>* tokens) const;

  // Room for the text of so many tokens of usual length.
  void reserve(int64_t tokens);
  const std::string& text() const { return text_; }
  int32_t stop() const { return stop_; }  // index in params.stop, or -1

 private:
  void start_token_stops(const std::vector<int32_t>& prompt,
                         const std::shared_ptr<const Tokenizer>& tokenizer);
  void feed();

  const SamplingParams* params_;
  std::optional<StreamDecoder> decoder_;
  StopMatcher matcher_;
  std::optional<TokenStops> token_stops_;  // in place of matcher_; they cut nothing off
  std::string text_;
  std::string bytes_;  // of one token
  int32_t decoded_bytes_ = 0;
  bool silent_ = false;  // the last token does not show
  bool finished_ = false;
  int32_t stop_ = -1;
};

// The tokens of one output with their text, and how much of both drain has given away.
class OutputTrack {
 public:
  // Makes room for all that will be pushed: max_tokens tokens, each with `top` alternatives.
  OutputTrack(OutputText start, int64_t max_tokens, int64_t top);

  // Appends a token; silent: a stop id, which shows no text. True when a stop string is complete.
  bool push(const TokenInfo& info, bool silent) {
    return push(info.id, info.logprob, info.top, silent);
  }
  bool push(int32_t id, float logprob, const std::vector<TokenAlternative>& top, bool silent);
  // No more tokens: the text is complete, all ranges are final. Idempotent.
  void close();
  // What is new and certain; false when there is nothing.
  bool drain(OutputDelta* delta);
  // Text, tokens, stopped_by_string and (when wanted) logprobs of a closed track.
  void result(bool with_logprobs, OutputResult* out) const;
  const OutputText& text() const { return text_; }

 private:
  OutputText text_;
  std::vector<TokenInfo> infos_;  // [max_tokens] until it is closed
  size_t count_ = 0;
  size_t given_bytes_ = 0;
  size_t given_tokens_ = 0;
  bool closed_ = false;
};

}  // namespace polylm
