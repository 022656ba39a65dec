// utf8.cc: see utf8.h.
#include "text/utf8.h"

#include <algorithm>

#include "platform/checked.h"

namespace polylm {

size_t char_length_bytes(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  return std::min(length, text.size());
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    out.append(c.valid ? text.substr(0, c.length_bytes) : kReplacementUtf8);
    text.remove_prefix(c.length_bytes);
  }
  return out;
}

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::vector<uint32_t> utf16_positions(std::string_view text) {
  std::vector<uint32_t> positions;
  positions.reserve(text.size() + 1);
  uint32_t units = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = char_length_bytes(text.substr(i));
    positions.insert(positions.end(), length, units);
    units += length == 4 ? 2 : 1;
    i += length;
  }
  positions.push_back(units);
  return positions;
}

}  // namespace polylm
