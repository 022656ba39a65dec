// emulator.cc: the kernels' half of the emulated CUDA: fibers, warps, barriers, shared memory. A
// kernel that leaves a barrier to some of its threads, reads misaligned or touches a group too
// early is an error here, not luck. Shared memory is poisoned with NaN patterns before use.
#include "emulator.h"

#include "cuda/ptx.h"

#include <ucontext.h>

#include <bit>
#include <cstdio>
#include <deque>
#include <string>

thread_local dim3 threadIdx, blockIdx, gridDim;

namespace emulator {

namespace {

constexpr size_t kStackBytes = size_t{256} << 10;
constexpr int kLanes = 32;

// Switching without the kernel's signal mask: 20 times faster than swapcontext.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define POLYLM_FAST_FIBERS 1
extern "C" void polylm_switch_fiber(void** save, void* load);
asm(R"(
.text
.globl polylm_switch_fiber
.type polylm_switch_fiber,@function
polylm_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size polylm_switch_fiber,.-polylm_switch_fiber
)");
#endif

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Fiber {
  List<char> stack;
  void* pointer = nullptr;
  ucontext_t context;
  dim3 index;
  bool done = false;
  bool waits_for_block = false;
  bool waits_for_warp = false;
  bool waited_for_previous = false;
  std::deque<List<Copy>, Plain<List<Copy>>> groups;  // the last one is open
};

struct Warp {
  int arrived = 0;
  uint32_t values[kLanes];
  uint32_t answers[kLanes];
  int sources[kLanes];
  float* d[kLanes];
  const uint32_t* a[kLanes];
  uint32_t b[kLanes][2];
};

struct Block {
  List<Fiber> fibers;
  List<Warp> warps;
  List<unsigned char> shared_store;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  int arrived = 0;
  int done = 0;
  int current = 0;
  void* scheduler = nullptr;
  ucontext_t scheduler_context;
  const Closure* kernel = nullptr;
  bool may_overlap = false;  // with the kernel before it
  std::string error;
};
thread_local Block* block = nullptr;

Fiber& here() { return block->fibers[static_cast<size_t>(block->current)]; }
Warp& my_warp() { return block->warps[static_cast<size_t>(block->current / kLanes)]; }
int my_lane() { return block->current % kLanes; }

void yield() {
  Fiber& f = here();
#ifdef POLYLM_FAST_FIBERS
  polylm_switch_fiber(&f.pointer, block->scheduler);
#else
  swapcontext(&f.context, &block->scheduler_context);
#endif
}

void complain(const std::string& what) {
  if (block->error.empty()) block->error = what;
}

void body() {
  block->kernel->run(block->kernel->data);
  if (block->may_overlap && !here().waited_for_previous) {
    complain("a kernel that may begin early ends without waiting for the one before it");
  }
  here().done = true;
  ++block->done;
  for (;;) yield();
}

void prepare(Fiber* f) {
  if (f->stack.empty()) f->stack.resize(kStackBytes);
  f->done = f->waits_for_block = f->waits_for_warp = f->waited_for_previous = false;
  if (f->groups.size() != 1 || !f->groups.front().empty()) f->groups.assign(1, {});
#ifdef POLYLM_FAST_FIBERS
  auto top = reinterpret_cast<uintptr_t>(f->stack.data() + kStackBytes) & ~uintptr_t{15};
  auto* stack = reinterpret_cast<void**>(top);
  *--stack = nullptr;  // where body would return to
  *--stack = reinterpret_cast<void*>(&body);
  for (int i = 0; i < 6; ++i) *--stack = nullptr;
  f->pointer = stack;
#else
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = f->stack.data();
  f->context.uc_stack.ss_size = kStackBytes;
  f->context.uc_link = nullptr;
  makecontext(&f->context, &body, 0);
#endif
}

void resume(int index) {
  block->current = index;
  threadIdx = here().index;
#ifdef POLYLM_FAST_FIBERS
  polylm_switch_fiber(&block->scheduler, here().pointer);
#else
  swapcontext(&block->scheduler_context, &here().context);
#endif
}

// Lanes of the current warp that have not ended.
int live_lanes() {
  const auto first = static_cast<size_t>(block->current / kLanes * kLanes);
  int live = 0;
  for (size_t i = first; i < std::min(first + kLanes, block->fibers.size()); ++i) {
    live += block->fibers[i].done ? 0 : 1;
  }
  return live;
}

void release_warp() {
  const auto first = static_cast<size_t>(block->current / kLanes * kLanes);
  for (size_t i = first; i < std::min(first + kLanes, block->fibers.size()); ++i) {
    block->fibers[i].waits_for_warp = false;
  }
  my_warp().arrived = 0;
}

// Runs when_all once all live lanes are here, then lets them go on.
template <class F>
void meet(F when_all) {
  Warp& w = my_warp();
  here().waits_for_warp = true;
  if (++w.arrived == live_lanes()) {
    when_all(w);
    release_warp();
    return;
  }
  while (here().waits_for_warp) yield();
}

float bf16_float(uint32_t half) { return __uint_as_float(half << 16); }

bool cuts_sums = false;  // cut_sums

// d plus eight products as tensor cores add them (Fasi, Higham, Mikaitis and Pranesh, "Numerical
// behavior of NVIDIA tensor cores", 2021), in its least exact reading: all terms are cut to the
// last bit of the largest one, added, and the sum is cut to fp32.
float add_and_cut(float d, const float* a, const float (*b)[8], int col) {
  double terms[9] = {static_cast<double>(d)};
  double most = std::fabs(terms[0]);
  for (int k = 0; k < 8; ++k) {
    terms[k + 1] = static_cast<double>(a[k]) * static_cast<double>(b[k][col]);
    most = std::max(most, std::fabs(terms[k + 1]));
  }
  if (most == 0.0 || !std::isfinite(most)) return d;  // NaN is what the exact sum is for
  const double last = std::ldexp(1.0, std::ilogb(most) - 23);
  double sum = 0.0;
  for (const double t : terms) sum += std::trunc(t / last) * last;
  const auto rounded = static_cast<float>(sum);
  const bool away = std::fabs(static_cast<double>(rounded)) > std::fabs(sum);
  return away ? std::nextafter(rounded, 0.0F) : rounded;
}

// The documented fragments of mma.m16n8k16; sums k by k in fp32 with one rounding each.
void multiply(Warp& w) {
  float a[16][16];
  float b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const uint32_t bits = w.a[lane][i / 2];
      const int row = i / 2 % 2 == 0 ? g : g + 8;
      const int k = 2 * t + i % 2 + (i / 2 >= 2 ? 8 : 0);
      a[row][k] = bf16_float(i % 2 == 0 ? bits & 0xffffU : bits >> 16);
    }
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = w.b[lane][i / 2];
      b[2 * t + i % 2 + (i / 2 == 1 ? 8 : 0)][g] =
          bf16_float(i % 2 == 0 ? bits & 0xffffU : bits >> 16);
    }
  }
  float d[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = w.d[lane][i];
  }
  for (int row = 0; cuts_sums && row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      const float half = add_and_cut(d[row][col], a[row], b, col);
      d[row][col] = add_and_cut(half, a[row] + 8, b + 8, col);
    }
  }
  for (int row = 0; !cuts_sums && row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int col = 0; col < 8; ++col) d[row][col] += a[row][k] * b[k][col];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) w.d[lane][i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

void check_aligned(const void* p, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) complain(std::string(what) + " is misaligned");
}

