// engine_memory_test.cc: a step of the engine makes no heap call, whatever its requests do: all
// they need is reserved when they start. Counted over whole steps (plan, copies, forward, choosing,
// committing) of every kind of request, on the simulated device, whose own memory does not count,
// and on the CPU, where all of it does. Events of streams own what they carry: that is counted too.
#include <atomic>

#include "alloc_probe.h"
#include "backends.h"
#include "engine/runner.h"
#include "engine_rig.h"
#include "harness.h"
#include "model/weights.h"

namespace polylm::test {
namespace {

constexpr int64_t kTokens = 40;

Request generating(std::vector<int32_t> ids = counting(9)) {
  Request request = ids_request(std::move(ids), kTokens);
  request.params.min_tokens = kTokens;
  request.params.seed = 5;
  return request;
}

struct Named {
  const char* name;
  Request request;
};

std::vector<Named> sampled() {
  std::vector<Named> all;
  const auto add = [&](const char* name, auto change) {
    all.push_back({name, generating()});
    change(&all.back().request.params);
  };
  add("greedy", [](SamplingParams*) {});
  add("penalties", [](SamplingParams* p) {
    p->repetition_penalty = 1.2;
    p->no_repeat_ngram_size = 3;
    p->frequency_penalty = 0.3;
    p->bias = {{{7}, 2.0F}, {{8, 9}, 1.0F}};
  });
  add("logprobs", [](SamplingParams* p) { p->logprobs = 3; });
  add("top k", [](SamplingParams* p) { p->temperature = 1.0, p->top_k = 20, p->n = 3; });
  add("full rows", [](SamplingParams* p) { p->temperature = 2.0, p->logprobs = 2; });
  add("processed", [](SamplingParams* p) {
    p->temperature = 1.5, p->top_p = 0.99, p->logprobs = 4, p->logprobs_processed = true;
  });
  add("typical", [](SamplingParams* p) { p->temperature = 1.0, p->typical_p = 0.8; });
  add("cutoffs", [](SamplingParams* p) {
    p->temperature = 1.0, p->min_p = 0.01, p->epsilon_cutoff = 0.001, p->eta_cutoff = 0.001;
  });
  add("speculation", [](SamplingParams* p) {
    p->speculate_lookup = true;
    for (int32_t i = 3; i < 13; ++i) p->bias.push_back({{i, i == 12 ? 3 : i + 1}, 40.0F});
  });
  return all;
}

std::vector<Named> beams() {
  std::vector<Named> all;
  const auto add = [&](const char* name, auto change) {
    all.push_back({name, generating()});
    SamplingParams* p = &all.back().request.params;
    p->num_beams = 4;
    p->min_tokens = 0;  // so that hypotheses finish on the way
    p->stop_token_ids = {2};
    p->early_stopping = EarlyStopping::kNever;
    p->bias = {{{2}, 0.5F}};
    change(p);
  };
  add("beams", [](SamplingParams*) {});
  add("beams with logprobs", [](SamplingParams* p) { p->logprobs = 3, p->n = 4; });
  add("beams of 4.31", [](SamplingParams* p) { p->beam_scoring = BeamScoring::kHf431; });
  add("many beams", [](SamplingParams* p) { p->num_beams = 12, p->stop_token_ids = {2, 5, 6, 7}; });
  add("sampled beams", [](SamplingParams* p) {
    p->temperature = 1.0, p->sample_beams = true, p->repetition_penalty = 1.1;
  });
  add("sampled beams of 4.31", [](SamplingParams* p) {
    p->temperature = 1.0, p->sample_beams = true, p->top_k = 30;
    p->beam_scoring = BeamScoring::kHf431;
  });
  return all;
}

EngineOptions memory_engine() {
  EngineOptions options = small_engine();
  options.max_sequences = 64;
  options.kv_blocks = 1000;
  options.prefix_cache = true;
  return options;
}

// A model with its runner and the steps of requests that are given to it.
class Bench {
 public:
  explicit Bench(std::unique_ptr<Model> model, std::shared_ptr<const Tokenizer> tokenizer = nullptr,
                 const EngineOptions& options = memory_engine())
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(options) {
    const int64_t vocab = model_->config().vocab_size;
    model_->reserve(step_limits(options_, vocab), options_.kv_blocks);
    runner_ = std::make_unique<Runner>(model_.get(), tokenizer_, options_);
    limits_.context_size = options_.context_size;
    limits_.vocab_size = vocab;
    limits_.max_sequences = options_.max_sequences;
    limits_.block_tokens = model_->ops().info().block_tokens;
    limits_.kv_blocks = options_.kv_blocks;
    limits_.block_bytes = 1;
  }

  void submit(const Request& request) {
    Arrival arrival;
    arrival.id = ++last_id_;
    arrival.work = prepare_request(request, limits_, tokenizer_.get());
    runner_->arrive(std::move(arrival), now_);
    runner_->tick(now_);
  }

  // Makes steps until all requests have ended. Heap calls of steps in which none did are added up.
  int64_t run() {
    int64_t calls = 0;
    quiet_steps_ = events_ = 0;
    while (runner_->busy()) {
      const AllocCount count;
      runner_->step(stop_);
      const int64_t made = count.count();
      bool ended = false;
      for (const Event& event : runner_->events()) {
        ended = ended || event.kind == EventKind::kFinished || event.kind == EventKind::kFailed;
        EXPECT(event.kind != EventKind::kFailed);
        ++events_;
      }
      runner_->events().clear();  // keeps its memory
      if (ended) continue;
      calls += made;
      ++quiet_steps_;
    }
    return calls;
  }

