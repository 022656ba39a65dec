// sequence.h: one row of tokens and the KV blocks that hold its past, and the set of hypotheses of
// a request, which fork, die and change places. Not here: which token comes next (decoder.h), when
// (scheduler.h). Engine thread only.
// Trap: blocks cover exactly the tokens that are computed or in flight between steps; own() makes
// room before a step, and committed() must follow it, or the next own() repeats the same positions.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block_pool.h"
#include "engine/decoder.h"
#include "ops/shapes.h"

namespace polylm {

enum class Role : uint8_t { kPrompt, kGenerated };

// Move-only; lets go of its blocks when it dies.
class Sequence {
 public:
  // Reserves for `tokens` tokens: until then nothing here allocates host memory.
  Sequence(BlockPool* pool, int64_t block_tokens, int64_t tokens);
  ~Sequence();
  Sequence(Sequence&& other) noexcept;
  Sequence& operator=(Sequence&&) = delete;

  void push(int32_t token, Role role);
  // Makes positions [computed, end) writable: a shared partial block is copied, new ones are taken.
  // `end` is at most one behind the last token: that token is being chosen.
  // Appends the copies that the device must make before the step.
  void own(int64_t end, std::vector<BlockCopy>* copies);
  // The tokens before `end` are in the cache now.
  void committed(int64_t end);
  // Forgets the tokens from `size` on, and their blocks.
  void truncate(int64_t size);
  // Takes one more full block that is in the cache already, behind the computed ones.
  void adopt(int32_t block);
  // Takes an equal full block for its own.
  void replace(int64_t index, int32_t block);
  // Becomes the same as `parent`, sharing all its blocks.
  void fork_from(const Sequence& parent);
  // Lets go of all blocks and tokens.
  void clear();
  // Lets go of all blocks; the tokens wait to be computed again.
  void preempt();
  // Takes the computed beginning of `other`, whose tokens are the same so far. Has no blocks.
  void share(const Sequence& other);

  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t computed() const { return computed_; }
  int32_t token(int64_t position) const { return tokens_[static_cast<size_t>(position)]; }
  Role role(int64_t position) const { return roles_[static_cast<size_t>(position)]; }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::vector<Role>& roles() const { return roles_; }
  const std::vector<int32_t>& blocks() const { return blocks_; }

 private:
  friend class SequenceSet;
  void swap(Sequence& other) noexcept;

  BlockPool* pool_;
  int64_t block_tokens_;
  std::vector<int32_t> tokens_;
  std::vector<Role> roles_;
  std::vector<int32_t> blocks_;  // [ceil(computed / B)] between steps
  int64_t computed_ = 0;
};

// The running hypotheses of a request, at most `width`.
class SequenceSet {
 public:
  // Starts with one hypothesis: the prompt, nothing of it computed.
  SequenceSet(BlockPool* pool, int64_t block_tokens, const std::vector<int32_t>& prompt,
              int64_t tokens, int64_t width);

  int64_t size() const { return size_; }
  Sequence& operator[](int64_t i) { return now_[static_cast<size_t>(i)]; }
  const Sequence& operator[](int64_t i) const { return now_[static_cast<size_t>(i)]; }

  // The next hypotheses: each continues a parent with a token. Parents may be dropped, repeated and
  // reordered; no transitions end them all.
  void advance(const std::vector<Transition>& next);
  void clear();
  void preempt();
  // The others take what the first has computed, which is the beginning of all.
  void share_first();
  // Tokens that are not computed, but for the last ones, whose rows come next: of one hypothesis,
  // of all.
  int64_t behind_of(int64_t i) const { return (*this)[i].size() - 1 - (*this)[i].computed(); }
  int64_t behind() const;
  // So many of them are in the cache now, of one hypothesis after the other.
  void caught_up(int64_t rows);

 private:
  int64_t size_ = 1;
  std::vector<Sequence> now_;    // [width], the first size_ run
  std::vector<Sequence> next_;   // [width], empty between calls
  std::vector<int32_t> claims_;  // [width], children that a parent still gets
};

}  // namespace polylm
