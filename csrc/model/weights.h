// weights.h: from a validated tensor table to packed weights. A family lists its parameters; a
// TensorSource finds, checks and streams them into the Ops. Nothing here parses a file format: the
// table comes from TypeScript and every range is checked again against the open file.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "platform/file.h"

namespace polylm {

enum class TensorType : uint8_t { kF32, kF16, kBf16, kOther };

// Element (i, j, ...) of the tensor is at byte offset + (i*strides[0] + j*strides[1] + ...) * size.
struct TensorInfo {
  std::string name;
  TensorType type = TensorType::kOther;
  std::string type_name;  // as the file spells it
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements
  int64_t storage = -1;  // equal for tensors that share bytes
  int32_t file = 0;      // index in TensorTable::files
  int64_t offset_bytes = 0;
};

// A checksummed range of a file (a storage of a PyTorch zip).
struct StorageInfo {
  int32_t file = 0;
  int64_t offset_bytes = 0;
  int64_t size_bytes = 0;
  uint32_t crc32 = 0;
};

struct TensorTable {
  std::vector<FileIdentity> files;
  std::vector<TensorInfo> tensors;
  std::vector<StorageInfo> storages;
};

// How a load is watched and stopped. `progress` is called from loader threads, one call at a time,
// about every 16 MiB; `cancel` becoming true ends the load with ABORTED.
struct LoadControl {
  std::function<void(int64_t loaded_bytes, int64_t total_bytes, const std::string& file)> progress;
  std::shared_ptr<std::atomic<bool>> cancel = std::make_shared<std::atomic<bool>>(false);
  int64_t threads = 4;
};

// One parameter of a model. Matrices are logical w[N,K]; conv1d says that the checkpoint stores
// the transpose [K,N] (GPT-2's Conv1D). Vectors have k == 0 and arrive in `values`.
struct Parameter {
  std::string name;  // without prefix, e.g. "h.0.attn.c_attn.weight"
  int64_t n = 0;
  int64_t k = 0;
  bool conv1d = false;
  Weight weight{};             // set by the family between resolve and read
  WeightFormat format = WeightFormat::kBf16;  // set by resolve
  std::vector<float> values{};  // vectors, set by read
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Whether the checkpoint has this parameter (under any known prefix).
  virtual bool has(const std::string& name) const = 0;
  // Finds every parameter, checks type and shape, chooses the format. Throws WEIGHTS_MISSING,
  // WEIGHTS_SHAPE, TENSOR_DTYPE, STORAGE_MISMATCH.
  virtual void resolve(std::vector<Parameter>& parameters, Precision precision) = 0;
  // Reads everything into ops.pack_weight and values, several threads at once. Throws file errors,
  // ZIP_CRC, WEIGHTS_NONFINITE, ABORTED.
  virtual void read(std::vector<Parameter>& parameters, Ops& ops) = 0;
  // Whether two matrices of the checkpoint hold the same numbers; reads the files when needed.
  virtual bool equal(const Parameter& a, const Parameter& b) = 0;
  // Names of tensors that no resolve asked for, except the known buffers.
  virtual std::vector<std::string> unused() const = 0;
  // 16 hex digits over (name, shape, values in bf16) of everything read, the same for every file
  // format and layout of one model. "" for random weights. Not cryptographic.
  virtual std::string fingerprint() const = 0;
  virtual const std::vector<std::string>& warnings() const = 0;
};

std::unique_ptr<TensorSource> make_file_source(TensorTable table, LoadControl control);
// Gaussian-like weights of the given standard deviation, for benchmarks: no file is read.
std::unique_ptr<TensorSource> make_random_source(uint64_t seed, double stddev, LoadControl control);

// CRC-32 of zip and gzip (polynomial 0xEDB88320) over data, continuing `crc` (0 to begin).
uint32_t crc32_update(uint32_t crc, const void* data, size_t bytes);
// The CRC of A followed by B, from their CRCs and the length of B.
uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, int64_t bytes_b);

}  // namespace polylm
