// bpe.h: SentencePiece's byte-pair encoding: the best-scored neighbouring pair is merged first, of
// equal ones the leftmost, through a priority queue in n log n. User-defined pieces never merge.
#pragma once

#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace polylm {

// Appends the pieces of `normalized` to `out`; what is no piece gets unk.
// plain: blocked pieces are not used.
void encode_bpe(const Vocabulary& vocabulary, std::string_view normalized, bool plain,
                std::vector<ModelPiece>* out);

}  // namespace polylm
