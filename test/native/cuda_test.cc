// cuda_test.cc: what is particular to the CUDA device: prompt and generated rows in one step with
// bits that depend on neither, more rows than one launch takes, graphs of steps, and how the device
// is chosen. On a card, or on the emulator; skipped where there is neither.
#include "backends.h"
#include "cuda_rig.h"

namespace polylm::test {

TEST(cuda_rows_of_both_roles_in_one_step) {
  Stack alone;
  alone.step({{0, 0, 290, false}});
  const std::vector<float> generated = alone.step({{0, 290, 1, true}});
  const std::vector<float> prompt = alone.step({{1, 0, 70, false}});
  alone.step({{2, 0, 9, false}});
  const std::vector<float> drafts = alone.step({{2, 9, 3, true}});
  Stack together;
  together.step({{0, 0, 290, false}, {2, 0, 9, false}});
  const std::vector<float> all =
      together.step({{0, 290, 1, true}, {2, 9, 3, true}, {1, 0, 70, false}});
  expect_rows(all, 0, generated, "a generated row");
  expect_rows(all, 1, drafts, "draft rows");
  expect_rows(all, 4, prompt, "prompt rows");
}

// 300 generated rows are more than one launch of decode attention takes, and 3 segments deep.
TEST(cuda_many_generated_rows) {
  Stack one_by_one;
  one_by_one.step({{0, 0, 260, false}});
  Stack at_once;
  at_once.step({{0, 0, 260, false}});
  const std::vector<float> all = at_once.step({{0, 260, 300, true}});
  for (int64_t i = 0; i < 300; i += 60) {
    expect_rows(all, i, one_by_one.step({{0, 260 + i, 60, true}}), "rows from " + show(i));
  }
}

// Steps that come again and again, of different batches and lengths: whatever way they are started
// (launches, a graph just captured, a graph replayed, another bucket), their bits are those of
// their rows alone.
TEST(cuda_replayed_steps_have_the_same_bits) {
  Stack alone;
  Stack batched;
  for (Stack* s : {&alone, &batched}) s->step({{0, 0, 250, false}, {1, 0, 40, false}});
  for (int64_t i = 0; i < 12; ++i) {  // sequence 0 crosses into its second segment
    const int64_t listed = i % 4 * 3;
    const std::vector<float> first = alone.step({{0, 250 + i, 1, true}}, listed);
    const std::vector<double> first_answer = alone.answers().at(0);
    const std::vector<float> second = alone.step({{1, 40 + 2 * i, 2, true}}, listed);
    const std::vector<double> second_answer = alone.answers().at(0);
    const std::vector<float> both =
        batched.step({{0, 250 + i, 1, true}, {1, 40 + 2 * i, 2, true}}, listed);
    expect_rows(both, 0, first, "step " + show(i) + ", first row");
    expect_rows(both, 1, second, "step " + show(i) + ", second rows");
    EXPECT(batched.answers().at(0) == first_answer);
    EXPECT(batched.answers().at(1) == second_answer);
  }
}

// A step that takes its tokens from the one in flight gives the same bits as one that gets them
// from the host: whatever the order of the rows, also when some stay behind, and over all the ways
// in which a step is started.
TEST(cuda_tokens_fed_back_on_the_card) {
  Stack by_host;
  Stack by_card;
  Greedy host(&by_host);
  Greedy card(&by_card);
  const auto sequences = [](int64_t i) -> std::vector<int64_t> {
    if (i >= 13) return {i % 2 * 2};
    if (i >= 9) return i % 2 == 0 ? std::vector<int64_t>{2, 0} : std::vector<int64_t>{0, 2};
    return {i % 3, (i + 1) % 3, (i + 2) % 3};
  };
  constexpr int64_t kSteps = 16;
  std::vector<std::vector<double>> want;
  for (int64_t i = 0; i < kSteps; ++i) {
    host.submit(sequences(i), false);
    want.push_back(host.collect());
  }
  const auto is_fed = [](int64_t i) { return i != 0 && i != 8 && i < 14; };
  for (int64_t i = 0; i < kSteps; ++i) {
    if (!is_fed(i)) card.submit(sequences(i), false);  // nothing is in flight
    if (i + 1 < kSteps && is_fed(i + 1)) card.submit(sequences(i + 1), true);
    EXPECT(card.collect() == want[static_cast<size_t>(i)]);
  }
}

// An abandoned step leaves nothing behind that the next one could read.
TEST(cuda_abandoned_step) {
  Stack stack;
  const std::vector<float> want = stack.step({{0, 0, 5, false}});
  const int32_t tokens[] = {7, 8};
  const int32_t table[] = {1};
  const SequenceRows rows = {0, 2, 0, table, 1};
  stack.ops().begin({2, 0, tokens, &rows, 1});
  const std::vector<float> again = stack.step({{0, 0, 5, false}});
  EXPECT(want == again);
}

// Nor does one that was begun while another one was in flight.
TEST(cuda_abandoned_step_behind_one_in_flight) {
  Stack sound;
  Greedy want(&sound);
  Stack stack;
  Greedy greedy(&stack);
  std::vector<double> last;
  for (int64_t i = 0; i < 4; ++i) {
    want.submit({1, 0}, false);
    last = want.collect();
    greedy.submit({1, 0}, false);
    const int32_t source = 0;
    const int32_t table[] = {1, 4, 7};
    const SequenceRows rows = {0, 1, 44, table, 3};
    stack.ops().begin({1, 1, nullptr, &rows, 1, &source});
    EXPECT(greedy.collect() == last);
  }
}

TEST(cuda_device_names) {
#ifdef POLYLM_CUDA
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda:99"}));
  const std::vector<DeviceReport> reports = list_devices();
  EXPECT(reports.size() >= 2);
  EXPECT_EQ(reports.at(1).kind, std::string("cuda"));
  EXPECT_EQ(reports.at(1).reason.empty(), reports.at(1).proven);
  const auto automatic = make_ops({.device = "auto"});
  const DeviceChoice choice = choose_device(reports, 0);
  EXPECT_EQ(automatic->info().kind == "cpu", choice.device == "cpu");
  EXPECT_EQ(automatic->info().reason.find("cuda: ") == 0, choice.device == "cpu");
  if (reports.at(1).usable) {
    EXPECT_EQ(make_ops({.device = "cuda"})->info().kind, std::string("cuda"));
  } else {
    EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  }
#else
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  skip("cuda: this build has no CUDA kernels");
#endif
}

}  // namespace polylm::test
