// thread_storage.cc: with glibc, slots in static memory that threads claim and give back; elsewhere
// thread_local, which other systems reserve when a thread starts or allocate as they can.
// Trap: this runs while an exception is thrown for lack of memory: it must not allocate, not even
// through a lazy symbol.
#include "platform/thread_storage.h"

#if defined(__GLIBC__)
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstddef>
#endif

namespace polylm {

#if defined(__GLIBC__)
namespace {

constexpr size_t kSlots = 4096;  // threads alive at once that threw, or used the tile unit

struct alignas(64) Slot {
  std::atomic<pthread_t> owner;  // 0: free
  ThreadStorage storage;
};
Slot slots[kSlots];

// The key only makes finding quick and tells of a thread's end; a slot belongs to its owner anyway.
class Key {
 public:
  Key() { made_ = pthread_key_create(&key_, give_back) == 0; }
  Slot* get() const {
    return made_ ? static_cast<Slot*>(pthread_getspecific(key_)) : nullptr;
  }
  // May fail, for lack of memory, beyond the first 32 keys of a process.
  void set(Slot* slot) const {
    if (made_) static_cast<void>(pthread_setspecific(key_, slot));
  }

 private:
  static void give_back(void* data) {
    auto* slot = static_cast<Slot*>(data);
    slot->storage = ThreadStorage{};
    slot->owner.store(0, std::memory_order_release);
  }
  pthread_key_t key_ = 0;
  bool made_ = false;
};
const Key key;

Slot* find(pthread_t self) {
  for (Slot& slot : slots) {
    if (slot.owner.load(std::memory_order_relaxed) == self) return &slot;
  }
  return nullptr;
}

Slot* claim(pthread_t self) {
  for (;;) {
    for (Slot& slot : slots) {
      pthread_t nobody = 0;
      if (slot.owner.load(std::memory_order_relaxed) != 0) continue;
      if (slot.owner.compare_exchange_strong(nobody, self, std::memory_order_acquire)) {
        return &slot;
      }
    }
    sched_yield();  // until one of 4,096 threads ends
  }
}

}  // namespace

ThreadStorage& thread_storage() noexcept {
  Slot* slot = key.get();
  if (slot != nullptr) return slot->storage;
  const pthread_t self = pthread_self();
  slot = find(self);
  if (slot == nullptr) slot = claim(self);
  key.set(slot);
  return slot->storage;
}

#else

ThreadStorage& thread_storage() noexcept {
  thread_local ThreadStorage storage{};
  return storage;
}

#endif

}  // namespace polylm
