// utf8.h: strict UTF-8 decoding, and the "is this the beginning of a character" question that
// streaming needs. Not here: what the tokenizer makes of characters (text/utf8.h).
// Trap: an invalid byte is always exactly one replacement character, as in SentencePiece.
#pragma once

#include <cstddef>
#include <string_view>

namespace polylm {

struct Utf8Char {
  char32_t code_point = 0;
  size_t length_bytes = 1;  // 1 when invalid
  bool valid = false;
};

// The first character of a non-empty text.
Utf8Char decode_utf8(std::string_view text);
bool is_valid_utf8(std::string_view text);
// True when text is 1 to 3 bytes that some continuation would make one valid character.
bool is_incomplete_utf8(std::string_view text);

}  // namespace polylm
