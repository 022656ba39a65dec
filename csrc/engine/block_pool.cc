// block_pool.cc: reference counts over block numbers. All storage is made by the constructor.
#include "engine/block_pool.h"

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {

BlockPool::BlockPool(int64_t blocks) {
  POLYLM_CHECK(blocks > 0);
  refs_.resize(static_cast<size_t>(blocks));
  kept_.resize(static_cast<size_t>(blocks));
  free_.reserve(static_cast<size_t>(blocks));
  for (auto block = narrow<int32_t>(blocks); block > 0; --block) free_.push_back(block - 1);
}

int32_t BlockPool::allocate() {
  if (free_.empty() && reclaimer_ != nullptr) reclaimer_->reclaim();
  POLYLM_CHECK_LT(0, available());
  const int32_t block = free_.back();
  free_.pop_back();
  refs_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::add_ref(int32_t block) {
  POLYLM_CHECK_LT(0, refs(block));
  const auto at = static_cast<size_t>(block);
  if (refs_[at]++ == 1 && kept_[at] != 0) --idle_;
}

bool BlockPool::release(int32_t block) {
  POLYLM_CHECK_LT(0, refs(block));
  const auto at = static_cast<size_t>(block);
  if (--refs_[at] > 0) {
    if (refs_[at] == 1 && kept_[at] != 0) ++idle_;
    return false;
  }
  POLYLM_CHECK(kept_[at] == 0);
  free_.push_back(block);
  return true;
}

void BlockPool::keep(int32_t block) {
  POLYLM_CHECK(refs(block) > 0 && kept_[static_cast<size_t>(block)] == 0);
  ++refs_[static_cast<size_t>(block)];
  kept_[static_cast<size_t>(block)] = 1;
}

void BlockPool::forget(int32_t block) {
  POLYLM_CHECK(refs(block) > 0 && kept_[static_cast<size_t>(block)] != 0);
  kept_[static_cast<size_t>(block)] = 0;
  if (refs(block) == 1) --idle_;
  release(block);
}

int32_t BlockPool::refs(int32_t block) const {
  POLYLM_CHECK(block >= 0 && block < size());
  return refs_[static_cast<size_t>(block)];
}

}  // namespace polylm
