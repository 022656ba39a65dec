// alloc_probe.h: every operator new of the test program goes through here: tests count allocations,
// and let the n-th one of their own thread fail. Not here: memory that a device gets in other ways.
// Trap: both count only while a test asked for it; the programs of other tests are not slower.
#pragma once

#include <cstdint>

namespace polylm::test {

// Allocations of all threads since it was made.
class AllocCount {
 public:
  AllocCount();
  int64_t count() const;

 private:
  int64_t before_;
};

// The n-th allocation (from 0) of this thread from now on throws bad_alloc, once.
void fail_allocation(int64_t n);
// Nothing fails any more. True when one did.
bool stop_failing_allocations();

// What this thread allocates meanwhile neither counts nor fails.
class AllocPause {
 public:
  AllocPause();
  ~AllocPause();
  AllocPause(const AllocPause&) = delete;
  AllocPause& operator=(const AllocPause&) = delete;
};

}  // namespace polylm::test
