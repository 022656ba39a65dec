// tokenizer_test.cc: the tokenizer as the engine uses it: every refusal of create, the algorithms
// on hand-made vocabularies, hostile texts, plain mode, streaming. Equality with Hugging Face on
// every fixture string is test/unit/tokenizer-fixtures.test.ts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "harness.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "tokenizer_fixture.h"

namespace polylm {
namespace {

using test::fixture_tables;
using test::tables_of;
using test::TestPiece;
using Ids = std::vector<int32_t>;
using Edit = std::function<void(TokenizerTables*)>;

const std::vector<TestPiece> kLetters = {
    {"▁", -2}, {"a", -3}, {"b", -4}, {"ab", -5}, {"▁a", -6}};

std::string show_ids(const Ids& ids) {
  std::string text;
  for (const int32_t id : ids) text += std::to_string(id) + " ";
  return text;
}

void refuse(Code code, const Edit& edit) {
  TokenizerTables tables = tables_of(ModelKind::kUnigram, kLetters);
  edit(&tables);
  EXPECT_THROWS_CODE(code, Tokenizer::create(std::move(tables)));
}

std::string raw_pieces(const Tokenizer& tokenizer, const std::string& text) {
  std::string joined;
  for (const int32_t id : tokenizer.encode_raw(text)) {
    joined += std::string(tokenizer.piece(id)) + "|";
  }
  return joined;
}

// A text of random characters, among them every special string and incomplete looking ones.
std::string random_text(std::mt19937_64* random) {
  static const std::vector<std::string> kParts = {
      " ", "  ", "\n", "a", "hello", "▁", "<s>", "</s>", "<unk>", "<", "|user|", ">", "é", "北京",
      "日本語", "😀", "ﷺ", "สวัสดี", "안녕", "<0x0A>", "123", "<|user|>", "<|assistant|>",
      "\xEF\xBF\xBD"};
  std::string text;
  for (size_t i = (*random)() % 12; i > 0; --i) text += kParts[(*random)() % kParts.size()];
  return text;
}

// Both fixtures under every version and legacy. blocked: a marker that is a piece of the unigram
// model is declared special as well.
std::vector<std::shared_ptr<const Tokenizer>> all_fixture_tokenizers(bool blocked) {
  std::vector<std::shared_ptr<const Tokenizer>> made;
  for (int i = 0; i < 12; ++i) {
    const bool unigram = i % 2 == 0;
    TokenizerTables tables = fixture_tables(unigram ? "unigram" : "bpe");
    tables.legacy = i / 2 % 2 == 1;
    tables.compat = static_cast<Compat>(i / 4);
    if (blocked && unigram) {
      tables.added.push_back({.content = "<|user|>", .id = 3, .special = true});
    }
    made.push_back(Tokenizer::create(std::move(tables)));
  }
  return made;
}

}  // namespace

TEST(tokenizer_refuses_damaged_vocabularies) {
  const auto piece = [](const TestPiece& p) {
    return [p](TokenizerTables* t) { test::add_piece(t, p); };
  };
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) {
    *t = TokenizerTables();
    t->piece_offsets = {0};
  });
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) { t->scores.pop_back(); });
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) { t->blob += "x"; });
  refuse(Code::kTokenizerFormat,
         [](TokenizerTables* t) { std::swap(t->piece_offsets[1], t->piece_offsets[2]); });
  refuse(Code::kTokenizerFormat, piece({"", 0}));
  refuse(Code::kLimit, piece({std::string(4097, 'x'), 0}));
  refuse(Code::kTokenizerFormat, piece({"\xE2\x96", 0}));
  refuse(Code::kTokenizerFormat, piece({"x", std::nanf("")}));
  refuse(Code::kTokenizerFormat, piece({"x", INFINITY}));
  refuse(Code::kTokenizerFormat, piece({"x", 0, static_cast<PieceType>(7)}));
  refuse(Code::kTokenizerFormat, piece({"x", 0, PieceType::kUnknown}));
  refuse(Code::kTokenizerFormat, piece({"<0x41>", 0, PieceType::kByte}));
  refuse(Code::kTokenizerDuplicate, piece({"ab", -9}));
  refuse(Code::kTokenizerDuplicate, piece({"<s>", -9}));
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) { t->types[0] = 3; });
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) { t->byte_fallback = true; });
  refuse(Code::kTokenizerFormat, [](TokenizerTables* t) {
    t->byte_fallback = true;
    test::add_piece(t, {"<0x4g>", 0, PieceType::kByte});
  });
}

