// piece_trie.cc: building the trie level by level from the sorted keys, without recursion.
#include "text/piece_trie.h"

#include <algorithm>
#include <string>

#include "platform/checked.h"

namespace polylm {
namespace {

struct SortKey {
  uint64_t head;  // first eight bytes, big endian, zero padded: most comparisons end here
  int64_t entry;
};

uint64_t head_of(std::string_view key) {
  uint64_t head = 0;
  for (size_t i = 0; i < 8; ++i) {
    head = (head << 8) | (i < key.size() ? static_cast<uint8_t>(key[i]) : 0U);
  }
  return head;
}

// Entries in the order of their bytes.
std::vector<SortKey> sorted_order(const std::vector<PieceTrie::Entry>& entries) {
  std::vector<SortKey> order;
  order.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    order.push_back({head_of(entries[i].key), static_cast<int64_t>(i)});
  }
  std::sort(order.begin(), order.end(), [&](const SortKey& a, const SortKey& b) {
    if (a.head != b.head) return a.head < b.head;
    return entries[static_cast<size_t>(a.entry)].key < entries[static_cast<size_t>(b.entry)].key;
  });
  return order;
}

// The sorted keys that share the path to one node.
struct Range {
  size_t begin, end, depth;
};

}  // namespace

int64_t PieceTrie::build(const std::vector<Entry>& entries) {
  const std::vector<SortKey> order = sorted_order(entries);
  std::vector<std::string_view> keys;
  keys.reserve(order.size());
  for (const SortKey& item : order) keys.push_back(entries[static_cast<size_t>(item.entry)].key);
  for (size_t i = 1; i < keys.size(); ++i) {
    if (keys[i] == keys[i - 1]) return order[i].entry;
  }

  first_child_.clear();
  labels_.assign(1, 0);
  values_.assign(1, kNone);
  root_child_.assign(256, kNone);
  std::vector<Range> ranges = {{0, keys.size(), 0}};
  for (size_t node = 0; node < ranges.size(); ++node) {
    first_child_.push_back(narrow<uint32_t>(labels_.size()));
    Range range = ranges[node];
    if (range.begin < range.end && keys[range.begin].size() == range.depth) {
      values_[node] = entries[static_cast<size_t>(order[range.begin].entry)].value;
      ++range.begin;
    }
    while (range.begin < range.end) {
      const char label = keys[range.begin][range.depth];
      size_t end = range.begin + 1;
      while (end < range.end && keys[end][range.depth] == label) ++end;
      labels_.push_back(static_cast<uint8_t>(label));
      values_.push_back(kNone);
      ranges.push_back({range.begin, end, range.depth + 1});
      range.begin = end;
    }
  }
  first_child_.push_back(narrow<uint32_t>(labels_.size()));
  narrow<int32_t>(labels_.size());
  for (uint32_t i = first_child_[0]; i < first_child_[1]; ++i) {
    root_child_[labels_[i]] = static_cast<int32_t>(i);
  }
  return kNone;
}

size_t PieceTrie::longest_prefix_bytes(std::string_view text) const {
  size_t longest = 0;
  int32_t node = root();
  for (size_t i = 0; i < text.size(); ++i) {
    node = child(node, static_cast<uint8_t>(text[i]));
    if (node == kNone) break;
    if (value(node) != kNone) longest = i + 1;
  }
  return longest;
}

}  // namespace polylm
