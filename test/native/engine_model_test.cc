// engine_model_test.cc: the engine on real devices with random weights: requests of all kinds at
// once, in small chunks, sharing cached beginnings, must give bit for bit what each gives alone.
// Not here: whether the numbers are right (model_test.cc, fixtures_test.cc).
#include <algorithm>
#include <atomic>
#include <cstring>

#include "backends.h"
#include "engine_rig.h"
#include "harness.h"
#include "model/weights.h"

namespace polylm::test {
namespace {

constexpr int64_t kVocab = 300;
constexpr int64_t kContext = 200;

std::unique_ptr<Model> random_model(const std::string& device, Precision precision) {
  ModelConfig config;
  config.family = "gpt2";
  config.layers = 2;
  config.heads = 2;
  config.hidden_size = 64;
  config.inner_size = 128;
  config.context_size = kContext;
  config.vocab_size = kVocab;
  const auto source = make_random_source(11, 0.3, {});
  return make_model(config, make_ops({.device = device, .precision = precision, .threads = 2}),
                    *source);
}

// Ends all requests of an engine that was given to it; events in order of the ids.
std::vector<Event> run_all(std::unique_ptr<Model> model, const EngineOptions& options,
                           const std::vector<Request>& requests, bool one_by_one) {
  Engine engine(std::move(model), nullptr, options, nullptr);
  Journal journal(true);
  std::vector<uint64_t> ids;
  std::vector<Event> events;
  const auto wait_for = [&](uint64_t id) {
    for (int i = 0; i < 600000 && !journal.ended(id); ++i) {
      engine.take_events(&events);
      journal.add_all(&events);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  for (const Request& request : requests) {
    ids.push_back(engine.submit(request));
    if (one_by_one) wait_for(ids.back());
  }
  std::vector<Event> last;
  for (const uint64_t id : ids) {
    wait_for(id);
    last.push_back(journal.of(id).last);
  }
  EXPECT_EQ(kv_tokens_left(engine), int64_t{0});
  return last;
}

#ifdef POLYLM_ONLY_CUDA  // an emulated card takes a tenth of a second a step
constexpr size_t kRequests = 6;
#else
constexpr size_t kRequests = 40;
#endif

std::vector<Request> mixed_requests() {
  SimOptions shape;
  shape.vocab = kVocab;
  RequestMix mix;
  mix.most_prompt = 150;
  mix.most_tokens = 30;
  mix.most_width = 4;
  mix.alike = true;
  Rng rng(seed());
  std::vector<Request> requests;
  for (size_t i = 0; i < kRequests; ++i) requests.push_back(random_request(rng, shape, mix));
  for (size_t i = 0; i < kRequests; ++i) {
    requests.push_back(Request(requests[i]));  // found in the cache
  }
  return requests;
}

void expect_same_alone_and_together(const std::string& device, Precision precision) {
  const std::vector<Request> requests = mixed_requests();
  EngineOptions alone;
  alone.context_size = kContext;
  alone.max_sequences = 4;
  alone.kv_blocks = 200;
  EngineOptions together = alone;
  together.max_sequences = std::min<int64_t>(24, kRequests);  // the others wait, and find more
  together.budget_mixed = 37;
  together.budget_prefill = 61;
  together.prefix_cache = true;
  const std::vector<Event> a = run_all(random_model(device, precision), alone, requests, true);
  const std::vector<Event> b =
      run_all(random_model(device, precision), together, requests, false);
  int64_t cached = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT(a[i].result != nullptr && b[i].result != nullptr);
    if (a[i].result == nullptr || b[i].result == nullptr) continue;
    Outcome expected;
    expected.result = *a[i].result;
    EXPECT_EQ(difference(expected, b[i]), std::string());
    EXPECT_EQ(a[i].result->usage.cached_tokens, int64_t{0});
    cached += b[i].result->usage.cached_tokens;
    for (size_t t = 0; t < a[i].result->scored.size(); ++t) {
      EXPECT_EQ(a[i].result->scored[t].token.logprob, b[i].result->scored[t].token.logprob);
    }
  }
  EXPECT(cached > static_cast<int64_t>(kRequests) * 10);
}

#ifdef POLYLM_CUDA
// Here roles matter: what is generated, in whatever batch, as a graph or not, guessed or chosen or
// found in the cache, has its own bits, and so has what is a prompt, however it is cut.
void need_card() {
  try {
    make_ops({.device = "cuda"});
  } catch (const Error& e) {
    skip(e.message());
  }
}
void on_card(Precision precision) {
  need_card();
  expect_same_alone_and_together("cuda", precision);
}

// A model that counts the steps whose tokens the device takes from the step in flight.
class Counting final : public Model {
 public:
  Counting(std::unique_ptr<Model> model, std::atomic<int64_t>* fed)
      : model_(std::move(model)), fed_(fed) {}
  const ModelConfig& config() const override { return model_->config(); }
  Ops& ops() override { return model_->ops(); }
  const Kv& kv() const override { return model_->kv(); }
  int64_t parameter_count() const override { return model_->parameter_count(); }
  void reserve(const StepLimits& limits, int64_t kv_blocks) override {
    model_->reserve(limits, kv_blocks);
  }
  bool forward(const StepInputs& in, const SelectRows& select,
               const std::atomic<bool>& stop) override {
    if (in.sources != nullptr) ++*fed_;
    return model_->forward(in, select, stop);
  }

 private:
  std::unique_ptr<Model> model_;
  std::atomic<int64_t>* fed_;
};

// A ban of repetitions longer than the text bans nothing, but it is the host's to say so: the
// tokens of such requests are never fed back. Bits of log-probabilities included.
void expect_same_fed_back_or_not(Precision precision) {
  need_card();
  std::vector<Request> requests;
  for (int64_t i = 0; i < 5; ++i) {
    std::vector<int32_t> ids;
    for (int64_t j = 0; j < 3 + 17 * i; ++j) ids.push_back(static_cast<int32_t>((j * j + i) % 290));
    requests.push_back(ids_request(ids, i == 0 ? 30 : 12));
    requests.back().params.logprobs = 2;
    requests.back().params.stop_token_ids = {static_cast<int32_t>(7 * i), 44, 55, 66};
  }
  EngineOptions options;
  options.context_size = kContext;
  options.max_sequences = 4;
  options.kv_blocks = 200;
  options.prefix_cache = true;
  std::vector<Event> ends[2];
  std::atomic<int64_t> fed[2] = {{0}, {0}};
  for (size_t hosts = 0; hosts < 2; ++hosts) {
    for (Request& request : requests) {
      request.params.no_repeat_ngram_size = hosts == 1 ? 2 * kContext : 0;
    }
    auto model = std::make_unique<Counting>(random_model("cuda", precision), &fed[hosts]);
    ends[hosts] = run_all(std::move(model), options, requests, false);
  }
  EXPECT(fed[0] > 10);
  EXPECT_EQ(fed[1].load(), int64_t{0});
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT(ends[0][i].result != nullptr && ends[1][i].result != nullptr);
    if (ends[0][i].result == nullptr || ends[1][i].result == nullptr) continue;
    Outcome expected;
    expected.result = *ends[1][i].result;
    EXPECT_EQ(difference(expected, ends[0][i]), std::string());
  }
}
TEST(engine_model_cuda_bf16_fed_back_or_not) { expect_same_fed_back_or_not(Precision::kBf16); }
TEST(engine_model_cuda_fp32_fed_back_or_not) { expect_same_fed_back_or_not(Precision::kFp32); }
TEST(engine_model_cuda_bf16_alone_and_together) { on_card(Precision::kBf16); }
#ifndef POLYLM_FEW_FIXTURES
TEST(engine_model_cuda_fp32_alone_and_together) { on_card(Precision::kFp32); }
#endif
#endif

#ifndef POLYLM_ONLY_CUDA
TEST(engine_model_ref_fp32_alone_and_together) {
  expect_same_alone_and_together("ref", Precision::kFp32);
}
TEST(engine_model_cpu_bf16_alone_and_together) {
  expect_same_alone_and_together("cpu", Precision::kBf16);
}
TEST(engine_model_cpu_fp32_alone_and_together) {
  expect_same_alone_and_together("cpu", Precision::kFp32);
}
#endif

}  // namespace
}  // namespace polylm::test
