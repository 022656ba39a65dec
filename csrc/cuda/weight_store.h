// weight_store.h: matrices and vectors in device memory, and their way there: a piece is copied
// into one of a few page-locked slots, sent, and put into its packed place by a kernel. Several
// loader threads at once, each with a slot of its own. Not here: products.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "cuda/check.h"
#include "cuda/kernels.h"
#include "ops/shapes.h"

namespace polylm {

struct DeviceMatrix {
  int64_t n = 0;
  int64_t k = 0;
  bool is_bf16 = true;
  DeviceBuffer buffer;  // packed (tiles.h), or fp32 [N][K]

  int32_t n_tiles() const;
  int32_t k_blocks() const;
  MatrixView view() const { return {buffer.as<void>(), is_bf16, k}; }
};

class WeightStore {
 public:
  explicit WeightStore(int device) : device_(device) {}
  ~WeightStore();

  int32_t add_matrix(int64_t n, int64_t k, WeightFormat format);
  int32_t add_vector(const float* data, int64_t size);
  void pack(int32_t matrix, const WeightPiece& piece);
  void read(int32_t matrix, int64_t n0, int64_t n_count, float* out) const;
  // Gives the staging slots back: weights are complete.
  void release_staging();

  const DeviceMatrix& matrix(int32_t handle) const;
  const float* vector(int32_t handle) const;
  int64_t matrix_count() const;
  int64_t weights_bytes() const;
  int64_t staging_bytes() const;

 private:
  struct Slot {
    PinnedBuffer host;
    DeviceBuffer card;
    cudaStream_t stream = nullptr;
  };
  Slot* take_slot();
  void give_back(Slot* slot);
  void pack_span(const DeviceMatrix& m, const WeightPiece& piece, Slot* slot) const;
  void pack_parts(const DeviceMatrix& m, const WeightPiece& piece, Slot* slot) const;

  int device_;
  mutable std::mutex mutex_;  // of everything below
  std::condition_variable slot_free_;
  std::deque<Slot> slots_;
  std::vector<Slot*> free_slots_;
  std::deque<DeviceMatrix> matrices_;  // a deque: loaders keep references while others are added
  std::deque<DeviceBuffer> vectors_;
};

}  // namespace polylm
