// buffer.h: large aligned zeroed memory straight from the operating system, owned. Pages cost
// nothing until they are touched, so a KV arena or a row of logits may be reserved at its largest.
// Trap: the memory is not from the heap: sanitizers see its ends only with set_buffer_guards.
#pragma once

#include <cstddef>
#include <cstdint>

namespace polylm {

class Buffer {
 public:
  Buffer() = default;
  // Throws INSUFFICIENT_MEMORY, naming the bytes and `purpose` ("weights", "the KV cache").
  Buffer(int64_t size_bytes, const char* purpose);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Aligned to 64 bytes; to 2 MiB, on huge pages where there are any, from 4 MiB on.
  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  int64_t size_bytes_ = 0;
  void* map_ = nullptr;  // what to give back
  size_t map_bytes_ = 0;
};

// Test hooks. With guards on, a Buffer ends (rounded up to 64 bytes) where an inaccessible page
// begins. The fault hook makes the n-th Buffer from now on fail, n = 1 the next; 0 turns it off.
void set_buffer_guards(bool on);
void set_buffer_fault(int64_t nth);

}  // namespace polylm
