// utf8.cc: see utf8.h.
#include "platform/utf8.h"

#include <algorithm>
#include <cstdint>

namespace polylm {
namespace {

bool is_trail(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

// What a lead byte announces: 0 for a byte that begins no character.
size_t announced(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// The second byte rules out overlong forms, surrogates and code points beyond U+10FFFF.
bool second_fits(uint8_t lead, uint8_t second) {
  if ((second & 0xC0) != 0x80) return false;
  switch (lead) {
    case 0xE0: return second >= 0xA0;
    case 0xED: return second <= 0x9F;
    case 0xF0: return second >= 0x90;
    case 0xF4: return second <= 0x8F;
    default: return true;
  }
}

constexpr Utf8Char kInvalid = {0xFFFD, 1, false};

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  const size_t length = announced(lead);
  if (length == 1) return {lead, 1, true};
  if (length == 0 || text.size() < length) return kInvalid;
  if (!second_fits(lead, static_cast<uint8_t>(text[1]))) return kInvalid;
  auto code_point = static_cast<char32_t>(lead & (0x7FU >> length));
  for (size_t i = 1; i < length; ++i) {
    if (!is_trail(text[i])) return kInvalid;
    code_point = (code_point << 6) | (static_cast<uint8_t>(text[i]) & 0x3FU);
  }
  return {code_point, length, true};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    if (static_cast<uint8_t>(text[0]) < 0x80) {
      text.remove_prefix(1);
      continue;
    }
    const Utf8Char c = decode_utf8(text);
    if (!c.valid) return false;
    text.remove_prefix(c.length_bytes);
  }
  return true;
}

bool is_incomplete_utf8(std::string_view text) {
  if (text.empty()) return false;
  const auto lead = static_cast<uint8_t>(text[0]);
  if (text.size() >= announced(lead)) return false;
  if (text.size() >= 2 && !second_fits(lead, static_cast<uint8_t>(text[1]))) return false;
  return std::all_of(text.begin() + 1, text.end(), is_trail);
}

}  // namespace polylm
