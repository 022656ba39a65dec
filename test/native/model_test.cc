// model_test.cc: whole forward passes against Hugging Face's logits, and the bitwise promises:
// the same row gives the same bits alone, in a batch, in any chunking.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "backends.h"
#include "flat_model.h"
#include "harness.h"
#include "model/weights.h"

namespace polylm::test {
namespace {

constexpr int64_t kBlocks = 64;

std::unique_ptr<Model> load(const FlatModel& flat, const std::string& device, Precision precision,
                            int64_t threads = 1) {
  auto model = flat.load(make_ops({.device = device, .precision = precision, .threads = threads}));
  const ModelConfig& c = model->config();
  model->reserve({.rows = 512, .sequences = 8, .select_rows = 512, .full_rows = 512, .listed = 64,
                  .vocab = c.vocab_size, .context = c.context_size}, kBlocks);
  return model;
}

struct Chunk {
  int64_t begin = 0;  // positions [begin, end) of the sequence
  int64_t end = 0;
};

// Feeds tokens [0, n) of one sequence in the given chunks; returns every row's logits [n, V].
std::vector<float> run_chunks(Model& model, const std::vector<int32_t>& tokens,
                              const std::vector<Chunk>& chunks) {
  std::vector<int32_t> blocks(static_cast<size_t>(kBlocks));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>((i * 5 + 3) % 64);
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  std::vector<float> logits;
  const std::atomic<bool> stop{false};
  for (const Chunk& chunk : chunks) {
    const int64_t count = chunk.end - chunk.begin;
    const SequenceRows rows = {.first_row = 0, .row_count = count, .first_position = chunk.begin,
                               .blocks = blocks.data(), .block_count = kBlocks};
    std::vector<SelectRow> select(static_cast<size_t>(count));
    for (size_t i = 0; i < select.size(); ++i) {
      select[i].row = static_cast<int64_t>(i);
      select[i].keep_full = true;
    }
    EXPECT(model.forward({.rows = count, .generated_rows = 0,
                          .tokens = tokens.data() + chunk.begin, .sequences = &rows,
                          .sequence_count = 1},
                         {select.data(), count}, stop));
    model.ops().collect();
    for (int64_t i = 0; i < count; ++i) {
      const float* row = model.ops().full_row(i);
      logits.insert(logits.end(), row, row + vocab);
    }
  }
  return logits;
}

struct Error2 {
  double max_abs = 0;
  double rel_l2 = 0;
  double mean_abs = 0;
};

// Compares with every logits[] entry of the fixture.
Error2 compare_fixture(const FlatModel& flat, Model& model) {
  Error2 worst;
  double diff2 = 0;
  double ref2 = 0;
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < flat.length("expected/logits"); ++i) {
    const std::string base = "expected/logits/" + std::to_string(i);
    const std::vector<int32_t> prompt = flat.ids(base + "/prompt");
    const auto n = static_cast<int64_t>(prompt.size());
    const std::vector<float> logits = run_chunks(model, prompt, {{0, n}});
    for (int64_t p = 0; p < flat.length(base + "/positions"); ++p) {
      const std::string at = base + "/positions/" + std::to_string(p);
      const std::vector<double>& expected = flat.numbers(at + "/logits");
      const auto row = static_cast<size_t>(flat.number(at + "/pos")) * expected.size();
      for (size_t v = 0; v < expected.size(); ++v) {
        const double d = std::fabs(logits[row + v] - expected[v]);
        worst.max_abs = std::max(worst.max_abs, d);
        diff2 += d * d;
        ref2 += expected[v] * expected[v];
        sum += d;
        ++count;
      }
    }
  }
  EXPECT(count > 0);
  worst.rel_l2 = std::sqrt(diff2 / ref2);
  worst.mean_abs = sum / static_cast<double>(count);
  return worst;
}

void check_fp32(const char* name, const char* device) {
  const FlatModel flat = FlatModel::open(name);
  const Error2 e = compare_fixture(flat, *load(flat, device, Precision::kFp32));
  std::printf("    %s %s fp32: max %.2e rel %.2e\n", name, device, e.max_abs, e.rel_l2);
  EXPECT(e.max_abs < 1e-3);
}

// The yardstick of the fixtures' README for bf16 inputs with fp32 accumulation.
void check_bf16(const char* name, const char* device) {
  const FlatModel flat = FlatModel::open(name);
  const Error2 e = compare_fixture(flat, *load(flat, device, Precision::kBf16));
  std::printf("    %s %s bf16: max %.3f mean %.4f rel %.4f\n", name, device, e.max_abs,
              e.mean_abs, e.rel_l2);
  EXPECT(e.max_abs < 0.5);
  EXPECT(e.mean_abs < 0.05);
  EXPECT(e.rel_l2 < 0.015);
}

}  // namespace

