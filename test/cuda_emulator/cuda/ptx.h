// ptx.h: the instructions of csrc/cuda/ptx.h on the CPU. Copies arrive as late as they may (when
// their group is waited for), and a product is computed when all 32 lanes have brought their
// fragments, from the layout that the PTX manual documents.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace emulator {
unsigned char* shared_memory();
void start_copy(void* to, const void* from, bool valid);
void commit_copies();
void wait_copies(int open);
void product(float* d, const uint32_t* a, uint32_t b0, uint32_t b1);
uint32_t pack(float low, float high);
uint4 load(const void* from);
void wait_for_previous();
}  // namespace emulator

namespace polylm {

using Quad = uint4;

inline unsigned char* block_shared() { return emulator::shared_memory(); }
inline void copy16_async(void* to, const void* from, bool valid) {
  emulator::start_copy(to, from, valid);
}
inline void copies_commit() { emulator::commit_copies(); }
template <int kOpen>
inline void copies_wait() {
  emulator::wait_copies(kOpen);
}
inline Quad load_constant(const void* from) { return emulator::load(from); }
inline Quad load_once(const void* from) { return emulator::load(from); }
inline Quad load_shared_read(const void* from) { return emulator::load(from); }
inline void let_next_begin() {}
inline void wait_for_previous() { emulator::wait_for_previous(); }
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::product(d, a, b0, b1);
}
inline uint32_t pack_bf16(float low, float high) { return emulator::pack(low, high); }

}  // namespace polylm
