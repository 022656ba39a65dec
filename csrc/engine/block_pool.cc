// block_pool.cc: reference counts over block numbers. All storage is made by the constructor.
#include "engine/block_pool.h"

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {

BlockPool::BlockPool(int64_t blocks) {
  POLYLM_CHECK(blocks > 0);
  refs_.resize(static_cast<size_t>(blocks));
  free_.reserve(static_cast<size_t>(blocks));
  for (auto block = narrow<int32_t>(blocks); block > 0; --block) free_.push_back(block - 1);
}

int32_t BlockPool::allocate() {
  POLYLM_CHECK_LT(0, available());
  const int32_t block = free_.back();
  free_.pop_back();
  refs_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::add_ref(int32_t block) {
  POLYLM_CHECK_LT(0, refs(block));
  ++refs_[static_cast<size_t>(block)];
}

bool BlockPool::release(int32_t block) {
  POLYLM_CHECK_LT(0, refs(block));
  if (--refs_[static_cast<size_t>(block)] > 0) return false;
  free_.push_back(block);
  return true;
}

int32_t BlockPool::refs(int32_t block) const {
  POLYLM_CHECK(block >= 0 && block < size());
  return refs_[static_cast<size_t>(block)];
}

}  // namespace polylm
