// thread_storage.h: a few words of every thread that must be there without an allocation. A library
// that is loaded later gets its thread_local variables from malloc, at the first access of every
// thread, and glibc ends the process when that fails; so this library has none of its own. C++
// exceptions keep their state here (binding/exception_storage.cc), the tile unit its set-up.
#pragma once

#include <cstdint>

namespace polylm {

struct ThreadStorage {
  void* exceptions[4];   // __cxa_eh_globals: two words, three on 32-bit ARM
  int64_t tile_set_up;   // see cpu/isa_amx.cc
};

// This thread's, zeroed when the thread first asks. Never fails.
ThreadStorage& thread_storage() noexcept;

}  // namespace polylm
