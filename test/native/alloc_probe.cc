// alloc_probe.cc: the program's operator new and delete, and what alloc_probe.h promises.
#include "alloc_probe.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace polylm::test {
namespace {

std::atomic<int64_t> allocations{0};
thread_local int64_t until_failure = -1;  // allocations of this thread before one fails; -1: none
thread_local bool failed = false;
thread_local int pauses = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  if (pauses == 0) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (until_failure >= 0 && until_failure-- == 0) {
      failed = true;
      throw std::bad_alloc();
    }
  }
  if (bytes == 0) bytes = 1;
  void* memory = nullptr;
  if (alignment == 0) {
    memory = std::malloc(bytes);
  } else {
    memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  }
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

AllocCount::AllocCount() : before_(allocations.load()) {}
int64_t AllocCount::count() const { return allocations.load() - before_; }

void fail_allocation(int64_t n) {
  failed = false;
  until_failure = n;
}

bool stop_failing_allocations() {
  until_failure = -1;
  return failed;
}

AllocPause::AllocPause() { ++pauses; }
AllocPause::~AllocPause() { --pauses; }

}  // namespace polylm::test

// Not inlined: GCC 12 would see malloc and free without new and delete between them and complain.
#define POLYLM_KEPT __attribute__((noinline))
POLYLM_KEPT void* operator new(std::size_t bytes) { return polylm::test::counted(bytes, 0); }
POLYLM_KEPT void* operator new[](std::size_t bytes) { return polylm::test::counted(bytes, 0); }
POLYLM_KEPT void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return polylm::test::counted(bytes, static_cast<std::size_t>(alignment));
}
POLYLM_KEPT void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return polylm::test::counted(bytes, static_cast<std::size_t>(alignment));
}
// Those of the standard library that do not throw must end in the same free().
POLYLM_KEPT void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return polylm::test::counted(bytes, 0);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
POLYLM_KEPT void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
POLYLM_KEPT void operator delete(void* memory) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete[](void* memory) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
POLYLM_KEPT void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
POLYLM_KEPT void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
