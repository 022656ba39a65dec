// block_pool_test.cc: reference counts against a map, and hypotheses that fork, die and change
// places against plain token lists and a cache made of arrays.
#include <map>
#include <set>

#include "engine/block_pool.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "harness.h"
#include "platform/checked.h"
#include "sim_reference.h"

namespace polylm::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

int32_t random_key(Rng& rng, const std::map<int32_t, int32_t>& refs) {
  auto it = refs.begin();
  std::advance(it, pick(rng, 0, static_cast<int64_t>(refs.size()) - 1));
  return it->first;
}

// A cache of one number per token, and the copies of a step applied to it.
struct Cache {
  std::vector<int32_t> cells;
  int64_t block_tokens;

  int32_t& cell(const Sequence& s, int64_t position) {
    const int64_t block = s.blocks()[at(position / block_tokens)];
    return cells[at(block * block_tokens + position % block_tokens)];
  }
  void apply(const std::vector<BlockCopy>& copies) {
    for (const BlockCopy& copy : copies) {
      std::copy_n(&cells[at(copy.from * block_tokens)], block_tokens,
                  &cells[at(copy.to * block_tokens)]);
    }
  }
};

int64_t distinct_blocks(const SequenceSet& set) {
  std::set<int32_t> blocks;
  for (int64_t i = 0; i < set.size(); ++i) {
    blocks.insert(set[i].blocks().begin(), set[i].blocks().end());
  }
  return static_cast<int64_t>(blocks.size());
}

// Computes everything pending of every hypothesis and checks that each sees exactly its own past.
void compute(SequenceSet* set, Cache* cache, int64_t end) {
  std::vector<BlockCopy> copies;
  for (int64_t i = 0; i < set->size(); ++i) (*set)[i].own(end, &copies);
  cache->apply(copies);
  for (int64_t i = 0; i < set->size(); ++i) {
    Sequence& s = (*set)[i];
    for (int64_t p = s.computed(); p < end; ++p) cache->cell(s, p) = s.token(p);
    s.committed(end);
  }
  for (int64_t i = 0; i < set->size(); ++i) {
    for (int64_t p = 0; p < end; ++p) {
      if (cache->cell((*set)[i], p) == (*set)[i].token(p)) continue;
      EXPECT_EQ(cache->cell((*set)[i], p), (*set)[i].token(p));
      return;
    }
  }
}

std::vector<Transition> random_transitions(Rng& rng, int64_t now, int64_t width) {
  std::vector<Transition> next;
  const int64_t count = chance(rng, 0.02) ? 0 : pick(rng, 1, width);
  const bool one_parent = chance(rng, 0.2);
  const auto favourite = static_cast<int32_t>(pick(rng, 0, now - 1));
  for (int64_t i = 0; i < count; ++i) {
    const auto parent = one_parent ? favourite : static_cast<int32_t>(pick(rng, 0, now - 1));
    next.push_back({parent, static_cast<int32_t>(pick(rng, 0, 1 << 30))});
  }
  return next;
}

// One request's life; returns the most blocks it held.
void random_script(Rng& rng, BlockPool* pool, Cache* cache) {
  const int64_t width = pick(rng, 1, 6);
  const int64_t prompt_size = pick(rng, 1, 30);
  const int64_t most_tokens = pick(rng, 1, 30);
  const int64_t promised =
      blocks_for_request(prompt_size, most_tokens, width, cache->block_tokens);
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < prompt_size; ++i) {
    prompt.push_back(static_cast<int32_t>(pick(rng, 0, 1 << 30)));
  }
  const int64_t before = pool->used();
  SequenceSet set(pool, cache->block_tokens, prompt, prompt_size + most_tokens, width);
  std::vector<std::vector<int32_t>> expected{prompt};
  for (int64_t end = 0; end < prompt_size;) {
    end = pick(rng, end + 1, prompt_size);
    compute(&set, cache, end);
  }
  for (int64_t t = 0; t < most_tokens && set.size() > 0; ++t) {
    if (t > 0) compute(&set, cache, prompt_size + t);
    EXPECT(pool->used() - before <= promised);
    EXPECT_EQ(pool->used() - before, distinct_blocks(set));
    const std::vector<Transition> next = random_transitions(rng, set.size(), width);
    std::vector<std::vector<int32_t>> children;
    for (const Transition& n : next) {
      children.push_back(expected[at(n.parent)]);
      children.back().push_back(n.token);
    }
    expected.swap(children);
    set.advance(next);
    EXPECT_EQ(set.size(), static_cast<int64_t>(next.size()));
    for (int64_t i = 0; i < set.size(); ++i) {
      EXPECT(set[i].tokens() == expected[at(i)]);
      EXPECT(set[i].role(prompt_size - 1) == Role::kPrompt);
      EXPECT(set[i].role(prompt_size) == Role::kGenerated);
    }
  }
  if (chance(rng, 0.5)) set.clear();  // else its destructor lets go
}

