// block_pool.h: the numbers of the KV blocks and who holds them. A block is free or has a count of
// holders; it returns to the free list when the last one lets go. Not here: what is in a block
// (ops), which sequence holds which (sequence.h), how many may be promised (scheduler.h).
// Trap: running out is a broken promise of the scheduler, hence INTERNAL, never a user's error.
#pragma once

#include <cstdint>
#include <vector>

namespace polylm {

class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  // A block with one holder.
  int32_t allocate();
  void add_ref(int32_t block);
  // True when this was the last holder and the block is free again.
  bool release(int32_t block);

  bool shared(int32_t block) const { return refs(block) > 1; }
  int32_t refs(int32_t block) const;
  int64_t size() const { return static_cast<int64_t>(refs_.size()); }
  int64_t available() const { return static_cast<int64_t>(free_.size()); }
  int64_t used() const { return size() - available(); }

 private:
  std::vector<int32_t> refs_;  // [blocks], holders
  std::vector<int32_t> free_;  // a stack, the lowest number on top at first
};

}  // namespace polylm