void finish_group(List<Copy>& group) {
  for (const Copy& c : group) {
    if (c.valid) {
      std::memcpy(c.to, c.from, 16);
    } else {
      std::memset(c.to, 0, 16);
    }
  }
  group.clear();
}

}  // namespace

void barrier() {
  here().waits_for_block = true;
  if (++block->arrived == static_cast<int>(block->fibers.size())) {
    for (Fiber& f : block->fibers) f.waits_for_block = false;
    block->arrived = 0;
    return;
  }
  while (here().waits_for_block) yield();
}

void warp_barrier() {
  meet([](Warp&) {});
}

uint32_t exchange_bits(uint32_t x, int source) {
  my_warp().values[my_lane()] = x;
  my_warp().sources[my_lane()] = source % kLanes;
  // All answers at once: a lane that goes on may bring its next value before others read these.
  meet([](Warp& w) {
    for (int lane = 0; lane < kLanes; ++lane) w.answers[lane] = w.values[w.sources[lane]];
  });
  return my_warp().answers[my_lane()];
}

float exchange(float x, int mask) {
  return std::bit_cast<float>(exchange_bits(std::bit_cast<uint32_t>(x), my_lane() ^ mask));
}

void cut_sums(bool on) { cuts_sums = on; }

unsigned char* shared_memory() { return block->shared; }

void wait_for_previous() { here().waited_for_previous = true; }

