// stream_decoder.cc: see stream_decoder.h. Hugging Face's _decode works in two layers, kept here:
// sub-texts (added tokens and what is between them, joined by spaces), and inside a sub-text runs
// of ordinary pieces that SentencePiece decodes, with special tokens between them.
#include "text/stream_decoder.h"

#include <utility>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace polylm {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer),
      skip_special_(skip_special),
      retroactive_space_(tokenizer.compat_ == Compat::k431 || tokenizer.legacy_) {}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : StreamDecoder(*tokenizer, skip_special) {
  owner_ = std::move(tokenizer);
}

void StreamDecoder::seed(const int32_t* ids, int64_t n) {
  std::string prompt;
  for (int64_t i = 0; i < n; ++i) {
    push_to(ids[i], &prompt);
    prompt.clear();
  }
  if (n > 0) sealed_ = !previous_special_ && sub_index_ > 0;
  sub_has_text_ = sub_has_text_ || !held_.empty();
  held_.clear();
}

std::string StreamDecoder::push(int32_t id) {
  std::string out;
  push_to(id, &out);
  return out;
}

std::string StreamDecoder::text_of_next(int32_t id) const {
  std::string out;
  const std::string_view token = tokenizer_->piece(id);
  if (token.empty()) return out;
  StreamDecoder next = *this;
  next.push_token(token, id, &out);
  next.finish_to(&out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  finish_to(&out);
  return out;
}

void StreamDecoder::push_to(int32_t id, std::string* out) {
  const AddedToken* added = tokenizer_->added_.find(id);
  if (added != nullptr && added->special && skip_special_) return;
  const std::string_view token = tokenizer_->piece(id);
  if (token.empty()) return;
  // An added token stands alone: in 4.31 one outside the vocabulary; later every one that is not
  // special, and the additional special ones outside the vocabulary.
  const bool in_model = tokenizer_->model_.vocabulary().contains(id);
  const bool alone = added != nullptr &&
                     (tokenizer_->compat_ == Compat::k431
                          ? !in_model
                          : !added->special || (added->additional && !in_model));
  if (alone) {
    push_added(token, out);
  } else {
    push_token(token, id, out);
  }
}

void StreamDecoder::push_added(std::string_view token, std::string* out) {
  end_sub_text(false, out);
  emit(token, out);
  ++sub_count_;
  sub_has_text_ = false;
}

void StreamDecoder::push_token(std::string_view token, int32_t id, std::string* out) {
  const bool marked = token.substr(0, kSpaceMark.size()) == kSpaceMark;
  const bool by_hand = tokenizer_->compat_ != Compat::k431 && tokenizer_->add_prefix_space_;
  if (sub_index_ == 0 && marked && by_hand) {
    // The mark is cut off the first token's text, and what is left is looked up by name.
    token.remove_prefix(kSpaceMark.size());
    id = tokenizer_->model_.vocabulary().find(token);
    if (id == PieceTrie::kNone) id = tokenizer_->model_.vocabulary().unk_id();
  }
  const AddedToken* added = tokenizer_->added_.find(token);
  if (added != nullptr && added->special) {
    push_special(token, out);
  } else {
    if (tokenizer_->compat_ == Compat::k455 && by_hand && previous_special_ && sub_index_ == 1 &&
        !marked) {
      emit(" ", out);
    }
    const bool prefix = tokenizer_->model_.rules().add_dummy_prefix &&
                        (tokenizer_->compat_ == Compat::k431 || tokenizer_->legacy_);
    scratch_.clear();
    run_.push(tokenizer_->model_, prefix, token, id, &scratch_);
    emit_run(scratch_, out);
    previous_special_ = false;
  }
  ++sub_index_;
}

void StreamDecoder::push_special(std::string_view token, std::string* out) {
  const bool space = retroactive_space_ && !previous_special_ && sub_index_ != 0 && !sealed_;
  std::string rest;
  run_.finish(&rest);
  emit_run(rest, out);
  if (space) emit(" ", out);
  end_run(out);
  emit(token, out);
  previous_special_ = true;
}

// Releases the run's text.
void StreamDecoder::end_run(std::string* out) {
  std::string text;
  run_.finish(&text);
  emit_run(text, out);
  std::string held;
  held.swap(held_);
  sealed_ = false;
  emit(held, out);
}

void StreamDecoder::end_sub_text(bool final, std::string* out) {
  end_run(out);
  // 4.31 joins empty sub-texts too; later versions only an empty last one.
  const bool joins = sub_index_ > 0 && (sub_has_text_ || final ||
                                        tokenizer_->compat_ == Compat::k431);
  if (joins) {
    if (!sub_has_text_ && sub_count_ > 0) out->append(" ");
    ++sub_count_;
  }
  sub_has_text_ = false;
  sub_index_ = 0;
  previous_special_ = false;
}

void StreamDecoder::finish_to(std::string* out) { end_sub_text(true, out); }

void StreamDecoder::emit(std::string_view text, std::string* out) {
  if (text.empty()) return;
  if (!sub_has_text_ && sub_count_ > 0) out->append(" ");
  sub_has_text_ = true;
  out->append(text);
}

// Text of the run: held while a space may still come before it.
void StreamDecoder::emit_run(std::string_view text, std::string* out) {
  const bool hold = retroactive_space_ && !skip_special_ && !sealed_;
  if (hold) {
    held_.append(text);
  } else {
    emit(text, out);
  }
}

}  // namespace polylm
