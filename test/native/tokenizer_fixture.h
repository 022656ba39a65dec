// tokenizer_fixture.h: tokenizers for native tests: small ones from a list of pieces, and the
// golden ones of test/fixtures/tokenizers, whose tokenizer.model is read by a trusting protobuf
// walk (the product's reader is TypeScript and trusts nothing).
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace polylm::test {

struct TestPiece {
  std::string text;
  float score;
  PieceType type = PieceType::kNormal;
};

inline void add_piece(TokenizerTables* tables, const TestPiece& piece) {
  if (tables->piece_offsets.empty()) tables->piece_offsets.push_back(0);
  tables->blob += piece.text;
  tables->piece_offsets.push_back(static_cast<uint32_t>(tables->blob.size()));
  tables->scores.push_back(piece.score);
  tables->types.push_back(static_cast<uint8_t>(piece.type));
}

// <unk>, <s>, </s> and then the given pieces; no byte fallback, no normalisation.
inline TokenizerTables tables_of(ModelKind kind, const std::vector<TestPiece>& pieces) {
  TokenizerTables tables;
  tables.kind = kind;
  add_piece(&tables, {"<unk>", 0, PieceType::kUnknown});
  add_piece(&tables, {"<s>", 0, PieceType::kControl});
  add_piece(&tables, {"</s>", 0, PieceType::kControl});
  for (const TestPiece& piece : pieces) add_piece(&tables, piece);
  tables.unk_id = 0;
  tables.bos_id = 1;
  tables.eos_id = 2;
  tables.remove_extra_whitespaces = false;
  tables.added = {{.content = "<unk>", .id = 0, .special = true},
                  {.content = "<s>", .id = 1, .special = true},
                  {.content = "</s>", .id = 2, .special = true}};
  return tables;
}

struct ProtoField {
  uint64_t number, value;    // value of a varint
  std::string_view bytes;    // of the other kinds
};

inline uint64_t proto_varint(std::string_view* rest) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(rest->front());
    rest->remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7FU) << shift;
    if (byte < 0x80) return value;
  }
}

inline std::vector<ProtoField> proto_fields(std::string_view message) {
  std::vector<ProtoField> fields;
  while (!message.empty()) {
    const uint64_t tag = proto_varint(&message);
    ProtoField field = {tag >> 3, 0, {}};
    if ((tag & 7) == 0) {
      field.value = proto_varint(&message);
    } else {
      const size_t bytes = (tag & 7) == 5 ? 4 : static_cast<size_t>(proto_varint(&message));
      field.bytes = message.substr(0, bytes);
      message.remove_prefix(bytes);
    }
    fields.push_back(field);
  }
  return fields;
}

inline void read_piece(std::string_view message, TokenizerTables* tables) {
  TestPiece piece = {"", 0};
  for (const ProtoField& field : proto_fields(message)) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) std::memcpy(&piece.score, field.bytes.data(), sizeof(float));
    if (field.number == 3) piece.type = static_cast<PieceType>(field.value);
  }
  add_piece(tables, piece);
}

// trainer_spec (2) or normalizer_spec (3).
inline void read_spec(const ProtoField& spec, TokenizerTables* tables) {
  for (const ProtoField& field : proto_fields(spec.bytes)) {
    const uint64_t number = spec.number * 100 + field.number;
    if (number == 203) tables->kind = static_cast<ModelKind>(field.value);
    if (number == 235) tables->byte_fallback = field.value != 0;
    if (number == 302) tables->charsmap = field.bytes;
    if (number == 304) tables->remove_extra_whitespaces = field.value != 0;
  }
}

// name: "unigram" or "bpe". The markers of bpe are added as special tokens 4000 and 4001.
inline TokenizerTables fixture_tables(const std::string& name) {
  std::ifstream file(std::string(POLYLM_FIXTURES "/tokenizers/") + name + "/tokenizer.model",
                     std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  const std::string bytes = content.str();
  TokenizerTables tables;
  for (const ProtoField& field : proto_fields(bytes)) {
    if (field.number == 1) read_piece(field.bytes, &tables);
    if (field.number == 2 || field.number == 3) read_spec(field, &tables);
  }
  tables.unk_id = 0;
  tables.bos_id = 1;
  tables.eos_id = 2;
  tables.added = tables_of(tables.kind, {}).added;
  if (name == "bpe") {
    tables.added.push_back(
        {.content = "<|user|>", .id = 4000, .special = true, .additional = true});
    tables.added.push_back(
        {.content = "<|assistant|>", .id = 4001, .special = true, .additional = true});
  }
  return tables;
}

}  // namespace polylm::test
