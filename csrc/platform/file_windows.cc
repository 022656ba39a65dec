// file_windows.cc: File with the Windows API. Paths are UTF-8 and become UTF-16, so that every name
// works. Trap: what Node calls dev has 32 or 64 bits here, after its version; it is not compared.
#include "platform/file.h"

#if defined(_WIN32)

#include <windows.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "platform/error.h"

namespace polylm {
namespace {

constexpr int64_t kUnixEpoch = 116444736000000000;  // in units of 100 ns since 1601
constexpr size_t kPieceBytes = size_t{1} << 30;     // a read takes 32 bits

HANDLE handle_of(intptr_t descriptor) { return reinterpret_cast<HANDLE>(descriptor); }

std::wstring utf16(const std::string& text) {
  const int bytes = static_cast<int>(text.size());
  const int length = MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, nullptr, 0);
  std::wstring wide(static_cast<size_t>(std::max(length, 0)), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, wide.data(), length);
  return wide;
}

std::string system_error(DWORD code) { return "Windows error " + std::to_string(code); }

int64_t wide_number(DWORD high, DWORD low) {
  return static_cast<int64_t>((static_cast<uint64_t>(high) << 32) | low);
}

void check_identity(const FileIdentity& expected, const BY_HANDLE_FILE_INFORMATION& found) {
  const int64_t size_bytes = wide_number(found.nFileSizeHigh, found.nFileSizeLow);
  const int64_t mtime_ns = (wide_number(found.ftLastWriteTime.dwHighDateTime,
                                        found.ftLastWriteTime.dwLowDateTime) -
                            kUnixEpoch) *
                           100;
  const auto inode = static_cast<uint64_t>(wide_number(found.nFileIndexHigh, found.nFileIndexLow));
  const bool same_file =
      expected.mtime_ns < 0 ||
      (same_mtime(expected.mtime_ns, mtime_ns) && inode == expected.inode);
  if (size_bytes == expected.size_bytes && same_file) return;
  fail(Code::kFileChanged,
       quoted_path(expected.path) + " changed while it was being loaded: " +
           std::to_string(size_bytes) +
           " bytes now, " + std::to_string(expected.size_bytes) + " when its header was read",
       "wait until the file is complete and load again", {{"file", expected.path}});
}

}  // namespace

File::File(const FileIdentity& identity) : path_(identity.path) {
  const HANDLE handle =
      CreateFileW(utf16(path_).c_str(), GENERIC_READ,
                  FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                  FILE_ATTRIBUTE_NORMAL, nullptr);
  if (handle == INVALID_HANDLE_VALUE) {
    const DWORD code = GetLastError();
    const bool missing = code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND;
    fail(missing ? Code::kFileNotFound : Code::kFileIo,
         "cannot open " + quoted_path(path_) + ": " + system_error(code), "", {{"file", path_}});
  }
  descriptor_ = reinterpret_cast<intptr_t>(handle);
  BY_HANDLE_FILE_INFORMATION found{};
  if (GetFileType(handle) != FILE_TYPE_DISK || GetFileInformationByHandle(handle, &found) == 0 ||
      (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) {
    CloseHandle(handle);
    fail(Code::kFileIo, quoted_path(path_) + " is not a regular file", "", {{"file", path_}});
  }
  size_bytes_ = wide_number(found.nFileSizeHigh, found.nFileSizeLow);
  try {
    check_identity(identity, found);
  } catch (...) {
    CloseHandle(handle);
    throw;
  }
}

File::~File() { CloseHandle(handle_of(descriptor_)); }

void File::read(int64_t offset, size_t bytes, void* out) const {
  auto* at = static_cast<char*>(out);
  while (bytes > 0) {
    OVERLAPPED where{};  // a position of its own for each read: any thread may read
    where.Offset = static_cast<DWORD>(static_cast<uint64_t>(offset) & 0xffffffffu);
    where.OffsetHigh = static_cast<DWORD>(static_cast<uint64_t>(offset) >> 32);
    DWORD got = 0;
    const auto piece = static_cast<DWORD>(std::min(bytes, kPieceBytes));
    const bool read = ReadFile(handle_of(descriptor_), at, piece, &got, &where) != 0;
    const DWORD code = read ? 0 : GetLastError();
    if (!read && code != ERROR_HANDLE_EOF) {
      fail(Code::kFileIo,
           "cannot read " + quoted_path(path_) + " at byte " + std::to_string(offset) + ": " +
               system_error(code),
           "", {{"file", path_}, {"offset", offset}});
    }
    if (!read || got == 0) {
      fail(Code::kFileTruncated,
           quoted_path(path_) + " ends at byte " + std::to_string(offset) + ", " +
               std::to_string(size_bytes_) + " bytes expected",
           "the file shrank while it was being read; download it again",
           {{"file", path_}, {"offset", offset}});
    }
    at += got;
    bytes -= got;
    offset += got;
  }
}

}  // namespace polylm

#endif
