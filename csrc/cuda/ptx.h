// ptx.h: the instructions that C++ has no name for, one function each, and the shared memory of a
// block. Only kernels include it. Not here: anything that computes more than its one instruction.
// Trap: tests replace this header by one that runs on the CPU; a kernel that uses an instruction
// any other way can be compiled but not tested there.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace polylm {

// Four 32-bit registers, moved by one 16-byte access.
using Quad = uint4;

// The dynamic shared memory of this block, at least 16-byte aligned.
__device__ __forceinline__ unsigned char* block_shared() {
  extern __shared__ __align__(128) unsigned char polylm_shared[];
  return polylm_shared;
}

// Starts copying 16 bytes to shared memory, or 16 zeros when `valid` is false (then `from` is not
// read, but must be an address of the right kind).
__device__ __forceinline__ void copy16_async(void* to_shared, const void* from, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(to_shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
               :
               : "r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}

// Closes the group of copies that this thread has started since the last call.
__device__ __forceinline__ void copies_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}

// Waits until at most kOpen groups of this thread are still under way.
template <int kOpen>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;\n" : : "n"(kOpen) : "memory");
}

// 16 bytes of weights: nobody writes them while any kernel of a step runs, and they are used once,
// so they are not kept in L1. The only kind of load that may stand before wait_for_previous.
__device__ __forceinline__ Quad load_constant(const void* from) {
  Quad q;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(q.x), "=r"(q.y), "=r"(q.z), "=r"(q.w)
               : "l"(from));
  return q;
}

// 16 bytes that an earlier kernel wrote (K and V) and that are used once. Not the read-only path:
// it wants memory that nobody writes while the kernel lives, and a kernel that begins early lives
// while the one before it still writes.
__device__ __forceinline__ Quad load_once(const void* from) {
  Quad q;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(q.x), "=r"(q.y), "=r"(q.z), "=r"(q.w)
               : "l"(from)
               : "memory");
  return q;
}

// 16 bytes that an earlier kernel wrote (activations) and that other warps read too.
__device__ __forceinline__ Quad load_shared_read(const void* from) {
  Quad q;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(q.x), "=r"(q.y), "=r"(q.z), "=r"(q.w)
               : "l"(from)
               : "memory");
  return q;
}

// Programmatic dependent launch (sm_90 and later, where launch.h asks for it; elsewhere a kernel
// begins when the one before it has ended, and both do nothing).
// Lets the next kernel of the stream begin: its blocks take the room that this one's last blocks
// leave. It may be called at once, because the next kernel begins only when every block of this
// one has called it (no block of this one then still waits for room), and because it says nothing
// about results: those the next kernel gets by waiting.
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
// Waits until the kernel before this one has ended and all it wrote can be seen. EVERY thread of
// EVERY kernel of a step calls it before it reads or writes anything but weights, also a thread
// with nothing to do: a kernel that ended without waiting would let its successor begin before its
// predecessor had ended.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

// d[16,8] += a[16,16] · b[16,8], bf16 products, fp32 sums, by one warp. With lane = 4g + t:
// a[0] = (row g; k 2t, 2t+1)  a[1] = (g+8; same k)  a[2] = (g; k 2t+8, 2t+9)  a[3] = (g+8; same k)
// b0 = (k 2t, 2t+1; column g)  b1 = (k 2t+8, 2t+9; column g)
// d[0], d[1] = (row g; columns 2t, 2t+1)  d[2], d[3] = (row g+8; same columns)
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to bf16, nearest even: `low` in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

}  // namespace polylm
