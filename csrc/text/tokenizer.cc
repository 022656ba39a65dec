// tokenizer.cc: see tokenizer.h. The rules are those of tokenization_llama.py and
// tokenization_utils.py in transformers 4.31, 4.36 and 4.55; a quirk that is kept names its
// version.
#include "text/tokenizer.h"

#include <algorithm>
#include <utility>

#include "platform/checked.h"
#include "text/stream_decoder.h"
#include "text/utf8.h"

namespace polylm {
namespace {

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

void check_text_size(int64_t bytes) {
  if (bytes <= kMaxTextBytes) return;
  fail(Code::kLimit, "a text of " + std::to_string(bytes) + " bytes is longer than " +
                         std::to_string(kMaxTextBytes));
}

}  // namespace

// One id with its range in the text that was given (bytes).
struct Tokenizer::Item {
  int32_t id = -1;
  size_t begin = 0, end = 0;
};

// The text after LlamaTokenizer's own edits, and how to get back.
struct Tokenizer::Prepared {
  std::string text;
  std::vector<uint32_t> origin;  // [text + 1] offsets into the given text; empty: not asked for
};

std::shared_ptr<const Tokenizer> Tokenizer::create(TokenizerTables tables) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(tables)));
}

Tokenizer::Tokenizer(TokenizerTables tables)
    : model_(&tables),
      added_(std::move(tables.added), model_.vocabulary()),
      unk_id_(tables.unk_id),
      bos_id_(tables.bos_id),
      eos_id_(tables.eos_id),
      pad_id_(tables.pad_id),
      add_bos_(tables.add_bos),
      add_eos_(tables.add_eos),
      legacy_(tables.legacy),
      add_prefix_space_(tables.add_prefix_space || tables.compat != Compat::k455),
      compat_(tables.compat) {
  vocab_size_ = std::max(model_.vocabulary().size(), added_.id_end());
  id_limit_ = std::max(vocab_size_, tables.id_limit);
  check_special_ids();
  bytes_per_token_ = measure_tokens();
  // Not the special ones alone: a template may take any added token as a control token.
  std::vector<int32_t> ids;
  for (const AddedToken& token : added_.tokens()) ids.push_back(token.id);
  model_.vocabulary().block(ids);
}

void Tokenizer::check_special_ids() const {
  const std::pair<const char*, int32_t> ids[] = {
      {"unk", unk_id_}, {"bos", bos_id_}, {"eos", eos_id_}, {"pad", pad_id_}};
  for (const auto& [name, id] : ids) {
    if (id >= -1 && id < vocab_size_) continue;
    fail(Code::kTokenizerRange, std::string("the ") + name + " token has id " +
                                    std::to_string(id) + ", but there are " +
                                    std::to_string(vocab_size_) + " ids");
  }
  // Any text may fall back to any byte, so a byte piece cannot be told from text.
  const Vocabulary& vocabulary = model_.vocabulary();
  const auto refuse_byte = [&](int32_t id) {
    if (!vocabulary.contains(id) || vocabulary.type(id) != PieceType::kByte) return;
    fail(Code::kTokenizerConflict, "the byte piece " + quoted(vocabulary.piece(id)) + " (id " +
                                       std::to_string(id) + ") is declared a special token, but "
                                       "ordinary text can produce it",
         "remove it from the special tokens of the tokenizer files");
  };
  for (const auto& [name, id] : ids) refuse_byte(id);
  for (const AddedToken& token : added_.tokens()) {
    if (token.special) refuse_byte(token.id);
  }
  if ((add_bos_ && bos_id_ < 0) || (add_eos_ && eos_id_ < 0)) {
    fail(Code::kTokenizerConflict, "tokenizer_config.json adds a bos or eos token that the "
                                   "vocabulary does not have",
         "set add_bos_token and add_eos_token to false in tokenizer_config.json");
  }
}

