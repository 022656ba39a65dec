// added_tokens.h: the tokens that Hugging Face cuts out of a text before SentencePiece sees it, and
// the cutting: the algorithm of transformers' Trie.split, its quirks included, in time linear in
// the text for markers of bounded length. Trap: what is "special" here decides what skip_special
// skips; an added token need not be special.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/piece_trie.h"
#include "text/tokenizer_tables.h"
#include "text/vocabulary.h"

namespace polylm {

class AddedTokens {
 public:
  struct Segment {
    size_t begin = 0, end = 0;             // bytes of the text
    const AddedToken* token = nullptr;     // null: ordinary text
  };

  // Throws TOKENIZER_FORMAT, _RANGE, _DUPLICATE, _CONFLICT, LIMIT.
  AddedTokens(std::vector<AddedToken> tokens, const Vocabulary& vocabulary);
  AddedTokens(const AddedTokens&) = delete;  // the maps point into tokens_
  AddedTokens& operator=(const AddedTokens&) = delete;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  bool is_special(int32_t id) const {
    const AddedToken* token = find(id);
    return token != nullptr && token->special;
  }
  // Largest id + 1, or 0.
  int32_t id_end() const { return id_end_; }

  // Cuts a valid UTF-8 text; strips white space beside the tokens that ask for it. Empty segments
  // are left out.
  std::vector<Segment> split(std::string_view text) const;

 private:
  class Splitter;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  PieceTrie trie_;
  int32_t id_end_ = 0;
};

}  // namespace polylm
