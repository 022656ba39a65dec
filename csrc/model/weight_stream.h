// weight_stream.h: streams tensors from files into packed weights: several threads, small staging
// buffers, conversion, checksums, the scan for NaN and infinity, and the fingerprint, in one pass.
// Used by file_source.cc alone. Trap: pieces begin at even lines, because two neighbouring k of a
// packed bf16 weight share a word.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "model/weights.h"
#include "platform/error.h"
#include "platform/file.h"

namespace polylm {

// Where the elements of one parameter lie: element (n, k) is at
// offset_bytes + (n * stride_n + k * stride_k) * element_bytes of `file`.
struct Placement {
  const TensorInfo* tensor = nullptr;
  const File* file = nullptr;
  int64_t n = 0;
  int64_t k = 0;  // 1 for vectors
  int64_t stride_n = 0;
  int64_t stride_k = 0;
  int64_t element_bytes = 0;
};

// What an error about the parameter says to programs.
inline std::vector<ErrorField> place_fields(const Placement& p) {
  return {{"file", p.file->path()}, {"tensor", p.tensor->name}};
}

// One parameter to be read. `parameter` receives the data; crc32 is that of the checksummed storage
// when the tensor covers exactly that, else has_crc is false.
struct StreamItem {
  Placement place;
  Parameter* parameter = nullptr;
  bool has_crc = false;
  uint32_t crc32 = 0;
};

class WeightStream {
 public:
  explicit WeightStream(LoadControl control);
  // Reads all items. Throws the first error of any thread, in item order.
  void read(std::vector<StreamItem>& items, Ops& ops);
  // Reads and compares the checksums of storages that no item covers exactly.
  void verify(const std::vector<StorageInfo>& storages, const std::vector<const File*>& files);
  // Whether two placements of the same shape hold the same numbers (as fp32).
  bool equal(const Placement& a, const Placement& b);
  // One hash per item of the last read, over values in bf16, whatever their layout.
  const std::vector<uint64_t>& hashes() const { return hashes_; }
  void set_total(int64_t bytes) { total_bytes_ = bytes; }

 private:
  void advance(int64_t bytes, const std::string& file);

  LoadControl control_;
  int64_t total_bytes_ = 0;
  int64_t loaded_bytes_ = 0;
  int64_t reported_bytes_ = 0;
  std::vector<uint64_t> hashes_;
  std::mutex mutex_;  // the two counters and the progress call
};

}  // namespace polylm