TEST(tokenizer_accepts_the_limits) {
  TokenizerTables tables = tables_of(ModelKind::kUnigram, kLetters);
  test::add_piece(&tables, {std::string(4096, 'x'), -1});
  test::add_piece(&tables, {std::string("a\0b", 3), -1});
  const auto tokenizer = Tokenizer::create(tables);
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(show_ids(tokenizer->encode_raw(std::string("a\0b", 3))), std::string("3 9 "));
}

TEST(tokenizer_refuses_bad_added_tokens) {
  const auto added = [](const AddedToken& token) {
    return [token](TokenizerTables* t) { t->added.push_back(token); };
  };
  refuse(Code::kTokenizerFormat, added({.content = "", .id = 9}));
  refuse(Code::kTokenizerFormat, added({.content = "\xFF", .id = 9}));
  refuse(Code::kLimit, added({.content = std::string(4097, 'x'), .id = 9}));
  refuse(Code::kTokenizerRange, added({.content = "x", .id = -1}));
  refuse(Code::kTokenizerRange, added({.content = "x", .id = INT32_MAX}));
  refuse(Code::kTokenizerConflict, added({.content = "x", .id = 4}));
  refuse(Code::kTokenizerDuplicate, added({.content = "ab", .id = 9}));
  refuse(Code::kTokenizerDuplicate, added({.content = "<s>", .id = 1}));
  refuse(Code::kTokenizerRange, [](TokenizerTables* t) { t->eos_id = 8; });
  refuse(Code::kTokenizerConflict, [](TokenizerTables* t) {
    t->bos_id = -1;
    t->add_bos = true;
  });
  refuse(Code::kTokenizerDuplicate, [](TokenizerTables* t) {
    t->added.push_back({.content = "x", .id = 9});
    t->added.push_back({.content = "y", .id = 9});
  });
}

namespace {

// A unigram model with all 256 byte pieces, ids 3 to 258, and the given ones after them.
TokenizerTables tables_with_bytes(const std::vector<TestPiece>& more) {
  std::vector<TestPiece> pieces;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    pieces.push_back({name, 0, PieceType::kByte});
  }
  pieces.insert(pieces.end(), more.begin(), more.end());
  TokenizerTables tables = tables_of(ModelKind::kUnigram, pieces);
  tables.byte_fallback = true;
  return tables;
}

}  // namespace

// Any text can fall back to any byte: a byte piece that is a control token would be text as well.
TEST(tokenizer_refuses_special_byte_pieces) {
  const auto make = [](const Edit& edit) {
    TokenizerTables tables = tables_with_bytes(kLetters);
    edit(&tables);
    return Tokenizer::create(std::move(tables));
  };
  make([](TokenizerTables*) {});
  make([](TokenizerTables* t) { t->added.push_back({.content = "<0x0A>", .id = 13}); });
  EXPECT_THROWS_CODE(Code::kTokenizerConflict, make([](TokenizerTables* t) {
                       t->added.push_back({.content = "<0x0A>", .id = 13, .special = true});
                     }));
  EXPECT_THROWS_CODE(Code::kTokenizerConflict, make([](TokenizerTables* t) { t->eos_id = 13; }));
  EXPECT_THROWS_CODE(Code::kTokenizerConflict, make([](TokenizerTables* t) { t->pad_id = 3; }));
}

namespace {

// 265 and 271 are the ids of added tokens that are ordinary pieces.
void expect_plain(const Tokenizer& tokenizer, const char* text) {
  for (const bool at_start : {true, false}) {
    for (const int32_t id :
         tokenizer.encode(text, {.parse_special = false, .at_start = at_start})) {
      EXPECT(!tokenizer.is_special(id) && id != 265 && id != 271);
    }
  }
}

}  // namespace

