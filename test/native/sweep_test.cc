// sweep_test.cc: a hundred thousand requests with random options of every kind on the simulated
// device, always with healthy requests beside them. None may end the engine, none may end with
// INTERNAL, all numbers that come back are finite, and the healthy requests get the tokens that
// they get alone. Seeds replay (POLYLM_SEED).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "engine/events.h"
#include "engine/runner.h"
#include "harness.h"
#include "odd_requests.h"
#include "sim_reference.h"

namespace polylm::test {
namespace {

EngineOptions sweep_engine() {
  EngineOptions options;
  options.context_size = 96;
  options.max_sequences = 48;
  options.kv_blocks = 2000;
  options.budget_mixed = 96;
  options.budget_prefill = 128;
  return options;
}

// Healthy requests: greedy, sampled, beams, beams that sample.
std::vector<Request> healthy_requests() {
  std::vector<Request> all(4);
  for (size_t i = 0; i < all.size(); ++i) {
    PromptPart part;
    for (int32_t k = 0; k < 6; ++k) part.ids.push_back(5 + k * static_cast<int32_t>(i + 1));
    all[i].prompt.push_back(part);
    all[i].max_tokens_given = true;
    all[i].params.max_tokens = 10;
    all[i].params.logprobs = 2;
    all[i].params.seed = static_cast<int64_t>(i) + 3;
  }
  all[1].params.temperature = 0.8;
  all[1].params.top_k = 20;
  all[2].params.num_beams = 3;
  all[3].params.num_beams = 2;
  all[3].params.temperature = 1.2;
  all[3].params.sample_beams = true;
  return all;
}

bool finite(const TokenInfo& token) {
  return std::isfinite(token.logprob) &&
         std::all_of(token.top.begin(), token.top.end(),
                     [](const TokenAlternative& other) { return std::isfinite(other.logprob); });
}

// What is wrong with the result of a request that could be served.
std::string result_problem(const Request& request, const RequestResult& result) {
  for (const ScoredToken& token : result.scored) {
    if (!finite(token.token)) return "a score that is not finite";
  }
  if (request.kind != RequestKind::kGenerate) return "";
  const SamplingParams& p = request.params;
  if (result.outputs.empty()) return "no output";
  if (p.num_beams == 1 && static_cast<int64_t>(result.outputs.size()) != p.n) return "outputs";
  for (const OutputResult& output : result.outputs) {
    if (output.tokens.empty()) return "an output without tokens";
    if (p.num_beams > 1 && !std::isfinite(output.score)) return "a beam's score is not finite";
    for (const TokenInfo& token : output.logprobs) {
      if (!finite(token)) return "a log-probability that is not finite";
    }
  }
  return "";
}

struct Counts {
  int64_t asked = 0, refused = 0, served = 0, failed = 0, healthy = 0, compared = 0;
  std::map<std::string, int64_t> modes;
};

std::string mode_of(const Request& request) {
  if (request.kind == RequestKind::kScore) return "score";
  if (request.kind == RequestKind::kLogits) return "logits";
  const SamplingParams& p = request.params;
  const bool sampled = p.temperature > 0.0;
  if (p.num_beams > 1) {
    const char* const scoring = p.beam_scoring == BeamScoring::kHf431 ? " 4.31" : " 4.55";
    return std::string(sampled ? "sampled beams" : "beams") + scoring;
  }
  return sampled ? "sampling" : "greedy";
}

class Sweep {
 public:
  Sweep(uint64_t seed, const SimOptions& sim, bool text)
      : rng_(seed),
        sim_(sim),
        text_(text),
        tokenizer_(text ? sim_tokenizer(sim.vocab) : nullptr),
        model_(sim),
        healthy_(healthy_requests()) {
    model_.reserve(step_limits(options_, sim.vocab), options_.kv_blocks);
    runner_ = std::make_unique<Runner>(&model_, tokenizer_, options_);
    for (const Request& request : healthy_) {
      expected_.push_back(sim_reference(sim_, prepared(request), tokenizer_));
    }
  }

  void run(int64_t requests, Counts* counts) {
    counts_ = counts;
    for (int64_t i = 0; i < requests; ++i) {
      submit();
      while (pending_.size() > 12) turn();
    }
    while (!pending_.empty()) turn();
    EXPECT_EQ(model_.sim().violations(), int64_t{0});
  }

 private:
  struct Pending {
    Work work;
    bool compare = false;
  };

  Work prepared(const Request& request) const {
    return prepare_request(request, sim_intake_limits(sim_, options_), tokenizer_.get());
  }

