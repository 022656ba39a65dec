// bpe.cc: see bpe.h. Follows bpe_model.cc of SentencePiece 0.1.97. Merged pieces that the model
// marks as unused are taken apart again at the end, along the merge that made them.
#include "text/bpe.h"

#include <queue>
#include <string>
#include <unordered_map>

#include "platform/checked.h"
#include "text/utf8.h"

namespace polylm {
namespace {

constexpr int32_t kEnd = -1;

struct Symbol {
  uint32_t begin, end;  // empty: merged into its left neighbour
  int32_t previous, next;
  int32_t node;  // where the vocabulary's trie stands after it; kNone: no piece begins so
  bool frozen;   // user-defined
  size_t size_bytes() const { return end - begin; }
};

struct Merge {
  float score;
  int32_t left, right;
  uint32_t size_bytes;  // of the merged piece when it was found; a later change makes it stale
};

struct MergeOrder {
  bool operator()(const Merge& a, const Merge& b) const {
    return a.score < b.score || (a.score == b.score && a.left > b.left);
  }
};

class Merger {
 public:
  Merger(const Vocabulary& vocabulary, std::string_view text, bool plain)
      : vocabulary_(vocabulary), trie_(vocabulary.ordinary()), text_(text), plain_(plain) {}

  void run(std::vector<ModelPiece>* out) {
    split();
    for (size_t i = 1; i < symbols_.size(); ++i) {
      look(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
    }
    while (!queue_.empty()) {
      const Merge merge = queue_.top();
      queue_.pop();
      apply(merge);
    }
    for (int32_t i = symbols_.empty() ? kEnd : 0; i != kEnd; i = symbol(i).next) {
      write(symbol(i), out);
    }
  }

 private:
  Symbol& symbol(int32_t i) { return symbols_[static_cast<size_t>(i)]; }

  // One symbol per character or user-defined piece.
  void split() {
    const PieceTrie& user =
        plain_ ? vocabulary_.plain_user_defined() : vocabulary_.user_defined();
    symbols_.reserve(text_.size());
    for (size_t at = 0; at < text_.size();) {
      const std::string_view rest = text_.substr(at);
      const size_t found = user.empty() ? 0 : user.longest_prefix_bytes(rest);
      const size_t bytes = found > 0 ? found : char_length_bytes(rest);
      const auto index = static_cast<int32_t>(symbols_.size());
      const bool last = bytes == rest.size();
      symbols_.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + bytes), index - 1,
                          last ? kEnd : index + 1,
                          trie_.walk(trie_.root(), rest.substr(0, bytes)), found > 0});
      at += bytes;
    }
  }

  // Queues the merge of two neighbours if the vocabulary has it.
  void look(int32_t left, int32_t right) {
    if (left == kEnd || right == kEnd) return;
    const Symbol& a = symbol(left);
    const Symbol& b = symbol(right);
    if (a.frozen || b.frozen || a.node == PieceTrie::kNone) return;
    const int32_t node = trie_.walk(a.node, text_.substr(b.begin, b.size_bytes()));
    if (node == PieceTrie::kNone) return;
    const int32_t id = trie_.value(node);
    if (id == PieceTrie::kNone || (plain_ && vocabulary_.blocked(id))) return;
    const size_t bytes = a.size_bytes() + b.size_bytes();
    queue_.push({vocabulary_.score(id), left, right, static_cast<uint32_t>(bytes)});
    if (vocabulary_.type(id) == PieceType::kUnused) unused_split_[id] = a.size_bytes();
  }

  void apply(const Merge& merge) {
    Symbol& a = symbol(merge.left);
    Symbol& b = symbol(merge.right);
    if (a.size_bytes() == 0 || b.size_bytes() == 0) return;
    if (a.size_bytes() + b.size_bytes() != merge.size_bytes) return;
    a.node = trie_.walk(a.node, text_.substr(b.begin, b.size_bytes()));
    a.end = b.end;
    a.next = b.next;
    if (b.next != kEnd) symbol(b.next).previous = merge.left;
    b.end = b.begin;
    look(a.previous, merge.left);
    look(merge.left, a.next);
  }

  void write(const Symbol& s, std::vector<ModelPiece>* out) {
    int32_t id = s.node == PieceTrie::kNone ? PieceTrie::kNone : trie_.value(s.node);
    if (id == PieceTrie::kNone || (plain_ && vocabulary_.blocked(id))) {
      id = piece_id(text_.substr(s.begin, s.size_bytes()));
    }
    if (vocabulary_.type(id) == PieceType::kUnused) return take_apart(s.begin, s.end, out);
    out->push_back({id, s.begin, s.end});
  }

  // Writes the parts that an unused piece was merged from, theirs likewise, left to right.
  void take_apart(uint32_t begin, uint32_t end, std::vector<ModelPiece>* out) {
    std::vector<ModelPiece> open = {{0, begin, end}};
    while (!open.empty()) {
      const ModelPiece part = open.back();
      open.pop_back();
      const int32_t id = piece_id(text_.substr(part.begin, part.end - part.begin));
      const auto split = unused_split_.find(id);
      if (split == unused_split_.end()) {
        out->push_back({id, part.begin, part.end});
        continue;
      }
      const auto middle = part.begin + static_cast<uint32_t>(split->second);
      open.push_back({0, middle, part.end});
      open.push_back({0, part.begin, middle});
    }
  }

  // A single character may bear the name of a control piece: plain text must not become one.
  int32_t piece_id(std::string_view piece) const {
    int32_t id = plain_ ? trie_.find(piece) : vocabulary_.find(piece);
    if (id != PieceTrie::kNone && plain_ && vocabulary_.blocked(id)) id = PieceTrie::kNone;
    return id == PieceTrie::kNone ? vocabulary_.unk_id() : id;
  }

  const Vocabulary& vocabulary_;
  const PieceTrie& trie_;
  std::string_view text_;
  bool plain_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Merge, std::vector<Merge>, MergeOrder> queue_;
  std::unordered_map<int32_t, size_t> unused_split_;  // unused piece to the length of its left part
};

}  // namespace

void encode_bpe(const Vocabulary& vocabulary, std::string_view normalized, bool plain,
                std::vector<ModelPiece>* out) {
  narrow<int32_t>(normalized.size());  // symbols are counted in 32 bits
  Merger(vocabulary, normalized, plain).run(out);
}

}  // namespace polylm