int64_t Tokenizer::measure_tokens() const {
  const NormalizerRules& rules = model_.rules();
  bool bounded = rules.charsmap.empty() && !rules.remove_extra_whitespaces &&
                 model_.vocabulary().byte_fallback();
  size_t longest = model_.vocabulary().max_piece_bytes();
  for (const AddedToken& token : added_.tokens()) {
    longest = std::max(longest, token.content.size());
    bounded = bounded && !token.lstrip && !token.rstrip;
  }
  constexpr size_t kGuess = 64;
  return static_cast<int64_t>(bounded ? longest : std::max(longest, kGuess));
}

bool Tokenizer::is_special(int32_t id) const {
  const Vocabulary& vocabulary = model_.vocabulary();
  if (is_skipped(id)) return true;
  if (!vocabulary.contains(id)) return false;
  const PieceType type = vocabulary.type(id);
  return type == PieceType::kControl || type == PieceType::kUnknown;
}

std::string_view Tokenizer::piece(int32_t id) const {
  if (model_.vocabulary().contains(id)) return model_.vocabulary().piece(id);
  const AddedToken* token = added_.find(id);
  return token == nullptr ? std::string_view() : std::string_view(token->content);
}

std::string Tokenizer::surface(int32_t id) const {
  const std::string_view name = piece(id);
  const Vocabulary& vocabulary = model_.vocabulary();
  if (is_special(id) || !vocabulary.contains(id)) return std::string(name);
  if (vocabulary.type(id) == PieceType::kByte) {
    return std::string(1, static_cast<char>(vocabulary.byte_of(id)));
  }
  std::string text;
  for (size_t at = 0; at < name.size();) {
    const size_t mark = std::min(name.find(kSpaceMark, at), name.size());
    text.append(name.substr(at, mark - at));
    if (mark < name.size()) text += ' ';
    at = mark + kSpaceMark.size();
  }
  return text;
}

int32_t Tokenizer::find(std::string_view token) const {
  if (const AddedToken* added = added_.find(token)) return added->id;
  const int32_t id = model_.vocabulary().find(token);
  return id == PieceTrie::kNone ? -1 : id;
}

int32_t Tokenizer::token_id(std::string_view token) const {
  const int32_t id = find(token);
  return id < 0 ? model_.vocabulary().unk_id() : id;
}

// Without legacy, space marks of the text become spaces and one mark is put before it.
Tokenizer::Prepared Tokenizer::prepare(std::string_view text, bool at_start, bool offsets) const {
  Prepared prepared;
  prepared.text.reserve(text.size() + kSpaceMark.size());
  const auto append = [&](std::string_view bytes, size_t from, bool same_length) {
    prepared.text.append(bytes);
    for (size_t i = 0; offsets && i < bytes.size(); ++i) {
      prepared.origin.push_back(static_cast<uint32_t>(same_length ? from + i : from));
    }
  };
  const bool prefix = compat_ == Compat::k431 || (add_prefix_space_ && !text.empty());
  if (!legacy_ && prefix && at_start) append(kSpaceMark, 0, false);
  for (size_t at = 0; at < text.size();) {
    const size_t mark = legacy_ ? std::string_view::npos : text.find(kSpaceMark, at);
    const size_t end = std::min(mark, text.size());
    append(text.substr(at, end - at), at, true);
    at = end;
    if (mark == std::string_view::npos) break;
    append(" ", at, false);
    at += kSpaceMark.size();
  }
  if (offsets) prepared.origin.push_back(static_cast<uint32_t>(text.size()));
  return prepared;
}

