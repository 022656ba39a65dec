// speculation_test.cc: guesses from the text, and engines that try them: thousands of random
// requests on the simulated device must end as they do alone and without, whatever options they
// have, and copying text must take fewer steps. Few different tokens make most guesses plausible.
#include <atomic>
#include <map>

#include "engine/prompt_lookup.h"
#include "engine/runner.h"
#include "engine_journal.h"
#include "engine_rig.h"
#include "harness.h"
#include "sim_reference.h"

namespace polylm::test {
namespace {

std::vector<int32_t> guess(const std::vector<int32_t>& text, int64_t most, int64_t begin = 0) {
  std::vector<int32_t> draft{99};
  look_up(text, begin, most, &draft);
  return draft;
}

TEST(speculation_guesses_what_followed_before) {
  using Ids = std::vector<int32_t>;
  EXPECT(guess({}, 4) == Ids{});
  EXPECT(guess({5}, 4) == Ids{});
  EXPECT(guess({1, 2, 3}, 4) == Ids{});                             // nothing stood there before
  EXPECT(guess({1, 2, 3, 9, 8, 1, 2, 3}, 2) == (Ids{9, 8}));        // three tokens
  EXPECT(guess({2, 3, 7, 1, 3, 8, 2, 3}, 1) == Ids{7});             // two beat a later one
  EXPECT(guess({3, 7, 4, 3, 8, 5, 3}, 1) == Ids{8});                // the latest place
  EXPECT(guess({1, 2, 3, 9, 8, 1, 2, 3}, 0) == Ids{});
  EXPECT(guess({4, 6, 4, 6, 4}, 5) == (Ids{6, 4, 6, 4, 6}));        // a period goes on
  EXPECT(guess({7, 7}, 3) == (Ids{7, 7, 7}));
  EXPECT(guess({7, 5, 7}, 3, 1) == Ids{});                          // pads do not count
  EXPECT(guess({0, 0, 5, 0}, 3, 1) == (Ids{5, 0, 5}));
}

TEST(speculation_drafts_as_long_as_it_pays) {
  DraftLength length;
  for (int i = 0; i < 5; ++i) length.learn(length.tokens(), length.tokens());
  EXPECT_EQ(length.tokens(), kMostDraft);
  length.learn(8, 3);
  EXPECT_EQ(length.tokens(), int64_t{4});
  length.learn(4, 0);
  EXPECT_EQ(length.tokens(), int64_t{1});
  length.learn(1, 1);
  EXPECT_EQ(length.tokens(), int64_t{3});
}

// ----------------------------------------------------------------------------- random requests

struct World {
  SimOptions sim;
  EngineOptions engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  RequestMix mix;
};

World random_world(Rng& rng) {
  World w;
  w.sim.seed = rng();
  w.sim.block_tokens = int64_t{1} << pick(rng, 0, 3);
  w.sim.layers = pick(rng, 1, 2);
  w.sim.vocab = chance(rng, 0.7) ? pick(rng, 16, 20) : 130;  // 130: more than the candidates
  w.sim.nan_every = chance(rng, 0.3) ? 300 : 0;
  w.sim.roles_matter = chance(rng, 0.5);
  w.engine.context_size = 96;
  w.engine.max_sequences = pick(rng, 6, 40);
  const int64_t least = blocks_for_request(w.mix.most_prompt, w.mix.most_tokens, w.mix.most_width,
                                           w.sim.block_tokens) + w.mix.most_width;
  w.engine.kv_blocks = least + pick(rng, 0, least);
  w.engine.budget_mixed = chance(rng, 0.5) ? pick(rng, 1, 8) : pick(rng, 8, 80);
  w.engine.budget_prefill = chance(rng, 0.3) ? pick(rng, 1, 8) : pick(rng, 8, 200);
  w.engine.prefix_cache = w.mix.alike = chance(rng, 0.5);
  w.mix.text = chance(rng, 0.5);
  if (w.mix.text) w.tokenizer = sim_tokenizer(w.sim.vocab);
  return w;
}

// The options that random_request leaves alone.
void more_options(Rng& rng, const World& w, Request* request) {
  SamplingParams& p = request->params;
  const auto token = [&] { return static_cast<int32_t>(pick(rng, 3, w.sim.vocab - 2)); };
  if (chance(rng, 0.1)) p.presence_penalty = 0.7;
  if (chance(rng, 0.1)) p.epsilon_cutoff = 0.02;
  if (chance(rng, 0.1)) p.eta_cutoff = 0.05;
  if (chance(rng, 0.1)) p.renormalize = true;
  if (chance(rng, 0.2)) p.min_tokens = pick(rng, 1, p.max_tokens);
  if (chance(rng, 0.1)) p.forced_last_token = token();
  if (chance(rng, 0.1)) p.logprobs_processed = true;
  if (chance(rng, 0.2)) p.bias = {{{token()}, 3.0F}, {{5, 6}, -2.5F}, {{token(), 4}, 4.0F}};
  if (chance(rng, 0.1)) p.pad_to_length = static_cast<int64_t>(request->prompt[0].ids.size()) + 3;
  if (chance(rng, 0.1)) p.include_stop = true;
  if (chance(rng, 0.3)) {
    p.allow_tokens = {2, 3, 4, 5};
    p.forced_last_token = -1;
  } else if (chance(rng, 0.1)) {
    p.min_tokens = 0;
    p.forced_last_token = -1;
    for (const int32_t last : {3, 4, 5}) {
      std::vector<int32_t> choice(static_cast<size_t>(std::min<int64_t>(p.max_tokens, 9)), 6);
      choice.back() = last;
      p.allow_choices.push_back(choice);
    }
  }
}

Request random_guesser(Rng& rng, const World& w) {
  Request request = random_request(rng, w.sim, w.mix);
  SamplingParams& p = request.params;
  if (request.kind != RequestKind::kGenerate || p.num_beams > 1 || p.n > 1) return request;
  more_options(rng, w, &request);
  p.speculate_lookup = chance(rng, 0.9);
  check_params(p, w.sim.vocab, w.engine.context_size, w.engine.max_sequences,
               w.tokenizer != nullptr);
  return request;
}

struct Counts {
  int64_t requests = 0;
  int64_t speculated = 0;
  int64_t tokens = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;
};

// A runner driven step by step; whatever ends is compared with its run alone.
class Field {
 public:
  Field(uint64_t seed, const World& w) : rng_(seed), w_(w), model_(w.sim) {
    model_.reserve(step_limits(w.engine, w.sim.vocab), w.engine.kv_blocks);
    runner_ = std::make_unique<Runner>(&model_, w.tokenizer, w.engine);
  }