TEST(model_ref_fp32_tiny) { check_fp32("gpt2-tiny", "ref"); }
TEST(model_ref_fp32_mid) { check_fp32("gpt2-mid", "ref"); }
TEST(model_cpu_fp32_tiny) { check_fp32("gpt2-tiny", "cpu"); }
TEST(model_cpu_fp32_mid) { check_fp32("gpt2-mid", "cpu"); }
TEST(model_ref_bf16_tiny) { check_bf16("gpt2-tiny", "ref"); }
TEST(model_cpu_bf16_tiny) { check_bf16("gpt2-tiny", "cpu"); }
TEST(model_cpu_bf16_mid) { check_bf16("gpt2-mid", "cpu"); }

TEST(model_bits_do_not_depend_on_chunks) {
  const FlatModel flat = FlatModel::open("gpt2-tiny");
  std::vector<int32_t> tokens = flat.ids("expected/logits/3/prompt");
  const auto n = static_cast<int64_t>(tokens.size());
  for (const char* device : {"ref", "cpu"}) {
    for (const Precision precision : {Precision::kBf16, Precision::kFp32}) {
      const auto model = load(flat, device, precision);
      const std::vector<float> whole = run_chunks(*model, tokens, {{0, n}});
      std::vector<Chunk> ones;
      for (int64_t i = 0; i < n; ++i) ones.push_back({i, i + 1});
      EXPECT(run_chunks(*model, tokens, ones) == whole);
      EXPECT(run_chunks(*model, tokens, {{0, 17}, {17, 18}, {18, 50}, {50, n}}) == whole);
    }
  }
}

TEST(model_bits_do_not_depend_on_threads) {
  const FlatModel flat = FlatModel::open("gpt2-tiny");
  const std::vector<int32_t> tokens = flat.ids("expected/logits/3/prompt");
  const auto n = static_cast<int64_t>(tokens.size());
  const auto one = run_chunks(*load(flat, "cpu", Precision::kBf16, 1), tokens, {{0, n}});
  for (const int64_t threads : {2, 4}) {
    EXPECT(run_chunks(*load(flat, "cpu", Precision::kBf16, threads), tokens, {{0, n}}) == one);
  }
}

TEST(crc32_known_values_and_combination) {
  EXPECT_EQ(crc32_update(0, "123456789", 9), 0xcbf43926u);
  const std::string text = "The quick brown fox jumps over the lazy dog";
  const uint32_t whole = crc32_update(0, text.data(), text.size());
  EXPECT_EQ(whole, 0x414fa339u);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t a = crc32_update(0, text.data(), cut);
    const uint32_t b = crc32_update(0, text.data() + cut, text.size() - cut);
    EXPECT_EQ(crc32_combine(a, b, static_cast<int64_t>(text.size() - cut)), whole);
  }
  // Long runs take another way than bytes one by one.
  std::string bytes;
  for (uint32_t i = 0; i < 1000; ++i) bytes += static_cast<char>(i * i * 2654435761u >> 24);
  for (const size_t begin : {0, 1, 7}) {
    uint32_t one_by_one = 0;
    for (size_t end = begin + 1; end <= bytes.size(); ++end) {
      one_by_one = crc32_update(one_by_one, &bytes[end - 1], 1);
      EXPECT_EQ(crc32_update(0, &bytes[begin], end - begin), one_by_one);
      EXPECT_EQ(crc32_update(~one_by_one, &bytes[begin], end - begin),
                crc32_combine(~one_by_one, one_by_one, static_cast<int64_t>(end - begin)));
    }
  }
}

}  // namespace polylm::test
