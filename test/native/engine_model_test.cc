// engine_model_test.cc: the engine on real devices with random weights: requests of all kinds at
// once, in small chunks, sharing cached beginnings, must give bit for bit what each gives alone.
// Not here: whether the numbers are right (model_test.cc, fixtures_test.cc).
#include <algorithm>
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
std::vector<Event> run_all(const std::string& device, Precision precision,
                           const EngineOptions& options, const std::vector<Request>& requests,
                           bool one_by_one) {
  Engine engine(random_model(device, precision), nullptr, options, nullptr);
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
  EXPECT_EQ(engine.stats().kv_tokens_used, int64_t{0});
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
  const std::vector<Event> a = run_all(device, precision, alone, requests, true);
  const std::vector<Event> b = run_all(device, precision, together, requests, false);
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
void on_card(Precision precision) {
  try {
    make_ops({.device = "cuda"});
  } catch (const Error& e) {
    skip(e.message());
  }
  expect_same_alone_and_together("cuda", precision);
}
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