  void run(int requests, Counts* counts) {
    for (int i = 0; i < requests || runner_->busy();) {
      if (i < requests && chance(rng_, 0.4)) {
        submit(random_guesser(rng_, w_));
        ++i;
      }
      if (chance(rng_, 0.01) && last_id_ > 0) cancel(static_cast<uint64_t>(
          pick(rng_, 1, static_cast<int64_t>(last_id_))));
      now_ += std::chrono::milliseconds(1);
      runner_->tick(now_);
      if (runner_->busy()) runner_->step(stop_);
      take(counts);
    }
    EXPECT_EQ(runner_->pool().used(), int64_t{0});
    EXPECT_EQ(runner_->reserved_blocks(), int64_t{0});
    EXPECT_EQ(model_.sim().violations(), int64_t{0});
    EXPECT(model_.sim().max_rows_seen() <= step_limits(w_.engine, w_.sim.vocab).rows);
    EXPECT(asked_.empty());
  }

 private:
  struct Asked {
    Work work;
    bool cancelled = false;
  };

  void submit(const Request& request) {
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.submitted = now_;
    arrival.work =
        prepare_request(request, sim_intake_limits(w_.sim, w_.engine), w_.tokenizer.get());
    asked_[arrival.id] = {arrival.work, false};
    runner_->arrive(std::move(arrival), now_);
  }

  void cancel(uint64_t id) {
    if (asked_.count(id) > 0) asked_[id].cancelled = true;
    runner_->cancel(id, now_);
  }

  void take(Counts* counts) {
    for (const Event& event : runner_->events()) {
      journal_.add(event);
      if (!journal_.ended(event.request)) continue;
      check(event.request, counts);
      asked_.erase(event.request);
    }
    runner_->events().clear();
  }

  void check(uint64_t id, Counts* counts) {
    const Asked& asked = asked_.at(id);
    const Journal::Entry& entry = journal_.of(id);
    ++counts->requests;
    if (asked.work.request.params.speculate_lookup) ++counts->speculated;
    if (entry.last.error.has_value()) ++counts->failed;
    if (asked.cancelled) ++counts->cancelled;
    if (asked.cancelled && entry.last.error.has_value() &&
        entry.last.error->code() == Code::kAborted) {
      return;
    }
    Work alone = asked.work;
    alone.request.params.speculate_lookup = false;
    const Outcome expected = sim_reference(w_.sim, alone, w_.tokenizer);
    std::string wrong = asked.cancelled
                            ? abort_difference(expected, asked.work.request, entry.last)
                            : difference(expected, entry.last);
    if (wrong.empty()) wrong = Journal::delta_difference(entry, asked.work.request);
    const bool failed = expected.error.has_value() && !asked.cancelled;
    if (wrong.empty() && failed) wrong = early(alone, entry);
    if (!wrong.empty()) report_failure(__FILE__, __LINE__, "request " + show(id) + ": " + wrong);
    if (entry.last.result != nullptr) counts->tokens += entry.last.result->usage.completion_tokens;
  }

