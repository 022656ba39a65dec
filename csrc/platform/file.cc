// file.cc: POSIX implementation of File. Interrupted and short reads are continued. Not here: the
// one for Windows (file_windows.cc).
#include "platform/file.h"

#if !defined(_WIN32)

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "platform/error.h"

namespace polylm {
namespace {

int fd_of(intptr_t descriptor) { return static_cast<int>(descriptor); }

std::string system_error(int code) { return std::strerror(code); }

int64_t mtime_ns(const struct stat& s) {
#if defined(__APPLE__)
  return static_cast<int64_t>(s.st_mtimespec.tv_sec) * 1000000000 + s.st_mtimespec.tv_nsec;
#else
  return static_cast<int64_t>(s.st_mtim.tv_sec) * 1000000000 + s.st_mtim.tv_nsec;
#endif
}

void check_identity(const FileIdentity& expected, const struct stat& found) {
  const bool same_size = static_cast<int64_t>(found.st_size) == expected.size_bytes;
  const bool same_file =
      expected.mtime_ns < 0 ||
      (same_mtime(expected.mtime_ns, mtime_ns(found)) &&
       static_cast<uint64_t>(found.st_dev) == expected.device &&
       static_cast<uint64_t>(found.st_ino) == expected.inode);
  if (same_size && same_file) return;
  fail(Code::kFileChanged,
       quoted_path(expected.path) + " changed while it was being loaded: " +
           std::to_string(found.st_size) + " bytes now, " + std::to_string(expected.size_bytes) +
           " when its header was read",
       "wait until the file is complete and load again", {{"file", expected.path}});
}

}  // namespace

File::File(const FileIdentity& identity) : path_(identity.path) {
  do {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) {
    const int code = errno;
    fail(code == ENOENT ? Code::kFileNotFound : Code::kFileIo,
         "cannot open " + quoted_path(path_) + ": " + system_error(code), "", {{"file", path_}});
  }
  struct stat found {};
  if (::fstat(fd_of(descriptor_), &found) != 0 || !S_ISREG(found.st_mode)) {
    ::close(fd_of(descriptor_));
    fail(Code::kFileIo, quoted_path(path_) + " is not a regular file", "", {{"file", path_}});
  }
  size_bytes_ = static_cast<int64_t>(found.st_size);
  try {
    check_identity(identity, found);
  } catch (...) {
    ::close(fd_of(descriptor_));
    throw;
  }
}

File::~File() { ::close(fd_of(descriptor_)); }

void File::read(int64_t offset, size_t bytes, void* out) const {
  auto* at = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_of(descriptor_), at, bytes, static_cast<off_t>(offset));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) {
      fail(Code::kFileIo,
           "cannot read " + quoted_path(path_) + " at byte " + std::to_string(offset) + ": " +
               system_error(errno),
           "", {{"file", path_}, {"offset", offset}});
    }
    if (got == 0) {
      fail(Code::kFileTruncated,
           quoted_path(path_) + " ends at byte " + std::to_string(offset) + ", " +
               std::to_string(size_bytes_) + " bytes expected",
           "the file shrank while it was being read; download it again",
           {{"file", path_}, {"offset", offset}});
    }
    at += got;
    bytes -= static_cast<size_t>(got);
    offset += got;
  }
}

}  // namespace polylm

#endif
