// charsmap.h: the double array of SentencePiece's character map: how its units are read, and the
// check that a map from a file must pass before any text is looked up in it. The layout is
// darts-clone's: bits 0-7 label (bit 31 set in a leaf), bit 8 has_leaf, bit 9 scale of the offset,
// bits 10-30 offset.
// Trap: rules with equal ends share their last units (nmt_nfkc does so 5,119 times), so a unit that
// is reached twice is no damage; one that leads back to itself is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace polylm {

// Longest left side of a rule. Those of nmt_nfkc have at most 10 bytes; a lookup may read this many
// bytes at every place of a text, so without a bound encoding would take quadratic time.
inline constexpr size_t kMaxRuleBytes = 256;
inline constexpr size_t kMaxReplacementBytes = 4096;

inline uint32_t unit_offset(uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }
inline uint32_t unit_label(uint32_t unit) { return unit & ((1U << 31) | 0xFFU); }
inline bool unit_has_leaf(uint32_t unit) { return ((unit >> 8) & 1U) != 0; }
inline uint32_t unit_value(uint32_t unit) { return unit & ((1U << 31) - 1); }

[[noreturn]] void damaged_charsmap(const char* what);

// Follows everything that some text can reach, each unit once. Throws TOKENIZER_FORMAT for a rule
// that points outside or a path that leads back to itself, LIMIT for a rule beyond the two limits.
void check_charsmap(const std::vector<uint32_t>& units, std::string_view replacements);

}  // namespace polylm
