/* glibc_floor.c: the few functions that the compiler's headers and its static libstdc++ expect of glibc and that the
 * floor of cmake/portable.cmake does not have. Only in a portable link. Each is hidden: nobody else sees it.
 * Not here: older versions of functions that the floor does have; the stub libraries see to those.
 * Trap: scripts/check-binary.mjs fails the build when one more is needed, and says which. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* glibc 2.32. Zero: there may be threads, so use atomic operations. */
HIDDEN char __libc_single_threaded = 0;

/* glibc 2.33 made fstat a function; before, the header called this one with the version of the structure. */
#if defined(__x86_64__)
enum { kStatVersion = 1 };
#else
enum { kStatVersion = 0 };
#endif
extern int __fxstat(int version, int descriptor, struct stat* out);
extern int __fxstat64(int version, int descriptor, struct stat64* out);

HIDDEN int fstat(int descriptor, struct stat* out) { return __fxstat(kStatVersion, descriptor, out); }
HIDDEN int fstat64(int descriptor, struct stat64* out) {
  return __fxstat64(kStatVersion, descriptor, out);
}

static long long nanoseconds(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

/* glibc 2.30. Where it is missing, the wait is turned into one by the wall clock. */
HIDDEN int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                                  const struct timespec* until) {
  typedef int (*Wait)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*);
  static _Atomic(Wait) known = 0;
  Wait wait = known;
  if (wait == 0) {
    wait = (Wait)dlsym(RTLD_DEFAULT, "pthread_cond_clockwait");
    known = wait;
  }
  if (wait != 0) return wait(condition, mutex, clock, until);
  struct timespec now, wall;
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &wall);
  long long left = nanoseconds(*until) - nanoseconds(now);
  if (left < 0) left = 0;
  const long long at = nanoseconds(wall) + left;
  const struct timespec absolute = {at / 1000000000LL, at % 1000000000LL};
  return pthread_cond_timedwait(condition, mutex, &absolute);
}