  void submit() {
    const Request request = odd_request(rng_, sim_.vocab, text_);
    ++counts_->asked;
    Pending pending;
    try {
      if (request.kind == RequestKind::kGenerate) {
        check_params(request.params, sim_.vocab, options_.context_size, options_.max_sequences,
                     tokenizer_ != nullptr);
      }
      pending.work = prepared(request);
    } catch (const Error& error) {
      ++counts_->refused;
      const Code code = error.code();
      EXPECT(code == Code::kInvalidOption || code == Code::kContextOverflow ||
             code == Code::kInsufficientMemory);
      return;
    }
    ++counts_->modes[mode_of(request)];
    pending.compare = chance(rng_, 0.1);
    arrive(pending.work);
    pending_.emplace(last_id_, std::move(pending));
  }

  void arrive(const Work& work) {
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.submitted = now_;
    arrival.work = work;
    runner_->arrive(std::move(arrival), now_);
  }

  void turn() {
    if (healthy_id_ == 0) {
      arrive(prepared(healthy_[healthy_kind_]));
      healthy_id_ = last_id_;
    }
    now_ += std::chrono::milliseconds(1);
    try {
      runner_->tick(now_);
      runner_->step(stop_);
    } catch (...) {  // what the engine would die of
      const Error error = caught_error();
      report_failure(__FILE__, __LINE__, "fatal: " + error.message());
      runner_->fail_all(error);
    }
    std::vector<Event> events = std::move(runner_->events());
    runner_->events().clear();
    for (const Event& event : events) {
      const bool end = event.kind == EventKind::kFinished || event.kind == EventKind::kFailed;
      if (end) take_end(event);
    }
  }

  void take_end(const Event& event) {
    if (event.request == healthy_id_) {
      const std::string wrong = difference(expected_[healthy_kind_], event);
      if (!wrong.empty()) report_failure(__FILE__, __LINE__, "a healthy request: " + wrong);
      ++counts_->healthy;
      healthy_kind_ = (healthy_kind_ + 1) % healthy_.size();
      healthy_id_ = 0;
      return;
    }
    const auto found = pending_.find(event.request);
    const std::string wrong = problem(found->second, event);
    if (!wrong.empty()) {
      report_failure(__FILE__, __LINE__, show(event.request) + ", " +
                                             mode_of(found->second.work.request) + ": " + wrong);
    }
    pending_.erase(found);
  }

  std::string problem(const Pending& pending, const Event& event) {
    if (event.error.has_value()) {
      ++counts_->failed;
      if (event.error->code() != Code::kInvalidOption) return event.error->message();
    } else {
      ++counts_->served;
      const std::string wrong = result_problem(pending.work.request, *event.result);
      if (!wrong.empty()) return wrong;
    }
    if (!pending.compare) return "";
    ++counts_->compared;
    return difference(sim_reference(sim_, pending.work, tokenizer_), event);
  }

  Rng rng_;
  SimOptions sim_;
  bool text_;
  EngineOptions options_ = sweep_engine();
  std::shared_ptr<const Tokenizer> tokenizer_;
  SimModel model_;
  std::unique_ptr<Runner> runner_;
  std::vector<Request> healthy_;
  std::vector<Outcome> expected_;
  std::map<uint64_t, Pending> pending_;
  uint64_t last_id_ = 0;
  uint64_t healthy_id_ = 0;  // 0: none runs
  size_t healthy_kind_ = 0;
  std::atomic<bool> stop_{false};
  Clock::time_point now_{std::chrono::milliseconds(1)};
  Counts* counts_ = nullptr;
};

}  // namespace

TEST(sweep_of_all_options_ends_no_engine_and_no_neighbour) {
  Counts counts;
  for (int i = 0; i < 4; ++i) {
    SimOptions sim;
    sim.seed = seed() + static_cast<uint64_t>(i);
    sim.layers = 1;
    sim.vocab = i == 0 ? 61 : 130;  // fewer and more than the candidates
    sim.feeds_back = i == 1;
    Sweep(sim.seed, sim, i == 2).run(26000, &counts);
  }
  SimOptions sim;  // a vocabulary of which not all can be listed
  sim.layers = 1;
  sim.vocab = 1200;
  Sweep(seed() + 9, sim, false).run(2000, &counts);
  std::printf("  %lld requests: %lld served, %lld refused, %lld ended with an error; %lld healthy "
              "ones beside them\n",
              static_cast<long long>(counts.asked), static_cast<long long>(counts.served),
              static_cast<long long>(counts.refused), static_cast<long long>(counts.failed),
              static_cast<long long>(counts.healthy));
  for (const auto& [mode, count] : counts.modes) {
    std::printf("    %s: %lld\n", mode.c_str(), static_cast<long long>(count));
  }
  EXPECT(counts.asked >= 100000);
  EXPECT(counts.served > counts.asked / 2);
  EXPECT(counts.healthy > 1000);
  EXPECT(counts.compared > 1000);
  EXPECT_EQ(counts.modes.size(), size_t{8});
}

}  // namespace polylm::test