// LlamaTokenizer._tokenize: one stretch of text between added tokens; offsets are into `segment`.
// Returns whether all that came out is the one token "▁" (known from 4.32 on only).
bool Tokenizer::encode_segment(std::string_view segment, const SpOptions& options,
                               std::vector<SpPiece>* out) const {
  std::string normalized;
  const bool marked = starts_with(segment, kSpaceMark);
  if (legacy_) {
    model_.encode(segment, options, &normalized, out);
    return false;
  }
  if (compat_ == Compat::k431) {
    // The library puts its mark before every segment; it is right only for the first.
    const size_t skip = marked ? kSpaceMark.size() : 0;
    model_.encode(segment.substr(skip), options, &normalized, out);
    for (SpPiece& piece : *out) {
      piece.begin += static_cast<uint32_t>(skip);
      piece.end += static_cast<uint32_t>(skip);
    }
    if (!marked && !starts_with(segment, " ")) {
      drop_space_mark(normalized, options.plain, out);
    }
    return false;
  }
  SpOptions sp = options;
  sp.add_dummy_prefix = false;
  if (marked || starts_with(segment, " ")) {
    encode_after_unk(segment, sp, &normalized, out);
  } else {
    model_.encode(segment, sp, &normalized, out);
  }
  if (out->size() != 1) return false;
  const SpPiece& piece = out->front();
  return model_.vocabulary().type(piece.id) != PieceType::kByte &&
         std::string_view(normalized).substr(piece.norm_begin, piece.norm_end - piece.norm_begin) ==
             kSpaceMark;
}

// Leading space survives the normaliser only behind other text, so the unknown token's text is put
// before it and its tokens, counted by encoding it alone, are cut off again.
void Tokenizer::encode_after_unk(std::string_view segment, const SpOptions& options,
                                 std::string* normalized, std::vector<SpPiece>* out) const {
  const std::string_view unk = piece(model_.vocabulary().unk_id());
  std::vector<SpPiece> alone;
  SpOptions counting = options;
  counting.offsets = false;
  model_.encode(unk, counting, normalized, &alone);
  std::string text(unk);
  text.append(segment);
  model_.encode(text, options, normalized, out);
  if (out->size() >= alone.size()) {
    out->erase(out->begin(), out->begin() + static_cast<std::ptrdiff_t>(alone.size()));
  }
  const auto shift = static_cast<uint32_t>(unk.size());
  for (SpPiece& piece : *out) {
    piece.begin -= std::min(piece.begin, shift);
    piece.end -= std::min(piece.end, shift);
  }
}

// 4.31: takes the mark off the first token's text and looks the rest up by name. In plain text the
// name may be that of a control token ("▁</s>" is a piece like any other): then the mark stays.
void Tokenizer::drop_space_mark(const std::string& normalized, bool plain,
                                std::vector<SpPiece>* pieces) const {
  if (pieces->empty()) return;  // transformers raises IndexError here
  SpPiece& first = pieces->front();
  if (model_.vocabulary().type(first.id) == PieceType::kByte) return;
  std::string_view token(normalized);
  token = token.substr(first.norm_begin, first.norm_end - first.norm_begin);
  if (!starts_with(token, kSpaceMark)) return;
  token.remove_prefix(kSpaceMark.size());
  if (token.empty()) {
    pieces->erase(pieces->begin());
    return;
  }
  const int32_t id = token_id(token);
  const bool control = is_special(id) || added_.find(id) != nullptr;
  if (plain && control && id != model_.vocabulary().unk_id()) return;
  first.id = id;
}

