// normalizer.cc: see normalizer.h. The character map's layout and its check are in charsmap.h.
#include "text/normalizer.h"

#include <algorithm>
#include <utility>

#include "platform/checked.h"
#include "text/charsmap.h"
#include "text/utf8.h"

namespace polylm {
namespace {

uint32_t load_u32(const char* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

Normalizer::Normalizer(NormalizerRules rules) : rules_(std::move(rules)) {
  const std::string& map = rules_.charsmap;
  if (map.empty()) return;
  if (map.size() < 4) damaged_charsmap("it is shorter than its header");
  const size_t trie_bytes = load_u32(map.data());
  if (trie_bytes > map.size() - 4) damaged_charsmap("its trie is longer than the map");
  if (trie_bytes == 0 || trie_bytes % 4 != 0) {
    damaged_charsmap("its trie is no list of 32-bit units");
  }
  units_.resize(trie_bytes / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = load_u32(map.data() + 4 + i * 4);
  replacements_ = std::string_view(map).substr(4 + trie_bytes);
  check_charsmap(units_, replacements_);
}

Normalizer::Chunk Normalizer::longest_rule(std::string_view text) const {
  Chunk longest = {{}, 0};
  if (units_.empty()) return longest;
  uint32_t at = unit_offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size() || unit_label(units_[at]) != byte) break;
    const uint32_t unit = units_[at];
    at ^= unit_offset(unit);
    if (unit_has_leaf(unit)) {
      longest = {std::string_view(replacements_.data() + unit_value(units_[at])), i + 1};
    }
  }
  return longest;
}

Normalizer::Chunk Normalizer::next_chunk(std::string_view text,
                                         const PieceTrie& user_defined) const {
  if (!user_defined.empty()) {
    const size_t bytes = user_defined.longest_prefix_bytes(text);
    if (bytes > 0) return {text.substr(0, bytes), bytes};
  }
  const Chunk rule = longest_rule(text);
  if (rule.used_bytes > 0) return rule;
  const Utf8Char c = decode_utf8(text);
  if (!c.valid) return {kReplacementUtf8, 1};
  return {text.substr(0, c.length_bytes), c.length_bytes};
}

// Where normalised bytes go, with the place that each came from.
class Normalizer::Sink {
 public:
  Sink(bool escape, size_t limit_bytes, std::string* out, std::vector<uint32_t>* origin)
      : space_(escape ? kSpaceMark : " "), escape_(escape), limit_bytes_(limit_bytes), out_(out),
        origin_(origin) {}

  void space(size_t from) { append(space_, from); }

  void text(std::string_view bytes, size_t from) {
    if (!escape_) return append(bytes, from);
    while (!bytes.empty()) {
      const size_t plain = std::min(bytes.find(' '), bytes.size());
      append(bytes.substr(0, plain), from);
      if (plain == bytes.size()) return;
      append(space_, from);
      bytes.remove_prefix(plain + 1);
    }
  }

  // Removes spaces at the end; returns where the text ends in the input afterwards.
  size_t trim(size_t consumed) {
    while (std::string_view(*out_).size() >= space_.size() &&
           std::string_view(*out_).substr(out_->size() - space_.size()) == space_) {
      out_->resize(out_->size() - space_.size());
      if (origin_ == nullptr) continue;
      consumed = (*origin_)[out_->size()];
      origin_->resize(out_->size());
    }
    return consumed;
  }

 private:
  void append(std::string_view bytes, size_t from) {
    if (out_->size() + bytes.size() > limit_bytes_) {
      fail(Code::kLimit, "normalising makes the text longer than " +
                             std::to_string(limit_bytes_) + " bytes, the limit for its length");
    }
    out_->append(bytes);
    if (origin_ != nullptr) {
      origin_->insert(origin_->end(), bytes.size(), static_cast<uint32_t>(from));
    }
  }

  std::string_view space_;
  bool escape_;
  size_t limit_bytes_;
  std::string* out_;
  std::vector<uint32_t>* origin_;
};

void Normalizer::run(std::string_view text, bool add_dummy_prefix, const PieceTrie& user_defined,
                     std::string* out, std::vector<uint32_t>* origin) const {
  out->clear();
  if (origin != nullptr) origin->clear();
  size_t at = 0;
  bool after_space = rules_.remove_extra_whitespaces;
  while (after_space && at < text.size()) {
    const Chunk chunk = next_chunk(text.substr(at), user_defined);
    if (chunk.text != " ") break;
    at += chunk.used_bytes;
  }
  if (at == text.size()) {
    if (origin != nullptr) origin->push_back(static_cast<uint32_t>(at));
    return;
  }
  out->reserve(text.size() + text.size() / 2 + 8);
  Sink sink(rules_.escape_whitespaces, max_normalized_bytes(text.size()), out, origin);
  if (add_dummy_prefix && !rules_.treat_whitespace_as_suffix) sink.space(at);
  while (at < text.size()) {
    const Chunk chunk = next_chunk(text.substr(at), user_defined);
    std::string_view bytes = chunk.text;
    while (after_space && !bytes.empty() && bytes.front() == ' ') bytes.remove_prefix(1);
    if (!bytes.empty()) {
      sink.text(bytes, at);
      after_space = rules_.remove_extra_whitespaces && bytes.back() == ' ';
    }
    at += chunk.used_bytes;
  }
  if (rules_.remove_extra_whitespaces) at = sink.trim(at);
  if (add_dummy_prefix && rules_.treat_whitespace_as_suffix) sink.space(at);
  if (origin != nullptr) origin->push_back(static_cast<uint32_t>(at));
}

}  // namespace polylm
