// memory_faults_test.cc: threads that cannot be started and memory that runs out: typed errors,
// fewer threads or later work, never the end of the process. Also the words of every thread that
// need no allocation, and how hostile text is shown.
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "harness.h"
#include "platform/error.h"
#include "platform/job_threads.h"
#include "platform/run_on_threads.h"
#include "platform/thread_storage.h"
#include "platform/utf8.h"

namespace polylm::test {
namespace {

void wait_until(const std::function<bool()>& reached) {
  for (int i = 0; i < 20'000 && !reached(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT(reached());
}

Error thrown_by(const std::function<void()>& f) {
  try {
    f();
  } catch (...) {
    return caught_error();
  }
  return {Code::kInternal, "nothing was thrown"};
}

TEST(errors_of_memory_and_threads_are_insufficient_memory) {
  const auto code = [](const std::function<void()>& f) { return show(thrown_by(f).code()); };
  EXPECT_EQ(code([] { throw std::bad_alloc(); }), show(Code::kInsufficientMemory));
  EXPECT_EQ(code([] {
              throw std::system_error(
                  std::make_error_code(std::errc::resource_unavailable_try_again));
            }),
            show(Code::kInsufficientMemory));
  EXPECT_EQ(code([] { throw std::logic_error("x"); }), show(Code::kInternal));
  EXPECT_EQ(code([] { throw 1; }), show(Code::kInternal));
  const Error error = thrown_by([] { fail(Code::kLimit, "m", "h", {{"n", int64_t{7}}}); });
  EXPECT_EQ(error.message() + error.hint() + error.fields()[0].name, std::string("mhn"));
}

TEST(jobs_run_and_two_threads_are_kept) {
  JobThreads& threads = JobThreads::shared();
  std::atomic<int> running{0};
  std::atomic<bool> go{false};
  std::atomic<int> done{0};
  for (int i = 0; i < 6; ++i) {
    threads.run([&] {
      ++running;
      while (!go) std::this_thread::yield();
      ++done;
    });
  }
  wait_until([&] { return running == 6; });  // all at once: none waits for another
  EXPECT_EQ(threads.count(), int64_t{6});
  go = true;
  wait_until([&] { return done == 6 && threads.count() == 2; });
}

TEST(jobs_wait_for_a_thread_when_none_can_be_started) {
  JobThreads& threads = JobThreads::shared();
  std::atomic<bool> go{false};
  std::atomic<int> done{0};
  const auto job = [&] {
    while (!go) std::this_thread::yield();
    ++done;
  };
  threads.run(job);
  threads.run(job);
  threads.fail_starts(4);
  for (int i = 0; i < 4; ++i) threads.run(job);
  threads.fail_starts(0);
  EXPECT(threads.count() <= 2);
  go = true;
  wait_until([&] { return done == 6; });
}

TEST(loading_goes_on_with_fewer_threads_and_reports_the_first_error) {
  std::atomic<int> calls{0};
  run_on_threads(4, [&] { ++calls; });
  EXPECT_EQ(calls.load(), 4);
  run_on_threads(0, [&] { ++calls; });
  EXPECT_EQ(calls.load(), 5);
  for (const int threads : {1, 4}) {
    EXPECT_EQ(show(thrown_by([&] {
                     run_on_threads(threads, [] { throw std::bad_alloc(); });
                   }).code()),
              show(Code::kInsufficientMemory));
  }
}

TEST(every_thread_has_its_own_zeroed_storage) {
  thread_storage().tile_set_up = 7;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> others;
    std::atomic<int> wrong{0};
    std::atomic<int> inside{0};
    for (int i = 0; i < 8; ++i) {
      others.emplace_back([&wrong, &inside, i] {
        const ThreadStorage zero{};
        wrong += std::memcmp(&thread_storage(), &zero, sizeof zero) != 0;
        thread_storage().tile_set_up = i;
        ++inside;
        while (inside < 8) std::this_thread::yield();  // all alive at once
        wrong += thread_storage().tile_set_up != i;
      });
    }
    for (std::thread& other : others) other.join();
    EXPECT_EQ(wrong.load(), 0);
  }
  EXPECT_EQ(thread_storage().tile_set_up, int64_t{7});
  thread_storage().tile_set_up = 0;
}

TEST(quoted_text_obeys_nothing) {
  EXPECT_EQ(quoted("a\x1b[31m\x07"), std::string("\"a\\u001b[31m\\u0007\""));
  EXPECT_EQ(quoted("\"\\"), std::string("\"\\\"\\\\\""));
  EXPECT_EQ(quoted("\xC2\x9B\x7F"), std::string("\"\\u009b\\u007f\""));          // C1, DEL
  EXPECT_EQ(quoted("\xE2\x80\xAE\xE2\x80\xA8\xEF\xBB\xBF"),
            std::string("\"\\u202e\\u2028\\ufeff\""));
  EXPECT_EQ(quoted("\xF3\xA0\x81\x81"), std::string("\"\\u{e0041}\""));          // a tag
  EXPECT_EQ(quoted("\xED\xA0\x80"), std::string("\"\\xed\\xa0\\x80\""));  // a surrogate
  EXPECT_EQ(quoted("\xFF\xC0\x80\xE2\x80"), std::string("\"\\xff\\xc0\\x80\\xe2\\x80\""));
  EXPECT_EQ(quoted("é 北京 😀"), std::string("\"é 北京 😀\""));
  EXPECT_EQ(quoted(std::string_view("\0", 1)), std::string("\"\\u0000\""));
}

// Cut between characters, never inside one, and never far beyond the limit.
TEST(quoted_text_is_valid_and_bounded) {
  const std::string parts[] = {"a", "é", "京", "😀", "\x1b", "\xFF", "\xE2\x80\xAE", "\\", "\xE2"};
  uint64_t state = seed();
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 300; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      text += parts[(state >> 33) % 9];
    }
    const std::string shown = quoted(text);
    EXPECT(is_valid_utf8(shown));
    EXPECT(shown.size() <= 205);
    EXPECT(shown.find('\x1b') == std::string::npos && shown.back() == '"');
    EXPECT(quoted_path(text).size() > 205);
  }
}

}  // namespace
}  // namespace polylm::test
