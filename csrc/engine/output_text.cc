// output_text.cc: see output_text.h.
#include "engine/output_text.h"

#include <algorithm>

#include "platform/error.h"
#include "text/tokenizer.h"

namespace polylm {

OutputText::OutputText(const SamplingParams& params, const std::vector<int32_t>& prompt,
                       std::shared_ptr<const Tokenizer> tokenizer)
    : params_(&params) {
  if (!params.stop.empty() && params.stop_hf) {
    start_token_stops(prompt, tokenizer);
  } else if (!params.stop.empty()) {
    matcher_ = StopMatcher(params.stop);
  }
  if (tokenizer == nullptr) return;
  decoder_.emplace(std::move(tokenizer), params.skip_special_tokens);
  decoder_->seed(prompt.data(), static_cast<int64_t>(prompt.size()));
}

// transformers sees a padded row: the pads belong to it.
void OutputText::start_token_stops(const std::vector<int32_t>& prompt,
                                   const std::shared_ptr<const Tokenizer>& tokenizer) {
  token_stops_.emplace(params_->stop, tokenizer);
  const auto size = static_cast<int64_t>(prompt.size());
  const int64_t reach = token_stops_->reach();
  const int64_t pads = std::min(params_->pad_to_length - size, reach - size);
  for (int64_t i = 0; i < pads; ++i) {
    token_stops_->seed(static_cast<int32_t>(params_->pad_to_token));
  }
  for (int64_t i = std::max<int64_t>(0, size - reach); i < size; ++i) {
    token_stops_->seed(prompt[static_cast<size_t>(i)]);
  }
}

void OutputText::reserve(int64_t tokens) {
  constexpr int64_t kUsualBytes = 16;
  text_.reserve(static_cast<size_t>(tokens * kUsualBytes));
  bytes_.reserve(static_cast<size_t>(kUsualBytes * kUsualBytes));
}

// Takes what bytes_ holds.
void OutputText::feed() {
  const int64_t size = decoded_bytes_ + static_cast<int64_t>(bytes_.size());
  if (size > kMaxTextBytes) {
    fail(Code::kLimit, "the text of an output has " + std::to_string(size) +
                           " bytes, expected at most " + std::to_string(kMaxTextBytes));
  }
  decoded_bytes_ = static_cast<int32_t>(size);
  if (token_stops_) {
    text_ += bytes_;
    return;
  }
  if (stop_ >= 0) return;
  stop_ = matcher_.push(bytes_, &text_);
  if (stop_ >= 0 && params_->include_stop) text_ += params_->stop[static_cast<size_t>(stop_)];
}

bool OutputText::push(int32_t id, TokenInfo* info) {
  info->text_begin = decoded_bytes_;
  if (decoder_) {
    bytes_.clear();
    decoder_->push(id, &bytes_);
    feed();
    if (token_stops_ && stop_ < 0) stop_ = token_stops_->push(id);
  }
  info->text_end = decoded_bytes_;
  return stop_ >= 0;
}

void OutputText::push_silent(TokenInfo* info) {
  info->text_begin = decoded_bytes_;
  info->text_end = decoded_bytes_;
  silent_ = true;
}

void OutputText::finish() {
  if (finished_) return;
  finished_ = true;
  if (!decoder_ || (stop_ >= 0 && !token_stops_)) return;
  bytes_ = decoder_->finish();
  feed();
  if (stop_ < 0) text_ += matcher_.finish();
}

void OutputText::clamp(std::vector<TokenInfo>* tokens) const {
  const auto size = static_cast<int32_t>(text_.size());
  for (TokenInfo& token : *tokens) {
    token.text_begin = std::min(token.text_begin, size);
    token.text_end = std::min(token.text_end, size);
  }
  // What finish released belongs to the last token that shows; a silent one moves behind it.
  size_t shown = tokens->size();
  if (silent_ && shown > 0) {
    --shown;
    (*tokens)[shown].text_begin = size;
    (*tokens)[shown].text_end = size;
  }
  if (shown > 0) (*tokens)[shown - 1].text_end = size;
}

OutputTrack::OutputTrack(OutputText start, int64_t max_tokens, int64_t top)
    : text_(std::move(start)) {
  text_.reserve(max_tokens);
  infos_.resize(static_cast<size_t>(max_tokens));
  for (TokenInfo& info : infos_) info.top.reserve(static_cast<size_t>(std::max<int64_t>(0, top)));
}

bool OutputTrack::push(int32_t id, float logprob, const std::vector<TokenAlternative>& top,
                       bool silent) {
  POLYLM_CHECK_LT(count_, infos_.size());
  TokenInfo& info = infos_[count_];
  info.id = id;
  info.logprob = logprob;
  info.top.assign(top.begin(), top.end());
  ++count_;
  if (!silent) return text_.push(id, &info);
  text_.push_silent(&info);
  return false;
}

void OutputTrack::close() {
  if (closed_) return;
  closed_ = true;
  infos_.resize(count_);
  text_.finish();
  text_.clamp(&infos_);
}

bool OutputTrack::drain(OutputDelta* delta) {
  const std::string& text = text_.text();
  delta->text.assign(text, given_bytes_, std::string::npos);
  delta->tokens.clear();
  given_bytes_ = text.size();
  for (; given_tokens_ < count_; ++given_tokens_) {
    const TokenInfo& info = infos_[given_tokens_];
    if (info.text_end > static_cast<int32_t>(text.size())) break;
    delta->tokens.push_back(info);
  }
  return !delta->text.empty() || !delta->tokens.empty();
}

void OutputTrack::result(bool with_logprobs, OutputResult* out) const {
  out->text = text_.text();
  out->stopped_by_string = text_.stop();
  out->tokens.clear();
  for (const TokenInfo& info : infos_) out->tokens.push_back(info.id);
  if (with_logprobs) out->logprobs = infos_;
}

}  // namespace polylm