TEST(block_pool_counts_like_a_map) {
  Rng rng(seed());
  BlockPool pool(37);
  std::map<int32_t, int32_t> refs;
  for (int i = 0; i < 300000; ++i) {
    const int64_t action = pick(rng, 0, 2);
    if (action == 0 && refs.size() < 37) {
      const int32_t block = pool.allocate();
      EXPECT_EQ(refs.count(block), size_t{0});
      refs[block] = 1;
    } else if (action == 1 && !refs.empty()) {
      const int32_t block = random_key(rng, refs);
      pool.add_ref(block);
      ++refs[block];
    } else if (!refs.empty()) {
      const int32_t block = random_key(rng, refs);
      const bool last = --refs[block] == 0;
      EXPECT_EQ(pool.release(block), last);
      if (last) refs.erase(block);
    }
    EXPECT_EQ(pool.used(), static_cast<int64_t>(refs.size()));
    if (!refs.empty()) {
      const int32_t block = random_key(rng, refs);
      EXPECT_EQ(pool.refs(block), refs[block]);
      EXPECT_EQ(pool.shared(block), refs[block] > 1);
    }
  }
}

TEST(block_pool_refuses_what_cannot_be) {
  BlockPool pool(1);
  EXPECT_THROWS_CODE(Code::kInternal, pool.release(0));
  const int32_t block = pool.allocate();
  EXPECT_THROWS_CODE(Code::kInternal, pool.allocate());
  EXPECT(pool.release(block));
  EXPECT_THROWS_CODE(Code::kInternal, pool.release(block));
  EXPECT_THROWS_CODE(Code::kInternal, pool.add_ref(block));
  EXPECT_THROWS_CODE(Code::kInternal, pool.refs(1));
  EXPECT_THROWS_CODE(Code::kInternal, pool.refs(-1));
}

TEST(sequence_sets_fork_and_die_without_leaks) {
  Rng rng(seed() + 1);
  for (const int64_t block_tokens : {1, 3, 4, 8}) {
    BlockPool pool(700);
    Cache cache{std::vector<int32_t>(at(700 * block_tokens)), block_tokens};
    for (int i = 0; i < 1500; ++i) random_script(rng, &pool, &cache);
    EXPECT_EQ(pool.used(), int64_t{0});
  }
}

TEST(sequence_beams_share_the_prompt) {
  // A prompt of 2,000 tokens and 4 beams: the prompt's blocks exist once.
  BlockPool pool(1000);
  std::vector<int32_t> prompt(2000, 7);
  SequenceSet set(&pool, 32, prompt, 2040, 4);
  std::vector<BlockCopy> copies;
  set[0].own(2000, &copies);
  set[0].committed(2000);
  set.advance({{0, 1}, {0, 2}, {0, 3}, {0, 4}});
  EXPECT_EQ(pool.used(), int64_t{63});
  for (int64_t t = 0; t < 39; ++t) {
    for (int64_t h = 0; h < 4; ++h) set[h].own(2001 + t, &copies);
    for (int64_t h = 0; h < 4; ++h) set[h].committed(2001 + t);
    set.advance({{0, 1}, {1, 2}, {2, 3}, {3, 4}});
  }
  EXPECT_EQ(copies.size(), size_t{3});  // the half-filled block, for all but one
  EXPECT_EQ(pool.used(), int64_t{62 + 4 * 2});
  EXPECT_EQ(blocks_for_request(2000, 40, 4, 32), int64_t{62 + 4 * 2});
  set.clear();
  EXPECT_EQ(pool.used(), int64_t{0});
}

TEST(sequence_refuses_bad_transitions) {
  BlockPool pool(10);
  SequenceSet set(&pool, 4, {1, 2, 3}, 8, 2);
  EXPECT_THROWS_CODE(Code::kInternal, set.advance({{1, 5}}));
  EXPECT_THROWS_CODE(Code::kInternal, set.advance({{-1, 5}}));
  EXPECT_THROWS_CODE(Code::kInternal, set.advance({{0, 5}, {0, 6}, {0, 7}}));
  std::vector<BlockCopy> copies;
  EXPECT_THROWS_CODE(Code::kInternal, set[0].own(5, &copies));  // nothing is known of 4
  EXPECT_THROWS_CODE(Code::kInternal, set[0].committed(3));
  EXPECT_EQ(pool.used(), int64_t{0});
}

}  // namespace
}  // namespace polylm::test