// Control tokens are not text, whatever the pieces are called: a piece that is one with a space
// mark before it (4.31 takes the mark off by name), and an added token that is an ordinary piece.
TEST(plain_text_never_becomes_an_added_token) {
  for (const ModelKind kind : {ModelKind::kUnigram, ModelKind::kBpe}) {
    for (const Compat compat : {Compat::k431, Compat::k436, Compat::k455}) {
      TokenizerTables tables =
          tables_with_bytes({{"▁</s>", -0.1F}, {"▁", -1}, {"<", -1}, {"/", -1}, {"s", -1},
                             {">", -1}, {"<x>", -0.5F}, {"▁<x>", -0.2F}, {"</", -2},
                             {"</s", -1}, {"x>", -1}, {"x", -2}});
      tables.kind = kind;
      tables.compat = compat;
      tables.added.push_back({.content = "<x>", .id = 265});
      test::add_piece(&tables, {"<y>", 0, PieceType::kUserDefined});
      tables.added.push_back({.content = "<y>", .id = 271});
      const auto tokenizer = Tokenizer::create(tables);
      EXPECT_EQ(tokenizer->piece(265), std::string_view("<x>"));
      EXPECT_EQ(tokenizer->piece(271), std::string_view("<y>"));
      for (const char* text : {"</s>", " </s>", "<x>", " <x>", "a<x>b", "<y>", "a<y></s><x>"}) {
        expect_plain(*tokenizer, text);
      }
      const Ids parsed = tokenizer->encode("<y><x>", {});
      EXPECT(std::find(parsed.begin(), parsed.end(), 265) != parsed.end());
      EXPECT(std::find(parsed.begin(), parsed.end(), 271) != parsed.end());
    }
  }
}

TEST(tokenizer_holes_decode_to_nothing) {
  TokenizerTables tables = tables_of(ModelKind::kUnigram, kLetters);
  tables.added.push_back({.content = "x", .id = 20});
  tables.id_limit = 32;
  const auto tokenizer = Tokenizer::create(tables);
  EXPECT_EQ(tokenizer->vocab_size(), 21);
  EXPECT_EQ(tokenizer->id_limit(), 32);
  const Ids ids = {4, 15, 31, 5};
  EXPECT_EQ(tokenizer->decode(ids.data(), 4, true), std::string("ab"));
  for (const int32_t bad : {-1, 32, INT32_MIN, INT32_MAX}) {
    EXPECT_THROWS_CODE(Code::kInvalidPrompt, tokenizer->decode(&bad, 1, true));
  }
}

TEST(unigram_takes_the_best_cut_and_the_first_of_equals) {
  TokenizerTables tables = tables_of(
      ModelKind::kUnigram, {{"a", -1}, {"b", -1}, {"c", -1}, {"ab", -2}, {"bc", -2}, {"▁", -1}});
  tables.add_dummy_prefix = false;
  // Of equal cuts the one stays whose last piece begins first.
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "ab"), std::string("ab|"));
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "abc"), std::string("a|bc|"));
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "xxa"), std::string("<unk>|a|"));
}

TEST(unigram_user_defined_and_unused_pieces) {
  TokenizerTables tables =
      tables_of(ModelKind::kUnigram, {{"a", -1}, {"b", -1}, {"aab", -1.05F}, {"▁", -1}});
  test::add_piece(&tables, {"ab", 0, PieceType::kUserDefined});
  tables.add_dummy_prefix = false;
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "aab"), std::string("aab|"));
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "bab"), std::string("b|ab|"));
  tables.types[5] = static_cast<uint8_t>(PieceType::kUnused);
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "aab"), std::string("a|ab|"));
  tables.types.back() = static_cast<uint8_t>(PieceType::kUnused);
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "aab"), std::string("a|a|b|"));
}

TEST(bpe_merges_by_score_then_leftmost) {
  TokenizerTables tables = tables_of(
      ModelKind::kBpe, {{"a", 0}, {"b", 0}, {"c", 0}, {"aa", -1}, {"ab", -1}, {"bc", -0.5F}});
  tables.add_dummy_prefix = false;
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "aaa"), std::string("aa|a|"));
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "aab"), std::string("aa|b|"));
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "abc"), std::string("a|bc|"));
}

