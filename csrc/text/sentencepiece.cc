// sentencepiece.cc: see sentencepiece.h. Follows sentencepiece_processor.cc of 0.1.97.
#include "text/sentencepiece.h"

#include <utility>

#include "text/bpe.h"
#include "text/unigram.h"
#include "text/utf8.h"

namespace polylm {

SentencePiece::SentencePiece(TokenizerTables* tables)
    : kind_(tables->kind),
      vocabulary_(tables),
      normalizer_({.charsmap = std::move(tables->charsmap),
                   .add_dummy_prefix = tables->add_dummy_prefix,
                   .remove_extra_whitespaces = tables->remove_extra_whitespaces,
                   .escape_whitespaces = tables->escape_whitespaces,
                   .treat_whitespace_as_suffix = tables->treat_whitespace_as_suffix}),
      unk_surface_(std::move(tables->unk_surface)) {}

void SentencePiece::encode(std::string_view text, const SpOptions& options,
                           std::string* normalized, std::vector<SpPiece>* out) const {
  std::vector<uint32_t> origin;
  const PieceTrie& user =
      options.plain ? vocabulary_.plain_user_defined() : vocabulary_.user_defined();
  normalizer_.run(text, options.add_dummy_prefix, user, normalized,
                  options.offsets ? &origin : nullptr);
  std::vector<ModelPiece> pieces;
  const auto cut = kind_ == ModelKind::kUnigram ? encode_unigram : encode_bpe;
  cut(vocabulary_, *normalized, options.plain, &pieces);
  out->reserve(out->size() + pieces.size());
  bool after_unknown = false;
  for (const ModelPiece& piece : pieces) {
    append(piece, origin, after_unknown, out, *normalized);
    after_unknown = piece.id == vocabulary_.unk_id();
  }
}

// Unknown characters become their bytes, or one unknown token per run.
void SentencePiece::append(const ModelPiece& piece, const std::vector<uint32_t>& origin,
                           bool merge_unknown, std::vector<SpPiece>* out,
                           const std::string& normalized) const {
  SpPiece made = {piece.id, 0, 0, piece.begin, piece.end};
  if (!origin.empty()) {
    made.begin = origin[piece.begin];
    made.end = origin[piece.end];
  }
  const bool unknown = piece.id == vocabulary_.unk_id();
  if (unknown && vocabulary_.byte_fallback()) {
    for (uint32_t i = piece.begin; i < piece.end; ++i) {
      made.id = vocabulary_.byte_id(static_cast<uint8_t>(normalized[i]));
      out->push_back(made);
    }
  } else if (unknown && merge_unknown) {
    out->back().end = made.end;
    out->back().norm_end = made.norm_end;
  } else {
    out->push_back(made);
  }
}

void PieceRunDecoder::write(std::string_view text, std::string* out) {
  out->append(text);
  has_text_ = has_text_ || !text.empty();
}

// Writes the characters that the pending bytes make; invalid ones one by one as U+FFFD.
void PieceRunDecoder::drain(bool end, std::string* out) {
  std::string_view rest(pending_.data(), pending_bytes_);
  while (!rest.empty() && (end || !is_incomplete_utf8(rest))) {
    const Utf8Char c = decode_utf8(rest);
    write(c.valid ? rest.substr(0, c.length_bytes) : kReplacementUtf8, out);
    rest.remove_prefix(c.length_bytes);
  }
  std::array<char, 4> kept{};
  rest.copy(kept.data(), kept.size());
  pending_ = kept;
  pending_bytes_ = rest.size();
}

void PieceRunDecoder::push(const SentencePiece& model, bool add_dummy_prefix,
                           std::string_view piece, int32_t id, std::string* out) {
  const Vocabulary& vocabulary = model.vocabulary();
  const PieceType type = vocabulary.type(id);
  if (type == PieceType::kByte) {
    pending_[pending_bytes_++] = static_cast<char>(vocabulary.byte_of(id));
    return drain(false, out);
  }
  drain(true, out);
  if (begin_seen_ || has_text_) at_begin_ = false;
  begin_seen_ = false;
  if (type == PieceType::kControl) return;
  if (type == PieceType::kUnknown) {
    const bool by_name = piece == vocabulary.piece(id);
    return write(by_name ? std::string_view(model.unk_surface()) : piece, out);
  }
  const bool remove_extra = model.rules().remove_extra_whitespaces;
  if (at_begin_ && (add_dummy_prefix || remove_extra) &&
      piece.substr(0, kSpaceMark.size()) == kSpaceMark) {
    piece.remove_prefix(kSpaceMark.size());
    begin_seen_ = !remove_extra;  // where extra spaces are removed, all leading ones go
  }
  while (!piece.empty()) {
    const size_t plain = std::min(piece.find(kSpaceMark), piece.size());
    write(piece.substr(0, plain), out);
    if (plain == piece.size()) break;
    write(" ", out);
    piece.remove_prefix(plain + kSpaceMark.size());
  }
}

void PieceRunDecoder::finish(std::string* out) {
  drain(true, out);
  reset();
}

}  // namespace polylm
