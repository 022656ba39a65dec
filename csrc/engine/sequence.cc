// sequence.cc: block tables with copy-on-write, and the step from one set of hypotheses to the
// next.
#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "platform/checked.h"
#include "platform/error.h"

namespace polylm {

Sequence::Sequence(BlockPool* pool, int64_t block_tokens, int64_t tokens)
    : pool_(pool), block_tokens_(block_tokens) {
  POLYLM_CHECK(block_tokens > 0 && tokens >= 0);
  tokens_.reserve(static_cast<size_t>(tokens));
  roles_.reserve(static_cast<size_t>(tokens));
  blocks_.reserve(static_cast<size_t>(ceil_div(tokens, block_tokens)));
}

Sequence::~Sequence() {
  for (const int32_t block : blocks_) pool_->release(block);
}

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(other.pool_),
      block_tokens_(other.block_tokens_),
      tokens_(std::move(other.tokens_)),
      roles_(std::move(other.roles_)),
      blocks_(std::move(other.blocks_)),
      computed_(other.computed_) {
  other.blocks_.clear();
}

void Sequence::push(int32_t token, Role role) {
  POLYLM_CHECK_LT(tokens_.size(), tokens_.capacity());
  tokens_.push_back(token);
  roles_.push_back(role);
}

void Sequence::own(int64_t end, std::vector<BlockCopy>* copies) {
  POLYLM_CHECK(end > computed_ && end <= size() + 1);
  const auto first = static_cast<size_t>(computed_ / block_tokens_);
  if (first < blocks_.size() && pool_->shared(blocks_[first])) {
    const int32_t own_block = pool_->allocate();
    copies->push_back({blocks_[first], own_block});
    pool_->release(blocks_[first]);
    blocks_[first] = own_block;
  }
  const auto wanted = static_cast<size_t>(ceil_div(end, block_tokens_));
  while (blocks_.size() < wanted) blocks_.push_back(pool_->allocate());
}

void Sequence::committed(int64_t end) {
  POLYLM_CHECK(end > computed_ && end <= size());
  POLYLM_CHECK_LE(ceil_div(end, block_tokens_), static_cast<int64_t>(blocks_.size()));
  computed_ = end;
}

void Sequence::truncate(int64_t size) {
  POLYLM_CHECK(size >= 0 && size <= this->size());
  tokens_.resize(static_cast<size_t>(size));
  roles_.resize(static_cast<size_t>(size));
  computed_ = std::min(computed_, size);
  const auto wanted = static_cast<size_t>(ceil_div(computed_, block_tokens_));
  for (; blocks_.size() > wanted; blocks_.pop_back()) pool_->release(blocks_.back());
}

void Sequence::adopt(int32_t block) {
  POLYLM_CHECK_EQ(computed_, static_cast<int64_t>(blocks_.size()) * block_tokens_);
  POLYLM_CHECK_LE(computed_ + block_tokens_, size());
  pool_->add_ref(block);
  blocks_.push_back(block);
  computed_ += block_tokens_;
}

void Sequence::replace(int64_t index, int32_t block) {
  POLYLM_CHECK_LE((index + 1) * block_tokens_, computed_);
  pool_->add_ref(block);
  pool_->release(blocks_[static_cast<size_t>(index)]);
  blocks_[static_cast<size_t>(index)] = block;
}

void Sequence::fork_from(const Sequence& parent) {
  POLYLM_CHECK(blocks_.empty() && tokens_.empty());
  tokens_ = parent.tokens_;
  roles_ = parent.roles_;
  blocks_ = parent.blocks_;
  computed_ = parent.computed_;
  for (const int32_t block : blocks_) pool_->add_ref(block);
}

void Sequence::clear() {
  for (const int32_t block : blocks_) pool_->release(block);
  tokens_.clear();
  roles_.clear();
  blocks_.clear();
  computed_ = 0;
}

void Sequence::preempt() {
  for (const int32_t block : blocks_) pool_->release(block);
  blocks_.clear();
  computed_ = 0;
}

void Sequence::share(const Sequence& other) {
  POLYLM_CHECK(blocks_.empty() && other.computed_ < size());
  for (const int32_t block : other.blocks_) {
    pool_->add_ref(block);
    blocks_.push_back(block);
  }
  computed_ = other.computed_;
}

void Sequence::swap(Sequence& other) noexcept {
  tokens_.swap(other.tokens_);
  roles_.swap(other.roles_);
  blocks_.swap(other.blocks_);
  std::swap(computed_, other.computed_);
}

SequenceSet::SequenceSet(BlockPool* pool, int64_t block_tokens,
                         const std::vector<int32_t>& prompt, int64_t tokens, int64_t width) {
  POLYLM_CHECK(width > 0);
  POLYLM_CHECK_LE(static_cast<int64_t>(prompt.size()), tokens);
  claims_.resize(static_cast<size_t>(width));
  now_.reserve(static_cast<size_t>(width));
  next_.reserve(static_cast<size_t>(width));
  for (int64_t i = 0; i < width; ++i) {
    now_.emplace_back(pool, block_tokens, tokens);
    if (width > 1) next_.emplace_back(pool, block_tokens, tokens);
  }
  for (const int32_t token : prompt) now_.front().push(token, Role::kPrompt);
}

void SequenceSet::advance(const std::vector<Transition>& next) {
  const auto count = static_cast<int64_t>(next.size());
  POLYLM_CHECK_LE(count, static_cast<int64_t>(now_.size()));
  std::fill(claims_.begin(), claims_.end(), 0);
  for (const Transition& t : next) {
    POLYLM_CHECK(t.parent >= 0 && t.parent < size_);
    ++claims_[static_cast<size_t>(t.parent)];
  }
  if (now_.size() == 1) {  // the common case moves nothing
    if (count == 1) {
      now_[0].push(next[0].token, Role::kGenerated);
    } else {
      now_[0].clear();
    }
    size_ = count;
    return;
  }
  for (int64_t i = 0; i < size_; ++i) {
    if (claims_[static_cast<size_t>(i)] == 0) now_[static_cast<size_t>(i)].clear();
  }
  for (int64_t i = 0; i < count; ++i) {
    const Transition& t = next[static_cast<size_t>(i)];
    const auto parent = static_cast<size_t>(t.parent);
    Sequence& child = next_[static_cast<size_t>(i)];
    if (--claims_[parent] == 0) {
      child.swap(now_[parent]);  // the last child takes its parent's place
    } else {
      child.fork_from(now_[parent]);
    }
    child.push(t.token, Role::kGenerated);
  }
  now_.swap(next_);
  size_ = count;
}

void SequenceSet::clear() {
  for (Sequence& sequence : now_) sequence.clear();
  for (Sequence& sequence : next_) sequence.clear();
  size_ = 0;
}

void SequenceSet::preempt() {
  for (int64_t i = 0; i < size_; ++i) (*this)[i].preempt();
}

void SequenceSet::share_first() {
  for (int64_t i = 1; i < size_; ++i) (*this)[i].share((*this)[0]);
}

int64_t SequenceSet::behind() const {
  int64_t tokens = 0;
  for (int64_t i = 0; i < size_; ++i) tokens += behind_of(i);
  return tokens;
}

void SequenceSet::caught_up(int64_t rows) {
  for (int64_t i = 0; rows > 0; ++i) {
    POLYLM_CHECK_LT(i, size_);
    const int64_t some = std::min(rows, behind_of(i));
    if (some > 0) (*this)[i].committed((*this)[i].computed() + some);
    rows -= some;
  }
}

}  // namespace polylm
