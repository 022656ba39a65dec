// file.h: reading a file that was validated before: opened once, compared with what the validator
// saw, read with pread only. Nothing is mapped: a truncated file is an error, never a SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace polylm {

// What identified a file when its header was validated. mtime_ns < 0: not compared.
struct FileIdentity {
  std::string path;
  int64_t size_bytes = 0;
  int64_t mtime_ns = -1;
  uint64_t device = 0;
  uint64_t inode = 0;
};

// Node tells times in nanoseconds, Deno in whole milliseconds: those are compared as such.
inline bool same_mtime(int64_t expected_ns, int64_t found_ns) {
  constexpr int64_t kMillisecond = 1000000;
  if (expected_ns % kMillisecond != 0) return expected_ns == found_ns;
  return expected_ns / kMillisecond == found_ns / kMillisecond;
}

class File {
 public:
  // Throws FILE_NOT_FOUND, FILE_IO, or FILE_CHANGED when it is not the file that was validated.
  explicit File(const FileIdentity& identity);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }
  // Fills out[bytes] from `offset`. Any thread. Throws FILE_TRUNCATED or FILE_IO.
  void read(int64_t offset, size_t bytes, void* out) const;

 private:
  std::string path_;
  int64_t size_bytes_ = 0;
  intptr_t descriptor_ = -1;  // wide enough for a HANDLE of Windows
};

}  // namespace polylm
