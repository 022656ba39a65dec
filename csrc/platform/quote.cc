// quote.cc: see quote.h.
#include "platform/quote.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "platform/utf8.h"

namespace polylm {
namespace {

constexpr size_t kPathBytes = 4096;

struct Range {
  char32_t first, last;
};

constexpr Range kUnsafe[] = {
#define ROW(first, last) {first, last},
#include "platform/unsafe_chars.def"
#undef ROW
};

bool is_unsafe(char32_t c) {
  return std::any_of(std::begin(kUnsafe), std::end(kUnsafe),
                     [c](const Range& range) { return c >= range.first && c <= range.last; });
}

std::string formatted(const char* format, uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// The first character of `rest` as it is shown.
std::string shown(std::string_view rest, const Utf8Char& c) {
  if (!c.valid) return formatted("\\x%02x", static_cast<uint8_t>(rest[0]));
  if (c.code_point == '"' || c.code_point == '\\') return {'\\', rest[0]};
  if (!is_unsafe(c.code_point)) return std::string(rest.substr(0, c.length_bytes));
  const auto code = static_cast<uint32_t>(c.code_point);
  return formatted(code > 0xffff ? "\\u{%x}" : "\\u%04x", code);
}

}  // namespace

std::string quoted(std::string_view text, size_t limit) {
  std::string out = "\"";
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    const std::string piece = shown(text, c);
    if (out.size() - 1 + piece.size() > limit) return out + "...\"";
    out += piece;
    text.remove_prefix(c.length_bytes);
  }
  return out + "\"";
}

std::string quoted_path(std::string_view path) { return quoted(path, kPathBytes); }

}  // namespace polylm