TEST(bpe_keeps_user_defined_whole_and_takes_unused_apart) {
  TokenizerTables tables =
      tables_of(ModelKind::kBpe, {{"a", 0}, {"b", 0}, {"c", 0}, {"abc", 1}, {"abca", 2}});
  test::add_piece(&tables, {"ab", 3, PieceType::kUserDefined});
  tables.add_dummy_prefix = false;
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "abca"), std::string("ab|c|a|"));
  tables.types.back() = static_cast<uint8_t>(PieceType::kNormal);
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "abca"), std::string("abca|"));
  tables.types[7] = tables.types[6] = static_cast<uint8_t>(PieceType::kUnused);
  EXPECT_EQ(raw_pieces(*Tokenizer::create(tables), "abca"), std::string("ab|c|a|"));
}

// Deep nesting of unused pieces and long runs must not recurse.
TEST(bpe_takes_deep_unused_pieces_apart_without_recursion) {
  std::vector<TestPiece> pieces = {{"a", 0}};
  for (size_t n = 2; n <= 3000; ++n) {
    pieces.push_back({std::string(n, 'a'), static_cast<float>(n), PieceType::kUnused});
  }
  TokenizerTables tables = tables_of(ModelKind::kBpe, pieces);
  tables.add_dummy_prefix = false;
  EXPECT_EQ(Tokenizer::create(tables)->encode_raw(std::string(3000, 'a')).size(), size_t{3000});
}

TEST(tokenizer_takes_hostile_texts) {
  const size_t size = size_t{1} << 20;
  const std::vector<std::string> units = {
      "a", " ", "\n", "ab", "\xCC\x81", "👨‍👩‍👧", "\xEF\xBF\xBD", "▁", "<s", "<|user|>", "\xFF",
      "zqxj", "ﷺ", std::string(1, '\0')};
  for (const char* name : {"unigram", "bpe"}) {
    const auto tokenizer = Tokenizer::create(fixture_tables(name));
    for (const std::string& unit : units) {
      std::string text;
      while (text.size() < size) text += unit;
      const Ids ids = tokenizer->encode(text, {});
      const std::string back =
          tokenizer->decode(ids.data(), static_cast<int64_t>(ids.size()), false);
      EXPECT(is_valid_utf8(back));
      if (unit == "a" || unit == "ab" || unit == "zqxj") EXPECT_EQ(back, text);
    }
  }
}

TEST(tokenizer_refuses_a_text_beyond_the_limit) {
  const auto tokenizer = Tokenizer::create(tables_of(ModelKind::kBpe, kLetters));
  // The pointer is never followed: the size is looked at first.
  const std::string_view huge("x", static_cast<size_t>(kMaxTextBytes) + 1);
  EXPECT_THROWS_CODE(Code::kLimit, tokenizer->encode(huge, {}));
  EXPECT_THROWS_CODE(Code::kLimit, tokenizer->encode_with_offsets(huge, {}));
  EXPECT_THROWS_CODE(Code::kLimit, tokenizer->encode_raw(huge));
}

TEST(plain_text_never_becomes_special) {
  std::mt19937_64 random(test::seed());
  for (const auto& tokenizer : all_fixture_tokenizers(true)) {
    for (int round = 0; round < 300; ++round) {
      const std::string text = random_text(&random);
      for (const int32_t id : tokenizer->encode(text, {.parse_special = false})) {
        EXPECT(!tokenizer->is_special(id));
      }
    }
    for (const char* token : {"<s>", "</s>", "<unk>", "<|user|>"}) {
      const Ids ids = tokenizer->encode(token, {});
      EXPECT(std::any_of(ids.begin(), ids.end(),
                         [&](int32_t id) { return tokenizer->is_special(id); }));
    }
  }
}

TEST(offsets_point_into_the_text) {
  std::mt19937_64 random(test::seed());
  for (const char* name : {"unigram", "bpe"}) {
    for (const Compat compat : {Compat::k431, Compat::k455}) {
      TokenizerTables tables = fixture_tables(name);
      tables.compat = compat;
      tables.add_eos = true;
      const auto tokenizer = Tokenizer::create(tables);
      for (int round = 0; round < 500; ++round) {
        const std::string text = random_text(&random);
        const Encoding encoding = tokenizer->encode_with_offsets(text, {});
        EXPECT_EQ(show_ids(encoding.ids), show_ids(tokenizer->encode(text, {})));
        const uint32_t units = utf16_positions(text).back();
        uint32_t last = 0;
        for (size_t i = 0; i < encoding.ids.size(); ++i) {
          const uint32_t begin = encoding.offsets[2 * i];
          EXPECT(last <= begin && begin <= encoding.offsets[2 * i + 1]);
          EXPECT(encoding.offsets[2 * i + 1] <= units);
          last = begin;
        }
      }
    }
  }
}

