// prefix_cache_test.cc: kept prefixes against a set of strings, contents under eviction, and
// engines whose prompts share beginnings.
#include <set>
#include <string>

#include "engine/prefix_cache.h"
#include "engine_rig.h"
#include "harness.h"
#include "platform/checked.h"

namespace polylm::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

struct Prompt {
  std::vector<int32_t> tokens;
  std::vector<Role> roles;
  std::string salt;
};

// Few different tokens and salts, so that beginnings are often alike.
Prompt random_prompt(Rng& rng) {
  Prompt prompt;
  for (int64_t n = pick(rng, 1, 24); n > 0; --n) {
    prompt.tokens.push_back(chance(rng, 0.9) ? 1 : 2);
    prompt.roles.push_back(chance(rng, 0.97) ? Role::kPrompt : Role::kGenerated);
  }
  if (!chance(rng, 0.8)) prompt.salt.assign(1, chance(rng, 0.5) ? 'a' : 'b');
  return prompt;
}

// A text that says everything which the first `blocks` blocks depend on.
std::string key_of(const Prompt& prompt, int64_t tokens) {
  std::string key = prompt.salt + "/";
  for (int64_t i = 0; i < tokens; ++i) {
    key += static_cast<char>('0' + prompt.tokens[at(i)]);
    key += prompt.roles[at(i)] == Role::kPrompt ? 'p' : 'g';
  }
  return key;
}

struct Live {
  Prompt prompt;
  Sequence sequence;
};

// What each block holds: the key of everything up to its end.
using Contents = std::vector<std::string>;

void check_contents(const Live& live, const Contents& contents, int64_t block_tokens) {
  for (int64_t b = 0; b < live.sequence.computed() / block_tokens; ++b) {
    const int32_t block = live.sequence.blocks()[at(b)];
    EXPECT_EQ(contents[at(block)], key_of(live.prompt, (b + 1) * block_tokens));
  }
}

// Starts a prompt, computes it in chunks and keeps its blocks; returns how many it was given.
int64_t begin(Rng& rng, PrefixCache* cache, Live* live, Contents* contents, int64_t block_tokens) {
  Sequence& s = live->sequence;
  for (size_t i = 0; i < live->prompt.tokens.size(); ++i) {
    s.push(live->prompt.tokens[i], live->prompt.roles[i]);
  }
  const int64_t most = pick(rng, 0, s.size());
  const int64_t given = cache->adopt(live->prompt.salt, most, &s);
  EXPECT(given * block_tokens <= most);
  check_contents(*live, *contents, block_tokens);
  std::vector<BlockCopy> copies;
  int64_t kept = given;
  while (s.computed() < s.size()) {
    const int64_t end = pick(rng, s.computed() + 1, s.size());
    const int64_t first = s.computed() / block_tokens;
    s.own(end, &copies);
    for (int64_t b = first; b < ceil_div(end, block_tokens); ++b) {
      const int64_t tokens = std::min(s.size(), (b + 1) * block_tokens);
      (*contents)[at(s.blocks()[at(b)])] = key_of(live->prompt, tokens);
    }
    s.committed(end);
    kept = cache->keep(live->prompt.salt, kept, &s);
    EXPECT_EQ(kept, end / block_tokens);
    check_contents(*live, *contents, block_tokens);
  }
  EXPECT(copies.empty());  // full blocks are never written again
  return given;
}

TEST(prefix_cache_gives_what_was_kept_and_nothing_else) {
  Rng rng(seed());
  for (const int64_t block_tokens : {1, 2, 5}) {
    BlockPool pool(100000);  // nothing is ever evicted
    PrefixCache cache(&pool, block_tokens, block_tokens == 2 ? 1 : ~uint64_t{0});
    Contents contents(100000);
    std::set<std::string> kept;
    int64_t hits = 0;
    for (int i = 0; i < 1500; ++i) {
      Live live{random_prompt(rng), Sequence(&pool, block_tokens, 24)};
      const Rng saved = rng;  // begin draws `most` first
      Rng peek = saved;
      const int64_t most = pick(peek, 0, static_cast<int64_t>(live.prompt.tokens.size()));
      int64_t expected = 0;
      while ((expected + 1) * block_tokens <= most &&
             kept.count(key_of(live.prompt, (expected + 1) * block_tokens)) > 0) {
        ++expected;
      }
      EXPECT_EQ(begin(rng, &cache, &live, &contents, block_tokens), expected);
      hits += expected;
      for (int64_t b = 1; b * block_tokens <= live.sequence.size(); ++b) {
        kept.insert(key_of(live.prompt, b * block_tokens));
      }
      live.sequence.clear();
      EXPECT_EQ(pool.used(), int64_t{0});
      EXPECT_EQ(cache.size(), static_cast<int64_t>(kept.size()));
      EXPECT_EQ(pool.idle(), cache.size());
    }
    EXPECT(hits > 500);
  }
}