  int64_t quiet_steps() const { return quiet_steps_; }
  int64_t events() const { return events_; }

 private:
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EngineOptions options_;
  IntakeLimits limits_;
  std::unique_ptr<Runner> runner_;
  Clock::time_point now_{std::chrono::milliseconds(1)};
  std::atomic<bool> stop_{false};
  uint64_t last_id_ = 0;
  int64_t quiet_steps_ = 0;
  int64_t events_ = 0;
};

std::unique_ptr<Model> sim_model(int64_t vocab, bool feeds_back = false) {
  SimOptions options;
  options.vocab = vocab;
  options.feeds_back = feeds_back;
  return std::make_unique<SimModel>(options);
}

std::unique_ptr<Model> cpu_model() {
  ModelConfig config;
  config.family = "gpt2";
  config.layers = 2;
  config.heads = 2;
  config.hidden_size = 64;
  config.inner_size = 128;
  config.context_size = 96;
  config.vocab_size = 300;
  const auto source = make_random_source(11, 0.3, {});
  auto ops = make_ops({.device = "cpu", .precision = Precision::kBf16, .threads = 2});
  return make_model(config, std::move(ops), *source);
}

void expect_no_calls(Bench* bench, const char* name, int64_t least_steps) {
  const int64_t calls = bench->run();
  if (calls > 0) report_failure(__FILE__, __LINE__, show(calls) + " heap calls: " + name);
  EXPECT(bench->quiet_steps() >= least_steps);
}

TEST(engine_memory_the_probe_counts) {
  const auto call = [] { ::operator delete(::operator new(8)); };
  const AllocCount count;
  call();
  {
    const AllocPause pause;
    call();
  }
  EXPECT_EQ(count.count(), int64_t{1});
  fail_allocation(1);
  call();
  bool failed = false;
  try {
    call();
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  EXPECT(failed && stop_failing_allocations());
  fail_allocation(1);
  call();
  EXPECT(!stop_failing_allocations());
  call();
}

TEST(engine_memory_steps_of_samplers_make_no_heap_call) {
  for (const Named& one : sampled()) {
    Bench bench(sim_model(130));
    bench.submit(one.request);
    expect_no_calls(&bench, one.name, one.request.params.speculate_lookup ? 3 : kTokens - 1);
  }
}

TEST(engine_memory_steps_ahead_make_no_heap_call) {
  auto model = sim_model(130, true);
  const auto& sim = static_cast<const SimOps&>(model->ops());
  Bench bench(std::move(model));
  for (int64_t i = 0; i < 5; ++i) {
    bench.submit(generating(counting(9 + i)));
    expect_no_calls(&bench, "one step ahead", kTokens - 1);
  }
  for (int64_t i = 0; i < 5; ++i) bench.submit(generating(counting(9 + i)));
  expect_no_calls(&bench, "several rows ahead", kTokens - 1);
  EXPECT(sim.fed_steps() > 6 * (kTokens - 4));
}

TEST(engine_memory_steps_of_beams_make_no_heap_call) {
  for (const Named& one : beams()) {
    Bench bench(sim_model(130));
    bench.submit(one.request);
    expect_no_calls(&bench, one.name, 5);
  }
}

TEST(engine_memory_steps_that_make_text_make_no_heap_call) {
  for (std::vector<Named> all : {sampled(), beams()}) {
    for (Named& one : all) {
      Bench bench(sim_model(130), sim_tokenizer(130));
      one.request.params.stop = {"never to be found"};
      bench.submit(one.request);
      expect_no_calls(&bench, one.name, 2);
    }
  }
}

TEST(engine_memory_prefill_and_scores_make_no_heap_call) {
  EngineOptions options = memory_engine();
  options.budget_prefill = options.budget_mixed = 5;
  Bench bench(sim_model(130), nullptr, options);
  for (int i = 0; i < 3; ++i) {
    bench.submit(generating(counting(50 + i)));
    Request request = ids_request(counting(90));
    request.kind = RequestKind::kScore;
    request.score_from = 20;
    bench.submit(request);
    request.kind = RequestKind::kLogits;
    request.logits_positions = {3, 70, -1};
    bench.submit(request);
  }
  expect_no_calls(&bench, "prefill", 80);
}

TEST(engine_memory_steps_on_the_cpu_make_no_heap_call) {
  Bench bench(cpu_model());
  for (int round = 0; round < 2; ++round) {
    for (const Named& one : sampled()) bench.submit(one.request);
    for (const Named& one : beams()) {
      if (one.request.params.num_beams == 4) bench.submit(one.request);
    }
    expect_no_calls(&bench, "all kinds on the CPU", 30);
  }
}

// A token's event owns its list of tokens; short text needs no memory of its own.
TEST(engine_memory_a_streamed_token_takes_one_heap_call) {
  Bench bench(sim_model(130), sim_tokenizer(130));
  Request request = generating();
  request.stream = true;
  for (int i = 0; i < 4; ++i) bench.submit(request);
  bench.run();  // the list of events has its size
  for (int i = 0; i < 4; ++i) bench.submit(request);
  const int64_t calls = bench.run();
  EXPECT(bench.events() > 4 * (kTokens - 5));
  EXPECT(calls <= bench.events());
}

}  // namespace
}  // namespace polylm::test
