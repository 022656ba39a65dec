// unigram.h: the best cut of a text under a unigram model: Viterbi over the vocabulary's trie, with
// SentencePiece's scores, float32 rounding and tie rule, so that every tie falls the same way.
#pragma once

#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace polylm {

// Appends the pieces of `normalized` to `out`; characters without a piece get unk, one each.
// plain: blocked pieces are not used.
void encode_unigram(const Vocabulary& vocabulary, std::string_view normalized, bool plain,
                    std::vector<ModelPiece>* out);

}  // namespace polylm
