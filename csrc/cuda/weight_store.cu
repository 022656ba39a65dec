// weight_store.cu: see weight_store.h.
#include "cuda/weight_store.h"

#include <algorithm>
#include <cstring>

#include "cuda/tiles.h"
#include "platform/bf16.h"
#include "platform/checked.h"

namespace polylm {
namespace {

constexpr int64_t kSlotBytes = int64_t{8} << 20;
constexpr size_t kSlotsAtMost = 8;

// Elements from the first to the last of a piece in its source.
int64_t span_of(const WeightPiece& p) {
  return (p.n_count - 1) * p.stride_n + (p.k_count - 1) * p.stride_k + 1;
}

const void* source_of(const WeightPiece& p) {
  return p.bf16_data != nullptr ? static_cast<const void*>(p.bf16_data) : p.fp32_data;
}

// `count` rows or columns of the piece from `first` on.
WeightPiece part_of_piece(WeightPiece p, bool along_n, int64_t first, int64_t count) {
  const int64_t offset = first * (along_n ? p.stride_n : p.stride_k);
  if (p.bf16_data != nullptr) p.bf16_data += offset;
  if (p.fp32_data != nullptr) p.fp32_data += offset;
  (along_n ? p.n0 : p.k0) += first;
  (along_n ? p.n_count : p.k_count) = count;
  return p;
}

}  // namespace

int32_t DeviceMatrix::n_tiles() const { return static_cast<int32_t>(ceil_parts(n, kTileN)); }
int32_t DeviceMatrix::k_blocks() const { return static_cast<int32_t>(ceil_parts(k, kTileK)); }

WeightStore::~WeightStore() { release_staging(); }

int32_t WeightStore::add_matrix(int64_t n, int64_t k, WeightFormat format) {
  DeviceMatrix m;
  m.n = n;
  m.k = k;
  m.is_bf16 = format == WeightFormat::kBf16;
  m.buffer = DeviceBuffer(m.is_bf16 ? packed_bytes(n, k) : checked_mul(n, k) * 4, "weights");
  const std::lock_guard lock(mutex_);
  matrices_.push_back(std::move(m));
  return narrow<int32_t>(static_cast<int64_t>(matrices_.size()) - 1);
}

int32_t WeightStore::add_vector(const float* data, int64_t size) {
  DeviceBuffer buffer(checked_mul(size, 4), "weights");
  check_cuda(cudaMemcpy(buffer.as<void>(), data, static_cast<size_t>(size) * 4,
                        cudaMemcpyHostToDevice),
             "copying weights");
  check_cuda(cudaStreamSynchronize(nullptr), "copying weights");
  const std::lock_guard lock(mutex_);
  vectors_.push_back(std::move(buffer));
  return narrow<int32_t>(static_cast<int64_t>(vectors_.size()) - 1);
}

void WeightStore::pack(int32_t handle, const WeightPiece& piece) {
  const DeviceMatrix& m = matrix(handle);
  Slot* slot = take_slot();
  try {
    pack_parts(m, piece, slot);
  } catch (...) {
    give_back(slot);
    throw;
  }
  give_back(slot);
}

// Cuts along the longer stride until a part's source fits a slot.
void WeightStore::pack_parts(const DeviceMatrix& m, const WeightPiece& piece, Slot* slot) const {
  const int64_t fits = kSlotBytes / (m.is_bf16 ? 2 : 4);
  if (span_of(piece) <= fits) {
    pack_span(m, piece, slot);
    return;
  }
  const bool along_n =
      piece.k_count == 1 || (piece.n_count > 1 && piece.stride_n >= piece.stride_k);
  const int64_t count = along_n ? piece.n_count : piece.k_count;
  const int64_t stride = along_n ? piece.stride_n : piece.stride_k;
  const int64_t rest = span_of(piece) - (count - 1) * stride;
  const int64_t step = std::max<int64_t>(1, std::min(count / 2, (fits - rest) / stride + 1));
  for (int64_t at = 0; at < count; at += step) {
    pack_parts(m, part_of_piece(piece, along_n, at, std::min(step, count - at)), slot);
  }
}

void WeightStore::pack_span(const DeviceMatrix& m, const WeightPiece& piece, Slot* slot) const {
  const auto bytes = static_cast<size_t>(span_of(piece) * (m.is_bf16 ? 2 : 4));
  std::memcpy(slot->host.as<void>(), source_of(piece), bytes);
  check_cuda(cudaMemcpyAsync(slot->card.as<void>(), slot->host.as<void>(), bytes,
                             cudaMemcpyHostToDevice, slot->stream),
             "copying weights");
  PackCall call;
  call.source = slot->card.as<void>();
  call.stride_n = piece.stride_n;
  call.stride_k = piece.stride_k;
  call.matrix = m.buffer.as<void>();
  call.is_bf16 = m.is_bf16;
  call.k = m.k;
  call.n0 = piece.n0;
  call.k0 = piece.k0;
  call.n_count = piece.n_count;
  call.k_count = piece.k_count;
  check_cuda(pack_piece({slot->stream, 1}, call), "packing weights");
  check_cuda(cudaStreamSynchronize(slot->stream), "packing weights");
}

void WeightStore::read(int32_t handle, int64_t n0, int64_t n_count, float* out) const {
  const DeviceMatrix& m = matrix(handle);
  if (!m.is_bf16) {
    check_cuda(cudaMemcpy(out, m.buffer.as<float>() + n0 * m.k,
                          static_cast<size_t>(n_count * m.k) * 4, cudaMemcpyDeviceToHost),
               "reading weights");
    return;
  }
  std::vector<uint16_t> tiles(static_cast<size_t>(m.k_blocks()) * kTileElements);
  for (int64_t n = n0; n < n0 + n_count;) {
    const int64_t tile = n / kTileN;
    const uint16_t* from = m.buffer.as<uint16_t>() + tile * static_cast<int64_t>(tiles.size());
    check_cuda(cudaMemcpy(tiles.data(), from, tiles.size() * 2, cudaMemcpyDeviceToHost),
               "reading weights");
    for (; n < n0 + n_count && n / kTileN == tile; ++n) {
      for (int64_t k = 0; k < m.k; ++k) {
        const int64_t at = packed_element(n % kTileN, k, m.k_blocks());
        out[(n - n0) * m.k + k] = bf16_to_float(tiles[static_cast<size_t>(at)]);
      }
    }
  }
}

// A slot of its own for each thread that packs, up to 8; then they wait for each other.
WeightStore::Slot* WeightStore::take_slot() {
  check_cuda_usable();
  check_cuda(cudaSetDevice(device_), "choosing the device");
  std::unique_lock lock(mutex_);
  if (free_slots_.empty() && slots_.size() < kSlotsAtMost) {
    Slot slot;
    slot.host = PinnedBuffer(kSlotBytes, "loading weights");
    slot.card = DeviceBuffer(kSlotBytes, "loading weights");
    check_cuda(cudaStreamCreateWithFlags(&slot.stream, cudaStreamNonBlocking),
               "creating a stream");
    slots_.push_back(std::move(slot));
    free_slots_.reserve(slots_.size());
    return &slots_.back();
  }
  slot_free_.wait(lock, [this] { return !free_slots_.empty(); });
  Slot* slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void WeightStore::give_back(Slot* slot) {
  {
    const std::lock_guard lock(mutex_);
    free_slots_.push_back(slot);
  }
  slot_free_.notify_one();
}

void WeightStore::release_staging() {
  const std::lock_guard lock(mutex_);
  for (const Slot& slot : slots_) {
    cudaStreamSynchronize(slot.stream);
    cudaStreamDestroy(slot.stream);
  }
  free_slots_.clear();
  slots_.clear();
}

const DeviceMatrix& WeightStore::matrix(int32_t handle) const {
  const std::lock_guard lock(mutex_);
  return matrices_[static_cast<size_t>(handle)];
}

const float* WeightStore::vector(int32_t handle) const {
  const std::lock_guard lock(mutex_);
  return vectors_[static_cast<size_t>(handle)].as<float>();
}

int64_t WeightStore::matrix_count() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(matrices_.size());
}

int64_t WeightStore::weights_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t sum = 0;
  for (const DeviceMatrix& m : matrices_) sum += m.buffer.size_bytes();
  for (const DeviceBuffer& v : vectors_) sum += v.size_bytes();
  return sum;
}

int64_t WeightStore::staging_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t sum = 0;
  for (const Slot& slot : slots_) sum += slot.card.size_bytes();
  return sum;
}

}  // namespace polylm