  // A request that failed streamed what it would have streamed without guesses: the same request
  // with one token less than it failed at ends well, with text that begins like the streamed one.
  std::string early(const Work& alone, const Journal::Entry& entry) const {
    if (!alone.request.stream || entry.tokens.count(0) == 0) return "";
    const SamplingParams& p = alone.request.params;
    if (p.num_beams > 1 || p.n > 1 || p.forced_last_token >= 0 || !p.stop.empty()) return "";
    Work shorter = alone;
    shorter.max_tokens = static_cast<int64_t>(entry.tokens.at(0).size());
    if (shorter.max_tokens == 0) return "";
    const Outcome begun = sim_reference(w_.sim, shorter, w_.tokenizer);
    if (begun.error.has_value()) return "it streamed tokens behind its failure";
    for (size_t i = 0; i < entry.tokens.at(0).size(); ++i) {
      if (entry.tokens.at(0)[i].id != begun.result.outputs[0].tokens[i]) return "streamed tokens";
    }
    return "";
  }

  Rng rng_;
  World w_;
  SimModel model_;
  std::unique_ptr<Runner> runner_;
  Journal journal_{false};
  std::map<uint64_t, Asked> asked_;
  Clock::time_point now_{std::chrono::milliseconds(1)};
  std::atomic<bool> stop_{false};
  uint64_t last_id_ = 0;
};

TEST(speculation_never_changes_a_result) {
  Counts counts;
  const char* const scale = std::getenv("POLYLM_SIM_SEEDS");
  const uint64_t seeds = scale == nullptr ? 60 : std::strtoull(scale, nullptr, 10);
  for (uint64_t i = 0; i < seeds; ++i) {
    Rng rng(seed() + i);
    Field(seed() + 1000 + i, random_world(rng)).run(80, &counts);
  }
  EXPECT(counts.requests == static_cast<int64_t>(seeds) * 80);
  EXPECT(counts.speculated > counts.requests * 4 / 10);
  EXPECT(counts.tokens > counts.requests * 3);
  EXPECT(counts.failed > static_cast<int64_t>(seeds) / 2);
  EXPECT(counts.cancelled > static_cast<int64_t>(seeds) / 8);
}

// ------------------------------------------------------------------------------------- steps

// Steps of a request of 80 tokens in an engine of its own.
int64_t steps_of(const SimOptions& sim, const Request& request, int64_t max_sequences = 16) {
  EngineOptions options = small_engine();
  options.max_sequences = max_sequences;
  Rig rig(sim, options);
  rig.expect_right(request);
  EXPECT_EQ(rig.device->violations(), int64_t{0});
  return rig.device->steps();
}

TEST(speculation_takes_fewer_steps_where_text_repeats) {
  SimOptions sim;
  Request request = ids_request({3, 4, 5, 3, 4, 5, 3, 4}, 80);
  request.params.bias = {{{3, 4}, 40.0F}, {{4, 5}, 40.0F}, {{5, 3}, 40.0F}};
  request.stream = true;
  EXPECT_EQ(steps_of(sim, request), int64_t{80});
  request.params.speculate_lookup = true;
  const int64_t steps = steps_of(sim, request);
  EXPECT(steps <= 12);  // 1 + 5 + 7 + 9 + 9 ...
  EXPECT_EQ(steps_of(sim, request, 2), int64_t{41});  // room for one guess
  EXPECT_EQ(steps_of(sim, request, 1), int64_t{80});  // for none
  request.params.temperature = 0.8;
  request.params.seed = 11;
  EXPECT(steps_of(sim, request) <= 12);
}

TEST(speculation_leaves_others_their_rows) {
  SimOptions sim;
  EngineOptions options = small_engine();
  options.max_sequences = 8;
  Rig rig(sim, options);
  std::vector<Request> requests;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 40; ++i) {
    Request request = ids_request({3, 4, 3, 4, 3, static_cast<int32_t>(3 + i % 3)}, 40);
    request.params.bias = {{{3, 4}, 40.0F}, {{4, 3}, 40.0F}, {{5, 3}, 40.0F}};
    request.params.speculate_lookup = i % 4 != 0;
    requests.push_back(request);
    ids.push_back(rig.engine->submit(request));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(difference(rig.alone(requests[i]), rig.wait(ids[i]).last), std::string());
  }
  EXPECT_EQ(rig.device->violations(), int64_t{0});
}

TEST(speculation_is_refused_with_several_outputs) {
  SamplingParams p;
  p.speculate_lookup = true;
  check_params(p, 61, 96, 8, false);
  p.num_beams = 2;
  EXPECT_THROWS_CODE(Code::kInvalidOption, check_params(p, 61, 96, 8, false));
  p.num_beams = 1;
  p.n = 2;
  p.temperature = 1.0;
  EXPECT_THROWS_CODE(Code::kInvalidOption, check_params(p, 61, 96, 8, false));
  p.n = 1;
  check_params(p, 61, 96, 8, false);
  EXPECT(explain(p).inert.empty());
  p.max_tokens = 2;
  EXPECT_EQ(explain(p).inert.size(), size_t{1});
}

}  // namespace
}  // namespace polylm::test
