// exception_storage.cc: where C++ exceptions in flight are kept, in place of libstdc++'s own
// thread_local variable: that one is allocated at a thread's first throw, and without memory, which
// is what the exception may be about, glibc ends the process ("cannot allocate memory for
// thread-local data"). The two functions are part of the Itanium C++ ABI; the static libstdc++ in
// the addon takes these because an object file comes before an archive. Other C++ runtimes bring
// their own and leave these unused.
#include "platform/thread_storage.h"

#if defined(__GLIBC__) && defined(__GLIBCXX__)

namespace __cxxabiv1 {

struct __cxa_eh_globals;

extern "C" __cxa_eh_globals* __cxa_get_globals() noexcept {
  return reinterpret_cast<__cxa_eh_globals*>(polylm::thread_storage().exceptions);
}

extern "C" __cxa_eh_globals* __cxa_get_globals_fast() noexcept { return __cxa_get_globals(); }

}  // namespace __cxxabiv1

#endif
