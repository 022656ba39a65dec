// piece_trie.h: strings to numbers, walked byte by byte: all pieces that begin at a place of the
// text are found in one walk. Built once, then read-only. Nodes lie in breadth-first order, so the
// children of node i are labels [first_child[i], first_child[i + 1]), sorted.
// Trap: a node that is no piece's end has no value; find() of a mere prefix is kNone.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace polylm {

class PieceTrie {
 public:
  static constexpr int32_t kNone = -1;
  struct Entry {
    std::string_view key;  // not empty; only read by build
    int32_t value = 0;     // >= 0
  };

  // Replaces the content. Returns the index (in entries) of a key that occurs twice, or kNone.
  int64_t build(const std::vector<Entry>& entries);

  bool empty() const { return labels_.size() <= 1; }
  int32_t root() const { return 0; }
  // The node after one more byte, or kNone. node must be a node.
  int32_t child(int32_t node, uint8_t byte) const {
    if (node == 0) return root_child_[byte];
    const size_t at = static_cast<size_t>(node);
    uint32_t low = first_child_[at];
    uint32_t high = first_child_[at + 1];
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (labels_[middle] < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const bool found = low < first_child_[at + 1] && labels_[low] == byte;
    return found ? static_cast<int32_t>(low) : kNone;
  }
  int32_t walk(int32_t node, std::string_view bytes) const {
    for (const char c : bytes) {
      if (node == kNone) return kNone;
      node = child(node, static_cast<uint8_t>(c));
    }
    return node;
  }
  int32_t value(int32_t node) const { return values_[static_cast<size_t>(node)]; }
  int32_t find(std::string_view key) const {
    const int32_t node = walk(root(), key);
    return node == kNone ? kNone : value(node);
  }
  // Bytes of the longest key that text begins with; 0: none.
  size_t longest_prefix_bytes(std::string_view text) const;

 private:
  std::vector<uint32_t> first_child_ = {1, 1};  // [nodes + 1]
  std::vector<uint8_t> labels_ = {0};           // [nodes]
  std::vector<int32_t> values_ = {kNone};       // [nodes]
  std::vector<int32_t> root_child_ = std::vector<int32_t>(256, kNone);
};

}  // namespace polylm