TEST(prefix_cache_survives_eviction) {
  Rng rng(seed() + 1);
  constexpr int64_t kBlocks = 60;
  constexpr int64_t kTokens = 2;
  BlockPool pool(kBlocks);
  PrefixCache cache(&pool, kTokens, 3);  // the tokens decide, not the hash
  Contents contents(at(kBlocks));
  std::vector<Live> live;
  live.reserve(8);
  int64_t given = 0;
  for (int i = 0; i < 40000; ++i) {
    if (live.size() < 4 && chance(rng, 0.6)) {  // 4 x 12 blocks always fit
      live.push_back({random_prompt(rng), Sequence(&pool, kTokens, 24)});
      given += begin(rng, &cache, &live.back(), &contents, kTokens);
    } else if (!live.empty()) {
      const auto gone = at(pick(rng, 0, static_cast<int64_t>(live.size()) - 1));
      std::vector<Live> rest;
      rest.reserve(8);
      for (size_t l = 0; l < live.size(); ++l) {
        if (l != gone) rest.push_back(std::move(live[l]));
      }
      live.swap(rest);
    }
    for (const Live& one : live) check_contents(one, contents, kTokens);
    EXPECT(pool.used() <= 48 && pool.used() + pool.idle() + pool.available() == kBlocks);
  }
  EXPECT(given > 10000);
  live.clear();
  EXPECT_EQ(pool.used(), int64_t{0});
  while (cache.reclaim()) {
  }
  EXPECT_EQ(cache.size(), int64_t{0});
  EXPECT_EQ(pool.available(), kBlocks);
}

TEST(prefix_cache_evicts_the_least_recently_used_end) {
  BlockPool pool(8);
  PrefixCache cache(&pool, 1);
  const auto run = [&](std::vector<int32_t> tokens) {
    Sequence s(&pool, 1, 8);
    for (const int32_t token : tokens) s.push(token, Role::kPrompt);
    const int64_t given = cache.adopt("", s.size(), &s);
    std::vector<BlockCopy> copies;
    if (given < s.size()) {
      s.own(s.size(), &copies);
      s.committed(s.size());
    }
    cache.keep("", given, &s);
    return given;
  };
  EXPECT_EQ(run({1, 2, 3}), int64_t{0});
  EXPECT_EQ(run({4, 5, 6}), int64_t{0});
  EXPECT_EQ(run({1, 2, 3}), int64_t{3});        // now 4 5 6 is the oldest
  EXPECT_EQ(run({7, 8, 9, 10}), int64_t{0});    // two more than are free: 6 and 5 go
  EXPECT_EQ(run({1, 2, 3}), int64_t{3});
  EXPECT_EQ(run({4}), int64_t{1});
  EXPECT_EQ(run({4, 5}), int64_t{1});
}

// ------------------------------------------------------------------------------------ engines

EngineOptions caching_engine() {
  EngineOptions options = small_engine();
  options.prefix_cache = true;
  return options;
}

TEST(prefix_cache_in_an_engine_tells_the_truth) {
  Rig rig({}, caching_engine());
  const auto cached = [&](const Request& request) {
    return rig.expect_right(request).last.result->usage.cached_tokens;
  };
  EXPECT_EQ(cached(ids_request(counting(30))), int64_t{0});
  const int64_t rows = rig.device->prompt_rows_seen();
  EXPECT_EQ(cached(ids_request(counting(30))), int64_t{28});  // 7 blocks of 4
  EXPECT_EQ(rig.device->prompt_rows_seen() - rows, int64_t{2});
  EXPECT_EQ(cached(ids_request(counting(28))), int64_t{24});  // the last row is always computed
  EXPECT_EQ(cached(ids_request(counting(11))), int64_t{8});
  Request beams = ids_request(counting(50), 20);
  beams.params.num_beams = 4;
  EXPECT_EQ(cached(beams), int64_t{28});
  Request score = ids_request(counting(40));
  score.kind = RequestKind::kScore;
  score.score_from = 20;
  EXPECT_EQ(cached(score), int64_t{16});  // row 19 is scored
  Request logits = ids_request(counting(40));
  logits.kind = RequestKind::kLogits;
  logits.logits_positions = {39, 9};
  EXPECT_EQ(cached(logits), int64_t{8});
  Request salted = ids_request(counting(30));
  salted.cache_salt = "tenant";
  EXPECT_EQ(cached(salted), int64_t{0});
  EXPECT_EQ(cached(salted), int64_t{28});
  salted.cache_salt = "other";
  EXPECT_EQ(cached(salted), int64_t{0});
  EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});  // kept blocks count as free
  EXPECT_EQ(rig.engine->stats().cached_tokens, int64_t{28 + 24 + 8 + 28 + 16 + 8 + 28});
  EXPECT_EQ(rig.device->violations(), int64_t{0});
}

