// prefix_cache.h: full blocks of prompts and answers that are kept after their request, so that a
// prompt with the same beginning starts behind it. A block is found by what came before it, its
// salt, its tokens and, on devices where they matter, their roles: there nobody finds an answer's
// blocks in a prompt. The hash only leads there, the tokens decide. Not here: what is in a block.
// A kept block has one holder, the cache, beside the sequences that use it. The pool asks for
// blocks back when it has none left: the least recently used that nobody else holds and nothing
// follows. Trap: a sequence that holds a kept block must hold all blocks before it too; else the
// chain could not be given back from its end, and reservations would not be safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/block_pool.h"
#include "engine/sequence.h"

namespace polylm {

class PrefixCache final : public BlockReclaimer {
 public:
  // Tests make hashes equal with a mask of few bits.
  PrefixCache(BlockPool* pool, int64_t block_tokens, uint64_t hash_mask = ~uint64_t{0},
              bool roles_matter = true);

  // Gives a sequence of whole kept blocks, or of none yet, the longest kept continuation of its
  // tokens, up to position `most`. Returns the number of blocks that it has then.
  int64_t adopt(const std::string& salt, int64_t most, Sequence* sequence);
  // Keeps the computed full blocks that are not kept yet, from block `from` on. Where the same
  // block is kept already, the sequence takes that one and gives up its own. Returns how many
  // blocks of the sequence are kept now.
  int64_t keep(const std::string& salt, int64_t from, Sequence* sequence);
  bool reclaim() override;

  int64_t size() const { return size_; }

 private:
  struct Node {  // of the block with this number
    uint64_t hash = 0;
    int32_t parent = -1;    // the block before, -1: none
    int32_t children = 0;   // kept blocks that follow
    int32_t next = -1;      // with the same bucket
    int32_t older = -1;     // order of use
    int32_t newer = -1;
    bool kept = false;
    std::string salt;       // of a first block
  };
  struct Key {  // what a block is found by
    int32_t parent;
    const std::string* salt;
    const int32_t* tokens;  // [B]
    const Role* roles;      // [B], all kPrompt where roles do not matter
    uint64_t hash;
  };

  Node& node(int32_t block) { return nodes_[static_cast<size_t>(block)]; }
  int32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  Key key_of(const std::string& salt, const Sequence& sequence, int64_t index);
  int32_t find(const Key& key);
  void insert(int32_t block, const Key& key);
  void remove(int32_t block);
  void touch(int32_t block);
  void unlink(int32_t block);
  void link_newest(int32_t block);

  BlockPool* pool_;
  int64_t block_tokens_;
  uint64_t hash_mask_;
  std::vector<Role> no_roles_;    // [B] where roles do not matter
  std::vector<Node> nodes_;       // [blocks]
  std::vector<int32_t> buckets_;  // a power of two
  std::vector<int32_t> tokens_;   // [blocks, B]
  std::vector<Role> roles_;       // [blocks, B]
  int32_t oldest_ = -1;
  int32_t newest_ = -1;
  int64_t size_ = 0;
};

}  // namespace polylm
