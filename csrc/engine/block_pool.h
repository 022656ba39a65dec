// block_pool.h: the numbers of the KV blocks and who holds them. A block is free or has a count of
// holders; it returns to the free list when the last one lets go. A kept block is held by the
// prefix cache too; it is idle while nobody else holds it. Not here: what is in a block (ops),
// which sequence holds which (sequence.h), how many may be promised (scheduler.h).
// Trap: running out is a broken promise of the scheduler, hence INTERNAL, never a user's error.
#pragma once

#include <cstdint>
#include <vector>

namespace polylm {

// Gives back a block that only it holds.
class BlockReclaimer {
 public:
  // Releases one block to the pool; false when there is none.
  virtual bool reclaim() = 0;

 protected:
  ~BlockReclaimer() = default;
};

class BlockPool {
 public:
  explicit BlockPool(int64_t blocks);

  // Asked when no block is free.
  void set_reclaimer(BlockReclaimer* reclaimer) { reclaimer_ = reclaimer; }

  // A block with one holder.
  int32_t allocate();
  void add_ref(int32_t block);
  // True when this was the last holder and the block is free again.
  bool release(int32_t block);

  // The prefix cache becomes a holder, and lets go.
  void keep(int32_t block);
  void forget(int32_t block);

  bool shared(int32_t block) const { return refs(block) > 1; }
  int32_t refs(int32_t block) const;
  int64_t size() const { return static_cast<int64_t>(refs_.size()); }
  int64_t available() const { return static_cast<int64_t>(free_.size()); }
  // Blocks that somebody beside the prefix cache holds.
  int64_t used() const { return size() - available() - idle_; }
  int64_t idle() const { return idle_; }

 private:
  std::vector<int32_t> refs_;  // [blocks], holders
  std::vector<uint8_t> kept_;  // [blocks]
  int64_t idle_ = 0;
  BlockReclaimer* reclaimer_ = nullptr;
  std::vector<int32_t> free_;  // a stack, the lowest number on top at first
};

}  // namespace polylm
