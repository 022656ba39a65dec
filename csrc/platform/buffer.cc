// buffer.cc: mmap with huge pages, guard pages and a failure hook; VirtualAlloc on Windows.
#include "platform/buffer.h"

#include <atomic>
#include <new>
#include <string>
#include <utility>

#include "platform/checked.h"
#include "platform/error.h"

#if defined(__unix__) || defined(__APPLE__)
#define POLYLM_MMAP 1
#include <sys/mman.h>
#include <unistd.h>
#else
#include <windows.h>
#endif

namespace polylm {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;

std::atomic<bool> guards{false};
std::atomic<int64_t> fault_in{0};

bool fault_now() {
  if (fault_in.load(std::memory_order_relaxed) == 0) return false;
  return fault_in.fetch_sub(1) == 1;
}

[[noreturn]] void out_of_memory(int64_t size_bytes, const char* purpose) {
  fail(Code::kInsufficientMemory,
       "the system refused " + std::to_string(size_bytes) + " bytes of memory for " + purpose,
       "free memory, or use a smaller model, context or number of sequences");
}

}  // namespace

void set_buffer_guards(bool on) { guards = on; }
void set_buffer_fault(int64_t nth) { fault_in = nth; }

#if defined(POLYLM_MMAP)

Buffer::Buffer(int64_t size_bytes, const char* purpose) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  POLYLM_CHECK_LT(0, size_bytes);
  if (fault_now()) out_of_memory(size_bytes, purpose);
  const auto page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  const bool guarded = guards.load();
  const bool huge = !guarded && size_bytes >= 2 * kHugePage;
  const int64_t body = round_up(size_bytes, page);
  const int64_t extra = guarded ? page : (huge ? kHugePage : 0);
  const int64_t total = checked_add(body, extra);
  void* map = mmap(nullptr, static_cast<size_t>(total), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) out_of_memory(size_bytes, purpose);
  map_ = map;
  map_bytes_ = static_cast<size_t>(total);
  auto* begin = static_cast<char*>(map);
  if (guarded) {
    if (mprotect(begin + body, static_cast<size_t>(page), PROT_NONE) != 0) {
      munmap(map_, map_bytes_);
      out_of_memory(size_bytes, purpose);
    }
    begin += body - round_up(size_bytes, kLine);
  } else if (huge) {
    const auto address = reinterpret_cast<uintptr_t>(begin);
    begin += (static_cast<uintptr_t>(kHugePage) - address % kHugePage) % kHugePage;
#if defined(MADV_HUGEPAGE)
    madvise(begin, static_cast<size_t>(body), MADV_HUGEPAGE);  // advice: failure means small pages
#endif
  }
  data_ = begin;
}

Buffer::~Buffer() {
  if (map_ != nullptr) munmap(map_, map_bytes_);
}

#else

Buffer::Buffer(int64_t size_bytes, const char* purpose) : size_bytes_(size_bytes) {
  if (size_bytes == 0) return;
  POLYLM_CHECK_LT(0, size_bytes);
  if (fault_now()) out_of_memory(size_bytes, purpose);
  // Aligned as elsewhere, but not on huge pages: Windows has them for privileged accounts alone.
  SYSTEM_INFO system{};
  GetSystemInfo(&system);
  const auto page = static_cast<int64_t>(system.dwPageSize);
  const bool guarded = guards.load();
  const int64_t body = round_up(size_bytes, page);
  const int64_t extra = guarded ? page : (size_bytes >= 2 * kHugePage ? kHugePage : 0);
  map_bytes_ = static_cast<size_t>(checked_add(body, extra));
  map_ = VirtualAlloc(nullptr, map_bytes_, MEM_RESERVE, PAGE_NOACCESS);
  if (map_ == nullptr) out_of_memory(size_bytes, purpose);
  auto* begin = static_cast<char*>(map_);
  if (!guarded && extra > 0) {
    const auto past = reinterpret_cast<uintptr_t>(begin) % static_cast<uintptr_t>(kHugePage);
    begin += (static_cast<uintptr_t>(kHugePage) - past) % static_cast<uintptr_t>(kHugePage);
  }
  if (VirtualAlloc(begin, static_cast<size_t>(body), MEM_COMMIT, PAGE_READWRITE) == nullptr) {
    VirtualFree(map_, 0, MEM_RELEASE);
    out_of_memory(size_bytes, purpose);
  }
  data_ = begin + (guarded ? body - round_up(size_bytes, kLine) : 0);
}

Buffer::~Buffer() {
  if (map_ != nullptr) VirtualFree(map_, 0, MEM_RELEASE);
}

#endif

Buffer::Buffer(Buffer&& other) noexcept { *this = std::move(other); }

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(map_, other.map_);
  std::swap(map_bytes_, other.map_bytes_);
  return *this;
}

}  // namespace polylm
