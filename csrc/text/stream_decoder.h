// stream_decoder.h: ids in one by one, text out as soon as it can no longer change; the parts
// joined are exactly Tokenizer::decode of all ids. O(1) amortised per token. Decode itself uses it.
// Not here: stop strings (stop_matcher.h). Trap: with skip_special false and the rules of
// transformers 4.31 (or legacy) a space may appear before text that precedes a special token, so a
// run of ordinary tokens comes out only when it ends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "text/sentencepiece.h"

namespace polylm {

class Tokenizer;

// A value: copying it forks the stream.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special);
  // Takes a prompt whose text is not wanted: afterwards push gives decode(prompt + ids) without
  // decode(prompt). Call it before the first push.
  void seed(const int32_t* ids, int64_t n);
  // Ids outside the vocabulary (holes, padding rows of the model) give nothing.
  std::string push(int32_t id);
  // The same, appended.
  void push(int32_t id, std::string* out) { push_to(id, out); }
  // What this token alone would add: transformers' convert_tokens_to_string. Incomplete characters
  // are U+FFFD; empty outside the vocabulary.
  std::string text_of_next(int32_t id) const;
  // What was held back: incomplete characters become U+FFFD. Call once, last.
  std::string finish();

 private:
  friend class Tokenizer;
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special);

  void push_to(int32_t id, std::string* out);
  void finish_to(std::string* out);
  void push_added(std::string_view token, std::string* out);
  void push_token(std::string_view token, int32_t id, std::string* out);
  void push_special(std::string_view token, std::string* out);
  void end_run(std::string* out);
  void end_sub_text(bool final, std::string* out);
  void emit(std::string_view text, std::string* out);
  void emit_run(std::string_view text, std::string* out);

  std::shared_ptr<const Tokenizer> owner_;  // null when decode itself drives
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool retroactive_space_;     // a special token puts a space before the run that it ends
  PieceRunDecoder run_;
  std::string held_;           // text of the run, while it may still get its space
  std::string scratch_;        // of one token
  bool sealed_ = false;        // the run began in the prompt: nothing can be put before it
  bool previous_special_ = false;
  int64_t sub_index_ = 0;      // tokens of this sub-text so far
  bool sub_has_text_ = false;  // something of it came out
  int64_t sub_count_ = 0;      // sub-texts before this one; they are joined by spaces
};

}  // namespace polylm