// A request for what the answer of `first` ends with and a few tokens more.
Request next_turn(const Request& first, const RequestResult& answer, int64_t max_tokens) {
  std::vector<int32_t> ids = first.prompt[0].ids;
  ids.insert(ids.end(), answer.outputs[0].tokens.begin(), answer.outputs[0].tokens.end());
  for (const int32_t id : {7, 8, 9}) ids.push_back(id);
  return ids_request(ids, max_tokens);
}

TEST(prefix_cache_keeps_answers_for_the_next_turn) {
  SimOptions sim;
  sim.roles_matter = false;
  Rig rig(sim, caching_engine());
  for (const double temperature : {0.0, 0.8}) {
    Request first = ids_request(temperature > 0 ? counting(10) : counting(9), 30);
    first.params.temperature = temperature;
    first.cache_salt = temperature > 0 ? "hot" : "cold";
    const RequestResult answer = *rig.expect_right(first).last.result;
    const int64_t size = answer.usage.prompt_tokens + answer.usage.completion_tokens;
    EXPECT(answer.usage.completion_tokens > 8);
    Request second = next_turn(first, answer, 6);
    second.cache_salt = first.cache_salt;
    const RequestResult& result = *rig.expect_right(second).last.result;
    EXPECT_EQ(result.usage.cached_tokens, (size - 1) / 4 * 4);  // the last token was not computed
  }
  EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});
  EXPECT_EQ(rig.device->violations(), int64_t{0});
}

TEST(prefix_cache_tells_answers_from_prompts_where_roles_matter) {
  Rig rig(SimOptions{}, caching_engine());
  const Request first = ids_request(counting(10), 30);
  const RequestResult answer = *rig.expect_right(first).last.result;
  const Request second = next_turn(first, answer, 6);
  EXPECT_EQ(rig.expect_right(second).last.result->usage.cached_tokens, int64_t{8});
}

TEST(prefix_cache_keeps_a_cancelled_answer) {
  SimOptions sim;
  sim.roles_matter = false;
  sim.layer_us = 300;
  Rig rig(sim, caching_engine());
  Request first = ids_request(counting(10), 80);
  first.stream = first.return_on_abort = true;
  const uint64_t id = rig.engine->submit(first);
  rig.wait_for_delta(id);
  rig.engine->cancel(id);
  const RequestResult answer = *rig.wait(id).last.result;
  const int64_t computed = 10 + answer.usage.completion_tokens - 1;
  const Request second = next_turn(first, answer, 6);
  const RequestResult& result = *rig.expect_right(second).last.result;
  EXPECT_EQ(result.usage.cached_tokens, computed / 4 * 4);
}

// Conversations whose turns overlap in time, in too little memory: blocks come, go and are shared.
TEST(prefix_cache_serves_many_conversations) {
  int64_t cached = 0;
  for (const bool roles_matter : {false, true}) {
    SimOptions sim;
    sim.roles_matter = roles_matter;
    EngineOptions options = caching_engine();
    options.kv_blocks = 60;
    Rig rig(sim, options);
    Rng rng(seed() + (roles_matter ? 1 : 0));
    std::vector<Request> turns(6);
    std::vector<uint64_t> ids(turns.size());
    for (int i = 0; i < 240; ++i) {
      const auto c = at(i % 6);
      if (ids[c] != 0) {
        const Journal::Entry& entry = rig.wait(ids[c]);
        EXPECT_EQ(difference(rig.alone(turns[c]), entry.last), std::string());
        const RequestResult& answer = *entry.last.result;
        if (!roles_matter) cached += answer.usage.cached_tokens;
        turns[c] = next_turn(turns[c], answer, pick(rng, 1, 20));
      }
      if (ids[c] == 0 || turns[c].prompt[0].ids.size() > 70) {
        turns[c] = ids_request(counting(pick(rng, 1, 9)), pick(rng, 1, 20));
      }
      if (chance(rng, 0.4)) turns[c].params.temperature = 0.9;
      turns[c].params.seed = i;
      ids[c] = rig.engine->submit(turns[c]);
    }
    for (size_t c = 0; c < turns.size(); ++c) {
      EXPECT_EQ(difference(rig.alone(turns[c]), rig.wait(ids[c]).last), std::string());
    }
    EXPECT_EQ(rig.engine->stats().kv_tokens_used, int64_t{0});
    EXPECT_EQ(rig.device->violations(), int64_t{0});
  }
  EXPECT(cached > 1500);
}

TEST(prefix_cache_is_off_unless_asked_for) {
  Rig rig;
  for (int i = 0; i < 2; ++i) {
    const RequestResult& result = *rig.expect_right(ids_request(counting(30))).last.result;
    EXPECT_EQ(result.usage.cached_tokens, int64_t{0});
  }
}

}  // namespace
}  // namespace polylm::test
