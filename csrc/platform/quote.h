// quote.h: how text of a stranger (a file, an option, the system) is shown to a person. The same
// rule as quote() of lib/checkpoint/text.ts, character by character.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace polylm {

// In double quotes: quotes and backslashes escaped, unsafe characters (unsafe_chars.def) as \u001b
// or \u{e0001}, bytes that are not UTF-8 as \xff; cut with "..." after `limit` bytes.
std::string quoted(std::string_view text, size_t limit = 200);

// A path, which the user mostly knows, so more of it is shown.
std::string quoted_path(std::string_view path);

}  // namespace polylm
