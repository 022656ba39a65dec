// utf8.h: characters as SentencePiece, Python and JavaScript count them, byte to UTF-16 offsets.
// Not here: decoding (platform/utf8.h, included), normalisation (normalizer.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "platform/utf8.h"

namespace polylm {

inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";        // U+2581, stands for a space

// Bytes that the lead byte announces (a trail byte counts 1), at most what is left of text.
size_t char_length_bytes(std::string_view text);
// Every invalid byte becomes U+FFFD.
std::string to_valid_utf8(std::string_view text);
// What Python's str.isspace says: what its strip() removes.
bool is_python_space(char32_t code_point);

// positions[b]: UTF-16 code units before byte b of a valid text, b in [0, size]; bytes inside a
// character count as its beginning.
std::vector<uint32_t> utf16_positions(std::string_view text);

}  // namespace polylm