std::vector<Tokenizer::Item> Tokenizer::run(std::string_view utf8, const EncodeOptions& options,
                                            bool offsets) const {
  const Prepared prepared = prepare(utf8, options.at_start, offsets);
  const std::string_view text = prepared.text;
  const SpOptions sp = {.add_dummy_prefix = model_.rules().add_dummy_prefix,
                        .plain = !options.parse_special,
                        .offsets = offsets};
  std::vector<AddedTokens::Segment> segments;
  if (options.parse_special) {
    segments = added_.split(text);
  } else if (!text.empty()) {
    segments = {{0, text.size(), nullptr}};
  }
  std::vector<Item> items;
  const auto origin = [&](size_t at) { return offsets ? prepared.origin[at] : 0; };
  if (options.add_special_tokens && add_bos_ && options.at_start) items.push_back({bos_id_, 0, 0});
  std::vector<SpPiece> pieces;
  for (size_t i = 0; i < segments.size(); ++i) {
    const AddedTokens::Segment& segment = segments[i];
    if (segment.token != nullptr) {
      items.push_back({segment.token->id, origin(segment.begin), origin(segment.end)});
      continue;
    }
    pieces.clear();
    const bool lone_mark =
        encode_segment(text.substr(segment.begin, segment.end - segment.begin), sp, &pieces);
    const AddedToken* next = i + 1 < segments.size() ? segments[i + 1].token : nullptr;
    const bool before_special = next != nullptr && next->special;
    if (i == 0 && lone_mark && before_special) continue;  // from 4.32 on: no mark before a special
    for (const SpPiece& piece : pieces) {
      items.push_back({piece.id, origin(segment.begin + piece.begin),
                       origin(segment.begin + piece.end)});
    }
  }
  if (options.add_special_tokens && add_eos_) items.push_back({eos_id_, utf8.size(), utf8.size()});
  return items;
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, const EncodeOptions& options) const {
  check_text_size(static_cast<int64_t>(utf8.size()));
  if (!is_valid_utf8(utf8)) return encode(to_valid_utf8(utf8), options);
  std::vector<int32_t> ids;
  for (const Item& item : run(utf8, options, false)) ids.push_back(item.id);
  return ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view utf8, const EncodeOptions& options) const {
  check_text_size(static_cast<int64_t>(utf8.size()));
  if (!is_valid_utf8(utf8)) return encode_with_offsets(to_valid_utf8(utf8), options);
  const std::vector<uint32_t> units = utf16_positions(utf8);
  Encoding encoding;
  for (const Item& item : run(utf8, options, true)) {
    encoding.ids.push_back(item.id);
    encoding.offsets.push_back(units[item.begin]);
    encoding.offsets.push_back(units[item.end]);
  }
  return encoding;
}

std::vector<int32_t> Tokenizer::encode_raw(std::string_view utf8) const {
  check_text_size(static_cast<int64_t>(utf8.size()));
  if (!is_valid_utf8(utf8)) return encode_raw(to_valid_utf8(utf8));
  std::string normalized;
  std::vector<SpPiece> pieces;
  const SpOptions options = {.add_dummy_prefix = model_.rules().add_dummy_prefix};
  model_.encode(utf8, options, &normalized, &pieces);
  std::vector<int32_t> ids;
  for (const SpPiece& piece : pieces) ids.push_back(piece.id);
  return ids;
}

std::string Tokenizer::decode(const int32_t* ids, int64_t n, bool skip_special) const {
  std::string text;
  StreamDecoder decoder(*this, skip_special);
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] < 0 || ids[i] >= id_limit_) {
      fail(Code::kInvalidPrompt, "token " + std::to_string(ids[i]) + " at index " +
                                     std::to_string(i) + " is out of range: there are " +
                                     std::to_string(id_limit_) + " ids");
    }
    decoder.push_to(ids[i], &text);
    check_text_size(static_cast<int64_t>(text.size()));
  }
  decoder.finish_to(&text);
  return text;
}

std::string Tokenizer::decode_raw(const int32_t* ids, int64_t n) const {
  std::string text;
  PieceRunDecoder run;
  for (int64_t i = 0; i < n; ++i) {
    if (!model_.vocabulary().contains(ids[i])) {
      fail(Code::kInvalidPrompt, "token " + std::to_string(ids[i]) + " is out of range");
    }
    run.push(model_, model_.rules().add_dummy_prefix, piece(ids[i]), ids[i], &text);
    check_text_size(static_cast<int64_t>(text.size()));
  }
  run.finish(&text);
  return text;
}

}  // namespace polylm
