// text_test.cc: the parts under the tokenizer: UTF-8, the trie, the normaliser's guards, the stop
// matcher. Whole tokenizers are in tokenizer_test.cc.
#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "harness.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/piece_trie.h"
#include "text/stop_matcher.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/vocabulary.h"
#include "tokenizer_fixture.h"

namespace polylm {
namespace {

std::string u32(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

// A unit that is nobody's child: its label is no byte.
constexpr uint32_t kNoChild = 1U << 31;

// A character map with one rule, `byte` -> `replacement`. Unit 0 sends the root's children to
// 256 ^ byte; that unit's leaf is at 512.
std::string charsmap_of(uint8_t byte, const std::string& replacement, uint32_t value = 0) {
  std::vector<uint32_t> units(768, kNoChild);
  const uint32_t at = 256U ^ byte;
  units[0] = 256U << 10;
  units[at] = ((at ^ 512U) << 10) | (1U << 8) | byte;
  units[512] = (1U << 31) | value;
  std::string map = u32(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) map += u32(unit);
  return map + replacement + std::string(1, '\0');
}

std::string normalize(const NormalizerRules& rules, std::string_view text) {
  std::string out;
  Normalizer(rules).run(text, rules.add_dummy_prefix, PieceTrie(), &out, nullptr);
  return out;
}

}  // namespace

TEST(utf8_accepts_exactly_unicode) {
  EXPECT(is_valid_utf8("a\xC3\xA9\xE2\x96\x81\xF0\x9F\x98\x80"));
  const std::string bad[] = {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                             "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                             "\xE2\x96"};
  for (const std::string& text : bad) EXPECT(!is_valid_utf8(text));
  EXPECT_EQ(to_valid_utf8("a\xE2\x96z"), std::string("a\xEF\xBF\xBD\xEF\xBF\xBDz"));
}

TEST(utf8_incomplete_is_what_more_bytes_can_complete) {
  for (const char* text : {"\xC3", "\xE2", "\xE2\x96", "\xF0\x9F\x98", "\xF4\x8F"}) {
    EXPECT(is_incomplete_utf8(text));
  }
  for (const char* text : {"", "a", "\x80", "\xC0", "\xE0\x80", "\xED\xA0", "\xF4\x90", "\xF5",
                           "\xE2z", "\xC3\xA9"}) {
    EXPECT(!is_incomplete_utf8(text));
  }
}

TEST(utf16_positions_count_surrogate_pairs) {
  const std::vector<uint32_t> positions = utf16_positions("a\xF0\x9F\x98\x80\xC3\xA9");
  EXPECT(positions == std::vector<uint32_t>({0, 1, 1, 1, 1, 3, 3, 4}));
}

TEST(trie_finds_what_was_put_in_and_nothing_else) {
  std::mt19937_64 random(test::seed());
  std::vector<std::string> keys;
  for (int i = 0; i < 2000; ++i) {
    std::string key;
    const size_t length = 1 + random() % 12;
    for (size_t k = 0; k < length; ++k) {
      key.push_back(static_cast<char>("ab\0\xFF\x80"[random() % 5]));
    }
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  std::shuffle(keys.begin(), keys.end(), random);
  const size_t half = keys.size() / 2;
  std::vector<PieceTrie::Entry> entries;
  for (size_t i = 0; i < half; ++i) entries.push_back({keys[i], static_cast<int32_t>(i)});
  PieceTrie trie;
  EXPECT_EQ(trie.build(entries), int64_t{PieceTrie::kNone});
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(trie.find(keys[i]), i < half ? static_cast<int32_t>(i) : PieceTrie::kNone);
  }
  entries.push_back({keys[0], 7});
  EXPECT(trie.build(entries) != PieceTrie::kNone);
}

TEST(trie_longest_prefix) {
  PieceTrie trie;
  EXPECT_EQ(trie.longest_prefix_bytes("abc"), size_t{0});
  trie.build({{"ab", 0}, {"abcd", 1}, {"b", 2}});
  EXPECT_EQ(trie.longest_prefix_bytes("abce"), size_t{2});
  EXPECT_EQ(trie.longest_prefix_bytes("abcde"), size_t{4});
  EXPECT_EQ(trie.longest_prefix_bytes("a"), size_t{0});
}

TEST(normalizer_white_space_rules) {
  NormalizerRules rules;
  EXPECT_EQ(normalize(rules, "  a  b "), std::string("▁a▁b"));
  rules.remove_extra_whitespaces = false;
  EXPECT_EQ(normalize(rules, " a  b "), std::string("▁▁a▁▁b▁"));
  rules.treat_whitespace_as_suffix = true;
  EXPECT_EQ(normalize(rules, "a b"), std::string("a▁b▁"));
  rules.escape_whitespaces = false;
  rules.add_dummy_prefix = false;
  EXPECT_EQ(normalize(rules, "a b"), std::string("a b"));
  EXPECT_EQ(normalize(rules, ""), std::string());
}

TEST(normalizer_applies_the_character_map) {
  NormalizerRules rules = {.charsmap = charsmap_of('x', "yz"), .add_dummy_prefix = false};
  EXPECT_EQ(normalize(rules, "axb"), std::string("ayzb"));
  rules.charsmap = charsmap_of('x', "");
  EXPECT_EQ(normalize(rules, "axb"), std::string("ab"));
}

TEST(normalizer_refuses_damaged_maps) {
  const auto make = [](const std::string& map) { Normalizer n(NormalizerRules{.charsmap = map}); };
  const std::string good = charsmap_of('x', "y");
  make(good);
  for (const std::string& bad :
       {std::string("abc"), u32(8) + "abcd", u32(3) + "abcdef", u32(0) + "ab", u32(1U << 31) + good,
        good.substr(0, good.size() - 1), charsmap_of('x', "y", 99)}) {
    EXPECT_THROWS_CODE(Code::kTokenizerFormat, make(bad));
  }
  EXPECT_THROWS_CODE(Code::kLimit, make(charsmap_of('x', std::string(4097, 'y'))));
  // A leaf outside the array.
  std::string outside = good;
  outside.replace(4 + 4 * (256 ^ 'x'), 4, u32((1U << 20) << 10 | (1U << 8) | 'x'));
  EXPECT_THROWS_CODE(Code::kTokenizerFormat, make(outside));
}

namespace {

// A map for `bytes` of 'a' in a row -> "y": the children of the n-th lie around 256 * n. The units
// after the last lead on to `next` (0: nowhere).
std::string chain_map(uint32_t bytes, uint32_t next) {
  std::vector<uint32_t> units(256 * (bytes + 2), kNoChild);
  units[0] = 256U << 10;
  for (uint32_t n = 1; n <= bytes; ++n) {
    const uint32_t at = 256 * n + 'a';
    const uint32_t children = 256 * (n == bytes && next != 0 ? next : n + 1);
    units[at] = ((at ^ children) << 10) | 'a';
    if (n < bytes) continue;
    units[at] |= 1U << 8;
    units[children] = 1U << 31;
  }
  std::string map = u32(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) map += u32(unit);
  return map + "y" + std::string(1, '\0');
}

}  // namespace

// Every place of a text may follow a rule to its end, so a rule without an end is quadratic time.
TEST(normalizer_refuses_rules_without_an_end) {
  const auto make = [](const std::string& map) { Normalizer n(NormalizerRules{.charsmap = map}); };
  EXPECT_EQ(normalize({.charsmap = chain_map(3, 0), .add_dummy_prefix = false}, "aaaaa"),
            std::string("yaa"));
  for (const uint32_t back : {1U, 2U, 3U}) {
    EXPECT_THROWS_CODE(Code::kTokenizerFormat, make(chain_map(3, back)));
  }
  make(chain_map(256, 0));
  EXPECT_THROWS_CODE(Code::kLimit, make(chain_map(257, 0)));
}

// Two rules with the same end share its units in every map that SentencePiece writes.
TEST(normalizer_takes_rules_that_share_their_ends) {
  std::vector<uint32_t> units(1024, kNoChild);
  units[0] = 256U << 10;
  for (const uint32_t first : {256U + 'a', 256U + 'b'}) {
    units[first] = ((first ^ 512U) << 10) | (first & 0xFFU);
  }
  units[512 + 'c'] = (((512U + 'c') ^ 768U) << 10) | (1U << 8) | 'c';
  units[768] = 1U << 31;
  std::string map = u32(static_cast<uint32_t>(units.size() * 4));
  for (const uint32_t unit : units) map += u32(unit);
  map += std::string("y\0", 2);
  EXPECT_EQ(normalize({.charsmap = map, .add_dummy_prefix = false}, "acbcc"), std::string("yyc"));
}

TEST(normalizer_survives_any_map) {
  std::mt19937_64 random(test::seed());
  for (int round = 0; round < 300; ++round) {
    std::string map = charsmap_of('x', "yz");
    for (int k = 0; k < 20; ++k) {
      map[4 + random() % (map.size() - 4)] = static_cast<char>(random());
    }
    try {
      normalize({.charsmap = map}, "the x and \xFF\x80 more x");
    } catch (const Error& e) {
      EXPECT(e.code() == Code::kTokenizerFormat || e.code() == Code::kLimit);
    }
  }
}

TEST(normalizer_bounds_growth) {
  const NormalizerRules rules = {.charsmap = charsmap_of('x', std::string(4000, 'y'))};
  EXPECT_THROWS_CODE(Code::kLimit, normalize(rules, std::string(1000, 'x')));
}

// Positions in normalised text have 32 bits: no text may grow beyond them, and the cutters refuse
// one that has. The pointer is never followed.
TEST(positions_in_normalised_text_fit_32_bits) {
  EXPECT_EQ(max_normalized_bytes(10), size_t{384});
  for (const size_t text : {size_t{1} << 25, size_t{1} << 26, size_t{1} << 28, size_t{1} << 40}) {
    EXPECT(max_normalized_bytes(text) <= size_t{INT32_MAX});
  }
  TokenizerTables tables = test::tables_of(ModelKind::kUnigram, {{"a", -1}});
  const Vocabulary vocabulary(&tables);
  const std::string_view huge("x", size_t{1} << 31);
  std::vector<ModelPiece> pieces;
  EXPECT_THROWS_CODE(Code::kLimit, encode_unigram(vocabulary, huge, false, &pieces));
  EXPECT_THROWS_CODE(Code::kLimit, encode_bpe(vocabulary, huge, false, &pieces));
}

TEST(stop_matcher_holds_back_only_what_may_match) {
  StopMatcher matcher({"END", "\n\n"});
  EXPECT_EQ(matcher.push("abcE").text, std::string("abc"));
  EXPECT_EQ(matcher.push("Nx").text, std::string("ENx"));
  EXPECT_EQ(matcher.push("\n").text, std::string());
  EXPECT_EQ(matcher.push("E").text, std::string("\n"));
  const StopMatcher::Result result = matcher.push("ND of it");
  EXPECT_EQ(result.text, std::string());
  EXPECT_EQ(result.stop, 0);
  EXPECT_EQ(matcher.push("more").text, std::string());
  EXPECT_EQ(matcher.finish(), std::string());
}

TEST(stop_matcher_first_end_wins_then_the_longest) {
  StopMatcher matcher({"abcd", "bc", "abc"});
  const StopMatcher::Result result = matcher.push("xabcd");
  EXPECT_EQ(result.text, std::string("x"));
  EXPECT_EQ(result.stop, 2);
  EXPECT_THROWS_CODE(Code::kInvalidOption, StopMatcher({"a", ""}));
  StopMatcher none;
  EXPECT_EQ(none.push("anything").text, std::string("anything"));
}

// Any cut into parts gives what a search over the whole text gives.
TEST(stop_matcher_equals_a_plain_search) {
  std::mt19937_64 random(test::seed());
  const auto word = [&](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text.push_back(random() % 2 == 0 ? 'a' : 'b');
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(3 + random() % 5));
    const std::string text = word(random() % 40);
    size_t end = std::string::npos;
    size_t bytes = 0;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      const size_t stop_end = at + stop.size();
      if (stop_end < end || (stop_end == end && stop.size() > bytes)) {
        end = stop_end;
        bytes = stop.size();
      }
    }
    const std::string expected = end == std::string::npos ? text : text.substr(0, end - bytes);
    StopMatcher matcher(stops);
    std::string got;
    int32_t stop = -1;
    for (size_t at = 0; at < text.size() && stop < 0;) {
      const size_t part = 1 + random() % 4;
      const StopMatcher::Result result = matcher.push(std::string_view(text).substr(at, part));
      got += result.text;
      EXPECT(expected.compare(0, got.size(), got) == 0);
      stop = result.stop;
      at += part;
    }
    got += matcher.finish();
    EXPECT_EQ(got, expected);
    EXPECT_EQ(stop >= 0, end != std::string::npos);
  }
}

}  // namespace polylm
