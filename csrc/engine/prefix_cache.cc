// prefix_cache.cc: a hash table and a list of use over block numbers, all storage made at once.
#include "engine/prefix_cache.h"

#include <algorithm>

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {
namespace {

uint64_t mix(uint64_t x) {  // the finaliser of splitmix64 (Steele et al., OOPSLA 2014)
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t combine(uint64_t hash, uint64_t word) {
  return mix(hash + 0x9e3779b97f4a7c15u + word * 0xd1342543de82ef95u);
}

}  // namespace

PrefixCache::PrefixCache(BlockPool* pool, int64_t block_tokens, uint64_t hash_mask,
                         bool roles_matter)
    : pool_(pool), block_tokens_(block_tokens), hash_mask_(hash_mask) {
  if (!roles_matter) no_roles_.assign(static_cast<size_t>(block_tokens), Role::kPrompt);
  size_t buckets = 16;
  while (buckets < static_cast<size_t>(pool->size())) buckets *= 2;
  buckets_.assign(buckets, -1);
  nodes_.resize(static_cast<size_t>(pool->size()));
  tokens_.resize(static_cast<size_t>(checked_mul(pool->size(), block_tokens)));
  roles_.resize(tokens_.size());
  pool_->set_reclaimer(this);
}

PrefixCache::Key PrefixCache::key_of(const std::string& salt, const Sequence& sequence,
                                     int64_t index) {
  Key key{};
  key.parent = index == 0 ? -1 : sequence.blocks()[static_cast<size_t>(index - 1)];
  key.salt = &salt;
  key.tokens = sequence.tokens().data() + index * block_tokens_;
  key.roles = no_roles_.empty() ? sequence.roles().data() + index * block_tokens_
                                : no_roles_.data();
  uint64_t hash = 0;
  if (index == 0) {
    for (const char c : salt) hash = combine(hash, static_cast<unsigned char>(c));
  } else {
    hash = node(key.parent).hash;
  }
  for (int64_t i = 0; i < block_tokens_; ++i) {
    hash = combine(hash, static_cast<uint64_t>(key.tokens[i]) * 2 +
                             (key.roles[i] == Role::kGenerated ? 1 : 0));
  }
  key.hash = hash & hash_mask_;
  return key;
}

int32_t PrefixCache::find(const Key& key) {
  for (int32_t block = bucket(key.hash); block >= 0; block = node(block).next) {
    const Node& found = node(block);
    if (found.hash != key.hash || found.parent != key.parent) continue;
    if (key.parent < 0 && found.salt != *key.salt) continue;
    const size_t at = static_cast<size_t>(block) * static_cast<size_t>(block_tokens_);
    if (std::equal(key.tokens, key.tokens + block_tokens_, &tokens_[at]) &&
        std::equal(key.roles, key.roles + block_tokens_, &roles_[at])) {
      return block;
    }
  }
  return -1;
}

int64_t PrefixCache::adopt(const std::string& salt, int64_t most, Sequence* sequence) {
  const auto begin = static_cast<int64_t>(sequence->blocks().size());
  POLYLM_CHECK_EQ(begin * block_tokens_, sequence->computed());
  int64_t index = begin;
  while ((index + 1) * block_tokens_ <= std::min(most, sequence->size())) {
    const int32_t block = find(key_of(salt, *sequence, index));
    if (block < 0) break;
    sequence->adopt(block);
    ++index;
  }
  if (index == begin) return index;
  for (int64_t i = index; i > 0; --i) touch(sequence->blocks()[static_cast<size_t>(i - 1)]);
  return index;
}

int64_t PrefixCache::keep(const std::string& salt, int64_t from, Sequence* sequence) {
  const int64_t end = sequence->computed() / block_tokens_;
  for (int64_t index = from; index < end; ++index) {
    const Key key = key_of(salt, *sequence, index);
    const int32_t own = sequence->blocks()[static_cast<size_t>(index)];
    const int32_t found = find(key);
    if (found < 0) {
      insert(own, key);
    } else if (found != own) {
      sequence->replace(index, found);
    }
  }
  for (int64_t i = end; i > 0; --i) touch(sequence->blocks()[static_cast<size_t>(i - 1)]);
  return end;
}

void PrefixCache::insert(int32_t block, const Key& key) {
  Node& added = node(block);
  POLYLM_CHECK(!added.kept);
  if (key.parent < 0) added.salt = *key.salt;  // first: it may throw
  added.hash = key.hash;
  added.parent = key.parent;
  added.children = 0;
  added.kept = true;
  const size_t at = static_cast<size_t>(block) * static_cast<size_t>(block_tokens_);
  std::copy_n(key.tokens, block_tokens_, &tokens_[at]);
  std::copy_n(key.roles, block_tokens_, &roles_[at]);
  added.next = bucket(key.hash);
  bucket(key.hash) = block;
  if (key.parent >= 0) ++node(key.parent).children;
  link_newest(block);
  pool_->keep(block);
  ++size_;
}

void PrefixCache::remove(int32_t block) {
  Node& removed = node(block);
  int32_t* link = &bucket(removed.hash);
  while (*link != block) link = &node(*link).next;
  *link = removed.next;
  if (removed.parent >= 0) --node(removed.parent).children;
  unlink(block);
  removed.kept = false;
  removed.salt.clear();
  --size_;
  pool_->forget(block);
}

bool PrefixCache::reclaim() {
  for (int32_t block = oldest_; block >= 0; block = node(block).newer) {
    if (node(block).children > 0 || pool_->refs(block) > 1) continue;
    remove(block);
    return true;
  }
  return false;
}

void PrefixCache::touch(int32_t block) {
  if (newest_ == block) return;
  unlink(block);
  link_newest(block);
}

void PrefixCache::unlink(int32_t block) {
  const Node& gone = node(block);
  (gone.older < 0 ? oldest_ : node(gone.older).newer) = gone.newer;
  (gone.newer < 0 ? newest_ : node(gone.newer).older) = gone.older;
}

void PrefixCache::link_newest(int32_t block) {
  Node& linked = node(block);
  linked.older = newest_;
  linked.newer = -1;
  (newest_ < 0 ? oldest_ : node(newest_).newer) = block;
  newest_ = block;
}

}  // namespace polylm