void start_copy(void* to, const void* from, bool valid) {
  check_aligned(to, 16, "a copy's target");
  check_aligned(from, 16, "a copy's source");
  auto* at = static_cast<unsigned char*>(to);
  if (at < block->shared || at + 16 > block->shared + block->shared_bytes) {
    complain("a copy leaves shared memory");
    return;
  }
  std::memset(to, kPoison, 16);  // until it has arrived
  here().groups.back().push_back({to, from, valid});
}
void commit_copies() { here().groups.emplace_back(); }
void wait_copies(int open) {
  auto& groups = here().groups;
  while (static_cast<int>(groups.size()) - 1 > open) {
    finish_group(groups.front());
    groups.pop_front();
  }
}

void product(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  Warp& w = my_warp();
  const int lane = my_lane();
  w.d[lane] = d;
  w.a[lane] = a;
  w.b[lane][0] = b0;
  w.b[lane][1] = b1;
  if (live_lanes() != kLanes) complain("a product without all 32 lanes");
  meet(multiply);
}

uint32_t pack(float low, float high) {
  const auto round = [](float f) {
    const uint32_t bits = __float_as_uint(f);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fffU;
    return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  };
  return round(low) | round(high) << 16;
}

uint4 load(const void* from) {
  check_aligned(from, 16, "a load");
  uint4 q;
  std::memcpy(&q, from, sizeof q);
  return q;
}

// ------------------------------------------------------------------------------------ launches

namespace {

// Runs the lanes of a warp until all have ended or wait for other warps.
bool run_warp(Block* b, int warp, bool backwards) {
  const int first = warp * kLanes;
  const int lanes = std::min(kLanes, static_cast<int>(b->fibers.size()) - first);
  bool moved = false;
  for (bool again = true; again && b->error.empty();) {
    again = false;
    for (int n = 0; n < lanes; ++n) {
      const int i = first + (backwards ? lanes - 1 - n : n);
      const Fiber& f = b->fibers[static_cast<size_t>(i)];
      if (f.done || f.waits_for_block || f.waits_for_warp) continue;
      resume(i);
      again = moved = true;
    }
  }
  return moved;
}

void run_block(Block* b) {
  std::memset(b->shared, kPoison, b->shared_bytes);
  b->arrived = b->done = 0;
  for (Warp& w : b->warps) w.arrived = 0;
  for (Fiber& f : b->fibers) prepare(&f);
  const int count = static_cast<int>(b->fibers.size());
  const int warps = static_cast<int>(b->warps.size());
  // Odd blocks run their warps and threads backwards: an order that a kernel relies on shows.
  const bool backwards = (blockIdx.x + blockIdx.y + blockIdx.z) % 2 == 1;
  while (b->done < count && b->error.empty()) {
    bool moved = false;
    for (int w = 0; w < warps; ++w) {
      moved |= run_warp(b, backwards ? warps - 1 - w : w, backwards);
    }
    if (!moved && b->done < count) complain("threads wait at a barrier that others never reach");
  }
  for (const Fiber& f : b->fibers) {
    for (const List<Copy>& group : f.groups) {
      if (b->error.empty() && !group.empty()) complain("a copy was started and never waited for");
    }
  }
}

}  // namespace

bool fits(const cudaLaunchConfig_t& c) {
  const unsigned threads = c.blockDim.x;
  return threads > 0 && threads <= 1024 && c.gridDim.x > 0 && c.gridDim.y > 0 && c.gridDim.z > 0 &&
         c.gridDim.y <= 65535 && c.gridDim.z <= 65535 && c.dynamicSmemBytes <= size_t{99} << 10;
}

bool run_grid(const cudaLaunchConfig_t& c, const Closure& kernel) {
  static thread_local Block b;
  block = &b;
  const unsigned threads = c.blockDim.x;
  b.fibers.resize(threads);
  b.warps.resize((threads + kLanes - 1) / kLanes);
  for (unsigned i = 0; i < threads; ++i) b.fibers[i].index = dim3(i, 0, 0);
  b.shared_store.resize(c.dynamicSmemBytes + 128);
  const auto at = (reinterpret_cast<uintptr_t>(b.shared_store.data()) + 127) & ~uintptr_t{127};
  b.shared = reinterpret_cast<unsigned char*>(at);
  b.shared_bytes = c.dynamicSmemBytes;
  b.kernel = &kernel;
  b.may_overlap = c.numAttrs > 0 && c.attrs[0].val.programmaticStreamSerializationAllowed != 0;
  b.error.clear();
  gridDim = c.gridDim;
  for (unsigned z = 0; z < c.gridDim.z; ++z) {
    for (unsigned y = 0; y < c.gridDim.y; ++y) {
      for (unsigned x = 0; x < c.gridDim.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(&b);
        if (b.error.empty()) continue;
        std::fprintf(stderr, "emulated kernel: %s\n", b.error.c_str());
        return false;
      }
    }
  }
  return true;
}

}  // namespace emulator