TEST(offsets_through_normalisation) {
  const auto tokenizer = Tokenizer::create(fixture_tables("unigram"));
  const std::string text = "  ﬁ 😀";  // two spaces, a ligature (fi), an emoji of four bytes
  const Encoding encoding = tokenizer->encode_with_offsets(text, {});
  EXPECT_EQ(encoding.offsets.back(), 6U);
  EXPECT_EQ(encoding.offsets[encoding.offsets.size() - 2], 4U);
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    if (tokenizer->piece(encoding.ids[i]).substr(0, 3) == "<0x") {
      EXPECT_EQ(encoding.offsets[2 * i], 4U);
      EXPECT_EQ(encoding.offsets[2 * i + 1], 6U);
    }
  }
}

namespace {

// The parts of a stream are its whole, never a broken character, and a seeded one is the rest.
void check_stream(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip,
                  size_t prompt) {
  const std::string whole = tokenizer->decode(ids.data(), static_cast<int64_t>(ids.size()), skip);
  StreamDecoder stream(tokenizer, skip);
  std::string joined;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    EXPECT(is_valid_utf8(part));
    joined += part;
  }
  EXPECT_EQ(joined + stream.finish(), whole);
  StreamDecoder rest(tokenizer, skip);
  rest.seed(ids.data(), static_cast<int64_t>(prompt));
  std::string tail;
  for (size_t i = prompt; i < ids.size(); ++i) tail += rest.push(ids[i]);
  tail += rest.finish();
  EXPECT(whole.size() >= tail.size() && whole.substr(whole.size() - tail.size()) == tail);
}

}  // namespace

TEST(stream_decoder_equals_decode) {
  std::mt19937_64 random(test::seed());
  for (const auto& tokenizer : all_fixture_tokenizers(false)) {
    const auto all = static_cast<uint64_t>(tokenizer->vocab_size());
    const uint64_t ranges[] = {3, 270, 270, 270, all, all, all};
    for (int round = 0; round < 300; ++round) {
      Ids ids;
      for (size_t i = random() % 30; i > 0; --i) {
        ids.push_back(static_cast<int32_t>(random() % ranges[random() % 7]));
      }
      check_stream(tokenizer, ids, round % 2 == 0, random() % (ids.size() + 1));
    }
  }
}

TEST(stream_decoder_is_prompt_with_ordinary_text) {
  const auto tokenizer = Tokenizer::create(fixture_tables("bpe"));
  const Ids ids = tokenizer->encode("Hello world, 日本語 ok", {});
  StreamDecoder stream(tokenizer, true);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    text += stream.push(ids[i]);
    std::string whole = tokenizer->decode(ids.data(), static_cast<int64_t>(i) + 1, true);
    while (whole.size() >= 3 && whole.substr(whole.size() - 3) == kReplacementUtf8) {
      whole.resize(whole.size() - 3);
    }
    EXPECT_EQ(text, whole);
  }
}

TEST(continuation_is_encoded_as_after_a_special_token) {
  for (const Compat compat : {Compat::k431, Compat::k455}) {
    for (const bool legacy : {false, true}) {
      TokenizerTables tables = fixture_tables("bpe");
      tables.compat = compat;
      tables.legacy = legacy;
      const auto tokenizer = Tokenizer::create(tables);
      for (const char* text : {"hello", " hello", "\nhello", "日本", "  "}) {
        Ids whole = tokenizer->encode(std::string("</s>") + text, {});
        whole.erase(whole.begin());
        const Ids rest = tokenizer->encode(text, {.at_start = false});
        EXPECT_EQ(show_ids(rest), show_ids(whole));
      }
    }
  }
}

}  // namespace polylm
