// cuda_faults_test.cc: what only an emulated card can be asked to do: fail. Graphs that cannot be
// had, launches and copies that are refused, want of memory, and errors for ever; and what the host
// starts for a step that comes again. Compiled into polylm_cuda_emulated alone.
#include <cuda_runtime.h>

#include "backends.h"
#include "cuda/graph_cache.h"
#include "cuda_rig.h"

namespace polylm::test {
namespace {

using emulator::Fault;

void no_fault() { emulator::fail(Fault::kLaunch, 0, cudaSuccess); }

// One generated row at position i of a sequence that has some.
std::vector<float> next(Stack& stack, int64_t i) { return stack.step({{0, 5 + i, 1, true}}); }

}  // namespace

// Tensor cores cut their sums instead of rounding them: both families stay within 1e-6 of the truth
// over the longest product all the same, because every 128 k are summed from zero.
TEST(cuda_sums_that_are_cut) {
  constexpr int64_t k = 20480, n = 16, rows = 2;
  for (const bool generated : {true, false}) {
    const auto ops = Subject{.is_cuda = true, .generated = generated}.make();
    Random random(6);
    const TestMatrix m = bf16_matrix(*ops, n, k, random.numbers(n * k, 1.0F));
    const Act x = ops->make_act(rows, k, ActKind::kInput);
    const Act y = ops->make_act(rows, n, ActKind::kResidual);
    ops->reserve(roomy_limits(rows, 10, 64));
    const std::vector<float> in = rounded(random.numbers(rows * k, 1.0F));
    ops->write_act(x, rows, in.data());
    Batch batch;
    batch.add(0, rows, {0});
    emulator::cut_sums(true);
    ops->begin(batch.inputs());
    ops->linear({x, m.w, Vector{}, Epilogue::kAdd, y});
    ops->submit();
    ops->collect();
    emulator::cut_sums(false);
    std::vector<float> got(static_cast<size_t>(rows * n));
    ops->read_act(y, rows, got.data());
    std::vector<double> truth(got.size());
    for (int64_t i = 0; i < rows * n * k; ++i) {
      const int64_t row = i / (n * k);
      const int64_t col = i / k % n;
      truth[static_cast<size_t>(row * n + col)] +=
          static_cast<double>(in[static_cast<size_t>(row * k + i % k)]) *
          static_cast<double>(m.values[static_cast<size_t>(col * k + i % k)]);
    }
    const double error = relative_error(got, truth);
    EXPECT(error < 1e-6);
    EXPECT(error > 1e-8);  // they were cut
    if (error >= 1e-6) std::printf("    relative error %g\n", error);
  }
}

// First launch by launch, then captured, then one call a step: nothing else, no copy, no node more.
TEST(cuda_graph_makes_a_step_one_launch) {
  Stack stack;
  stack.step({{0, 0, 5, false}});
  emulator::reset_calls();
  next(stack, 0);
  const emulator::Calls first = emulator::calls();
  EXPECT(first.launches >= 7 && first.launches <= 12);
  EXPECT_EQ(first.captures + first.graph_launches, 0);
  emulator::reset_calls();
  next(stack, 1);
  EXPECT_EQ(emulator::calls().captures, 1);
  EXPECT_EQ(emulator::calls().launches, 0);
  EXPECT_EQ(emulator::calls().graph_launches, 1);
  for (int64_t i = 2; i < 6; ++i) {
    emulator::reset_calls();
    next(stack, i);
    const emulator::Calls c = emulator::calls();
    EXPECT_EQ(c.graph_launches, 1);
    EXPECT_EQ(c.launches + c.captures + c.instantiated, 0);
    EXPECT_EQ(c.copies, 1);  // the test's own, of the kept logits
  }
}

// Two kinds of graph, one for each place of a step in flight; then one call a step as well.
TEST(cuda_graph_of_steps_in_flight) {
  Stack stack;
  Greedy greedy(&stack);
  greedy.submit({1, 2}, false);
  for (int i = 0; i < 12; ++i) {
    emulator::reset_calls();
    greedy.submit({2, 1}, true);
    const emulator::Calls c = emulator::calls();
    if (i >= 4) EXPECT_EQ(c.graph_launches, 1);
    if (i >= 4) EXPECT_EQ(c.launches + c.captures + c.copies, 0);
    greedy.collect();
  }
  greedy.collect();
}

// Results of a step are there as soon as it is done: nothing of the step behind it was waited for.
TEST(cuda_collect_waits_for_one_step) {
  Stack stack;
  Greedy greedy(&stack);
  greedy.submit({0, 1, 2}, false);
  const int of_one = emulator::waiting();
  EXPECT(of_one > 8);
  for (int i = 0; i < 6; ++i) {
    greedy.submit({2, 1, 0}, true);
    EXPECT_EQ(emulator::waiting(), 2 * of_one);
    greedy.collect();
    EXPECT_EQ(emulator::waiting(), of_one);
  }
  greedy.collect();
  EXPECT_EQ(emulator::waiting(), 0);
}

// What cannot be started behind a step in flight is its own failure, not that step's.
TEST(cuda_refused_launches_behind_a_step_in_flight) {
  Stack healthy;
  Greedy sound(&healthy);
  sound.submit({0, 1}, false);
  const std::vector<double> want = sound.collect();
  for (const Fault what : {Fault::kLaunch, Fault::kCopy}) {
    for (int nth = 1; nth <= 2; ++nth) {
      Stack stack;
      Greedy greedy(&stack);
      greedy.submit({0, 1}, false);
      emulator::fail(what, nth, cudaErrorLaunchOutOfResources);
      greedy.submit({1, 0}, true);
      no_fault();
      EXPECT(greedy.collect() == want);
      EXPECT_THROWS_CODE(Code::kDevice, greedy.collect());
      EXPECT_EQ(emulator::waiting(), 0);
      stack.step({{0, 0, 5, false}});
    }
  }
}

// A norm that its product can do itself is no launch: one or two rows have fewer than three.
TEST(cuda_norm_is_fused_for_few_rows) {
  const auto launches = [](int64_t rows) {
    Stack stack;
    stack.step({{0, 0, 5, false}});
    emulator::reset_calls();
    stack.step({{0, 5, rows, true}});
    return emulator::calls().launches;
  };
  const int one = launches(1);
  EXPECT_EQ(launches(2), one);
  EXPECT_EQ(launches(3), one + 1);  // this stack has one norm before a product
}

// Prompts are never graphs: no two are alike.
TEST(cuda_prompt_steps_are_no_graphs) {
  Stack stack;
  emulator::reset_calls();
  for (int i = 0; i < 3; ++i) stack.step({{0, 0, 5, false}});
  for (int i = 0; i < 3; ++i) stack.step({{1, i, 1, true}, {0, 0, 5, false}});
  EXPECT_EQ(emulator::calls().captures, 0);
}

// Many kinds of steps: the oldest graphs go, all go with the model.
TEST(cuda_graphs_are_bounded) {
  const int before = emulator::calls().live_graphs;
  {
    Stack stack;
    stack.step({{0, 0, 40, false}});
    int most = 0;
    for (int64_t rows = 1; rows <= 64; rows *= 2) {
      for (const int64_t listed : {0, 1, 300, 600, 1100}) {
        for (int turn = 0; turn < 3; ++turn) stack.step({{0, 40, rows, true}}, listed);
        most = std::max(most, emulator::calls().live_graphs - before);
      }
    }
    EXPECT_EQ(most, 32);
  }
  EXPECT_EQ(emulator::calls().live_graphs, before);
}

// Without graphs everything goes on, launch by launch, with the same bits.
TEST(cuda_graphs_that_cannot_be_had) {
  Stack healthy;
  healthy.step({{0, 0, 5, false}});
  std::vector<std::vector<float>> want;
  for (int64_t i = 0; i < 4; ++i) want.push_back(next(healthy, i));
  const auto run = [&](Fault what, int nth, cudaError_t e) {
    Stack stack;
    stack.step({{0, 0, 5, false}});
    EXPECT(next(stack, 0) == want[0]);
    emulator::fail(what, nth, e);
    for (int64_t i = 1; i < 4; ++i) EXPECT(next(stack, i) == want[static_cast<size_t>(i)]);
    no_fault();
  };
  run(Fault::kCapture, 1, cudaErrorStreamCaptureUnsupported);
  run(Fault::kInstantiate, 1, cudaErrorMemoryAllocation);
  run(Fault::kGraphLaunch, 1, cudaErrorMemoryAllocation);
  run(Fault::kGraphLaunch, 2, cudaErrorLaunchOutOfResources);
  for (int nth = 1; nth <= 4; ++nth) run(Fault::kLaunch, nth, cudaErrorLaunchOutOfResources);
  run(Fault::kCopy, 1, cudaErrorStreamCaptureUnsupported);
}

// A launch or a copy that is refused ends its step and nothing else.
TEST(cuda_refused_launches_are_recoverable) {
  Stack healthy;
  healthy.step({{0, 0, 5, false}});
  const std::vector<float> want = next(healthy, 0);
  const auto run = [&](Fault what, int nth, cudaError_t e, Code code) {
    Stack stack;
    stack.step({{0, 0, 5, false}});
    emulator::fail(what, nth, e);
    EXPECT_THROWS_CODE(code, next(stack, 0));
    no_fault();
    for (int i = 0; i < 3; ++i) EXPECT(next(stack, 0) == want);
  };
  for (const Fault what : {Fault::kLaunch, Fault::kCopy}) {
    run(what, 1, cudaErrorLaunchOutOfResources, Code::kDevice);
    run(what, 2, cudaErrorLaunchOutOfResources, Code::kDevice);
    run(what, 1, cudaErrorMemoryAllocation, Code::kInsufficientMemory);
  }
}

TEST(cuda_want_of_memory_is_recoverable) {
  const int before = emulator::live_allocations();
  for (int nth = 1; nth < 40; ++nth) {
    bool failed = false;
    emulator::fail(Fault::kAllocate, nth, cudaErrorMemoryAllocation);
    try {
      Stack stack;
    } catch (const Error& e) {
      failed = true;
      EXPECT_EQ(show(e.code()), show(Code::kInsufficientMemory));
      EXPECT(e.message().find("bytes") != std::string::npos);
    }
    no_fault();
    EXPECT_EQ(emulator::live_allocations(), before);
    if (!failed) {
      EXPECT(nth > 20);
      Stack().step({{0, 0, 3, false}});
      return;
    }
  }
  EXPECT(false);
}

// Last, because it is for ever: after a sticky error no CUDA model of the process works again. The
// process lives, and so do its CPU models.
TEST(cuda_zz_sticky_error_is_fatal_for_every_model) {
  Stack first;
  Stack second;
  first.step({{0, 0, 3, false}});
  const auto cpu = make_ops({.device = "cpu"});
  Greedy greedy(&first);
  emulator::reset_calls();
  greedy.submit({0}, false);
  const int of_one = emulator::calls().launches;
  greedy.submit({0}, true);
  emulator::fail(Fault::kExecute, of_one + 2, cudaErrorIllegalAddress);  // in the second one
  greedy.collect();
  try {
    greedy.collect();
    EXPECT(false);
  } catch (const Error& e) {
    EXPECT_EQ(show(e.code()), show(Code::kDevice));
    EXPECT(e.hint().find("restart the process") != std::string::npos);
  }
  emulator::break_device(cudaSuccess);  // even if CUDA recovered
  EXPECT_THROWS_CODE(Code::kDevice, second.step({{0, 0, 3, false}}));
  EXPECT_THROWS_CODE(Code::kDevice, make_ops({.device = "cuda"}));
  EXPECT_EQ(cpu->info().kind, std::string("cpu"));
  const float number = 1.0F;
  EXPECT_EQ(cpu->make_vector(&number, 1).size, int64_t{1});
  EXPECT_EQ(make_ops({.device = "cpu"})->info().kind, std::string("cpu"));
}

}  // namespace polylm::test
