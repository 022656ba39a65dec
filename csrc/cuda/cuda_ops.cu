// cuda_ops.cu: load time, and a step up to its start: operations are written down, and submit
// starts them as launches (cuda_step.cu) or as a graph. See cuda_ops.h.
#include "cuda/cuda_ops.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cuda/tiles.h"
#include "platform/bf16.h"
#include "platform/checked.h"

namespace polylm {

std::unique_ptr<Ops> make_cuda_ops(const CudaOptions& options) {
  check_cuda_usable();
  const CudaDevice device = cuda_device(options.device);
  if (!device.reason.empty()) {
    fail(Code::kDevice,
         "device \"cuda:" + std::to_string(options.device) + "\" cannot be used: " + device.reason,
         "use device \"cpu\" or \"auto\"");
  }
  return std::make_unique<CudaOps>(options, device);
}

CudaOps::CudaOps(const CudaOptions& options, const CudaDevice& device)
    : device_(static_cast<int>(options.device)), weights_(static_cast<int>(options.device)) {
  info_.kind = "cuda";
  info_.index = options.device;
  info_.name = device.name;
  info_.isa = device.isa;
  info_.precision = options.precision;
  info_.block_tokens = kCudaBlockTokens;
  info_.roles_matter = true;
  info_.feeds_back = true;
  card_.processors = std::max<int64_t>(1, device.processors);
  // For finding out what is at fault: no graphs, and no kernel begins early.
  const char* plain = std::getenv("POLYLM_CUDA_PLAIN");
  plain_ = plain != nullptr && std::strcmp(plain, "1") == 0;
  card_.overlaps = device.overlaps && !plain_;
  use_device();
  check_cuda(cudaStreamCreateWithFlags(&card_.stream, cudaStreamNonBlocking), "creating a stream");
}

CudaOps::~CudaOps() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(card_.stream);
  graphs_.clear();
  for (const Flight& f : flights_) {
    if (f.done != nullptr) cudaEventDestroy(f.done);
  }
  cudaStreamDestroy(card_.stream);
}

void CudaOps::use_device() const {
  check_cuda_usable();
  check_cuda(cudaSetDevice(device_), "choosing the device");
}

void CudaOps::note(cudaError_t e, const char* doing) {
  if (e != cudaSuccess && noted_.error == cudaSuccess) noted_ = {e, doing};
}

DeviceMemory CudaOps::memory() const {
  DeviceMemory m;
  m.weights_bytes = weights_.weights_bytes();
  for (const Cache& c : caches_) m.kv_bytes += c.buffer.size_bytes();
  for (const Activation& a : acts_) m.workspace_bytes += a.buffer.size_bytes();
  m.workspace_bytes += tables_card_.size_bytes() + partial_.size_bytes() +
                       arrived_.size_bytes() + head_.size_bytes() + weights_.staging_bytes();
  return m;
}

// --------------------------------------------------------------------------------- load time

Weight CudaOps::do_make_weight(int64_t n, int64_t k, WeightFormat format) {
  use_device();
  narrow<int32_t>(n);
  narrow<int32_t>(k);
  return Weight{n, k, format, weights_.add_matrix(n, k, format)};
}

void CudaOps::do_pack_weight(const Weight& w, const WeightPiece& piece) {
  weights_.pack(w.handle, piece);
}

void CudaOps::do_read_weight(const Weight& w, int64_t n0, int64_t n_count, float* out) const {
  use_device();
  weights_.read(w.handle, n0, n_count, out);
}

Vector CudaOps::do_make_vector(const float* data, int64_t size) {
  use_device();
  return Vector{size, weights_.add_vector(data, size)};
}

Act CudaOps::do_make_act(int64_t rows, int64_t cols, ActKind kind) {
  use_device();
  Activation a;
  a.kind = kind;
  a.stride = cuda_act_stride(cols);
  a.is_bf16 = kind == ActKind::kInput && info_.precision == Precision::kBf16;
  a.buffer = DeviceBuffer(checked_mul(rows, a.stride * (a.is_bf16 ? 2 : 4)), "activations");
  acts_.push_back(std::move(a));
  return Act{rows, cols, kind, narrow<int32_t>(static_cast<int64_t>(acts_.size()) - 1)};
}

Kv CudaOps::do_make_kv(const KvShape& shape) {
  use_device();
  Cache c;
  c.shape = shape;
  c.padded = padded_head(shape.head_size);
  const int64_t element = info_.precision == Precision::kBf16 ? 2 : 4;
  c.block_bytes = checked_mul(shape.heads, 2 * half_elements(c.padded) * element);
  const int64_t blocks = checked_mul(shape.layers, shape.blocks);
  c.buffer = DeviceBuffer(checked_mul(blocks, c.block_bytes), "the KV cache");
  caches_.push_back(std::move(c));
  reserve_late();
  return Kv{shape, narrow<int32_t>(static_cast<int64_t>(caches_.size()) - 1)};
}

void CudaOps::do_reserve(const StepLimits& limits) {
  use_device();
  weights_.release_staging();
  reserved_ = limits;
  const int64_t upload = most_upload_bytes(limits);
  for (Flight& f : flights_) {
    f.tables = PinnedBuffer(upload, "the step's tables");
    if (f.done != nullptr) continue;
    check_cuda(cudaEventCreateWithFlags(&f.done, cudaEventDisableTiming), "creating an event");
  }
  tables_card_ = DeviceBuffer(upload, "the step's tables");
  const auto operations = static_cast<size_t>(4 * weights_.matrix_count() + 64);
  recorded_.reserve(operations);
  graphs_.reserve(operations);
  head_.reserve(limits);
  reserve_late();
}

// What depends on both the limits and the cache, whichever came last.
void CudaOps::reserve_late() {
  int64_t floats = 0;
  int64_t most_heads = 0;
  const int64_t segments = segments_of(reserved_.context);
  const int64_t rows = std::min<int64_t>(reserved_.rows, kDecodeAttendRows);
  if (segments > 1 && info_.precision == Precision::kBf16) {
    for (const Cache& c : caches_) {
      const int64_t parts = checked_mul(rows * segments, c.shape.heads);
      floats = std::max(floats, checked_mul(parts, c.padded + 2));
      most_heads = std::max(most_heads, c.shape.heads);
    }
  }
  if (floats * 4 <= partial_.size_bytes()) return;
  graphs_.clear();  // they name the old one
  partial_ = DeviceBuffer(checked_mul(floats, 4), "attention");
  arrived_ = DeviceBuffer(checked_mul(rows, most_heads) * 4, "attention");
}

// ------------------------------------------------------------------------------------ a step

void CudaOps::do_copy_blocks(const Kv& kv, const BlockCopy* copies, int64_t count) {
  use_device();
  const Cache& cache = caches_[static_cast<size_t>(kv.handle)];
  CopyCall call;
  call.base = cache.buffer.as<unsigned char>();
  call.block_bytes = cache.block_bytes;
  call.blocks = cache.shape.blocks;
  call.layers = static_cast<int32_t>(cache.shape.layers);
  for (int64_t first = 0; first < count; first += kCopiesAtOnce) {
    call.count = static_cast<int32_t>(std::min<int64_t>(kCopiesAtOnce, count - first));
    for (int32_t i = 0; i < call.count; ++i) {
      call.from[i] = copies[first + i].from;
      call.to[i] = copies[first + i].to;
    }
    note(polylm::copy_blocks(card_, call), "copying blocks");
  }
}

void CudaOps::do_begin() {
  use_device();
  recorded_.clear();
  selects_ = nullptr;
  select_count_ = 0;
  most_rows_ = reserved_.rows;
}

void CudaOps::record(const Recorded& operation, const Act& in, const Act& out) {
  most_rows_ = std::min({most_rows_, in.rows, out.rows});
  recorded_.push_back(operation);
}

void CudaOps::do_embed(const EmbedArgs& a) {
  record({.kind = OpKind::kEmbed, .out = a.x.handle, .weight = a.wte.handle,
          .second = a.wpe.n != 0 ? a.wpe.handle : -1}, a.x, a.x);
}

void CudaOps::do_norm(const NormArgs& a) {
  record({.kind = OpKind::kNorm, .in = a.x.handle, .out = a.h.handle, .weight = a.weight.handle,
          .second = a.bias.handle, .number = static_cast<int32_t>(a.weight.size),
          .scalar = a.epsilon}, a.x, a.h);
}

void CudaOps::do_qkv(const QkvArgs& a) {
  record({.kind = OpKind::kQkv, .in = a.h.handle, .out = a.q.handle, .weight = a.w.handle,
          .second = a.bias.size != 0 ? a.bias.handle : -1, .kv = a.kv.handle,
          .number = static_cast<int32_t>(a.layer), .scalar = a.q_scale}, a.h, a.q);
}

void CudaOps::do_attend(const AttendArgs& a) {
  record({.kind = OpKind::kAttend, .in = a.q.handle, .out = a.out.handle, .kv = a.kv.handle,
          .number = static_cast<int32_t>(a.layer)}, a.q, a.out);
}

void CudaOps::do_linear(const LinearArgs& a) {
  record({.kind = OpKind::kLinear, .in = a.x.handle, .out = a.y.handle, .weight = a.w.handle,
          .second = a.bias.size != 0 ? a.bias.handle : -1,
          .number = static_cast<int32_t>(a.epilogue)}, a.x, a.y);
}

void CudaOps::do_select(const SelectArgs& a) {
  selects_ = a.rows;
  select_count_ = a.row_count;
  if (a.row_count == 0) return;
  record({.kind = OpKind::kSelect, .in = a.h.handle, .weight = a.w.handle}, a.h, a.h);
}

void CudaOps::do_submit() {
  shape_ = shape_of(step(), selects_, select_count_, reserved_, most_rows_);
  shape_.slot = static_cast<int32_t>(slot());
  head_.remember(selects_, select_count_, shape_);
  if (!recorded_.empty() && noted_.error == cudaSuccess) start_known_or_new();
  note(cudaEventRecord(flight().done, card_.stream), "marking the end of a step");
  flight().started = std::exchange(noted_, Started{});
}

// The step as a whole: as one graph where it is known, else launch by launch.
void CudaOps::start_known_or_new() {
  fill_tables(step(), selects_, select_count_, shape_, flight().tables.as<char>());
  const bool repeats = shape_.repeats && !plain_;
  GraphCache::Entry* known = repeats ? graphs_.find(shape_, recorded_) : nullptr;
  if (known != nullptr && replay(known)) return;
  const Started started = start_step();
  note(started.error, started.doing);
  const bool is_new = known != nullptr && known->state == GraphCache::State::kEmpty;
  if (is_new && started.error == cudaSuccess) known->state = GraphCache::State::kSeen;
}

// False where the step has to be started launch by launch.
bool CudaOps::replay(GraphCache::Entry* known) {
  using Known = GraphCache::State;
  if (known->state == Known::kSeen) {
    known->graph =
        capture_graph(card_.stream, [this] { return start_step().error == cudaSuccess; });
    known->state = known->graph != nullptr ? Known::kReady : Known::kRefused;
  }
  if (known->state != Known::kReady) return false;
  if (cudaGraphLaunch(known->graph, card_.stream) == cudaSuccess) return true;
  cudaGetLastError();  // if the card is at fault, the launches will say so
  known->state = Known::kRefused;
  return false;
}

const std::vector<SelectResult>& CudaOps::do_collect() {
  const Started started = flight().started;
  const bool complete = started.error == cudaSuccess;  // else its end may not be marked
  const cudaError_t waited =
      complete ? cudaEventSynchronize(flight().done) : cudaStreamSynchronize(card_.stream);
  check_cuda(started.error, started.doing);
  check_cuda(waited, "computing a step");
  return head_.read_results(slot());
}

const float* CudaOps::do_full_row(int64_t select_index) {
  use_device();
  return head_.full_row(card_, slot(), select_index);
}

// ------------------------------------------------------------------------------------- tests

void CudaOps::do_write_act(const Act& a, int64_t rows, const float* data) {
  use_device();
  const Activation& to = act(a.handle);
  const size_t element = to.is_bf16 ? 2 : 4;
  const auto count = static_cast<size_t>(rows * to.stride);
  std::vector<uint16_t> halves(to.is_bf16 ? count : 0);
  std::vector<float> floats(to.is_bf16 ? 0 : count);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const auto at = static_cast<size_t>(row * to.stride + c);
      const float v = data[row * a.cols + c];
      if (to.is_bf16) halves[at] = bf16_from_float(v);
      if (!to.is_bf16) floats[at] = v;
    }
  }
  const void* from = to.is_bf16 ? static_cast<const void*>(halves.data()) : floats.data();
  check_cuda(cudaStreamSynchronize(card_.stream), "writing activations");
  check_cuda(cudaMemcpy(to.buffer.as<void>(), from, count * element, cudaMemcpyHostToDevice),
             "writing activations");
  check_cuda(cudaStreamSynchronize(nullptr), "writing activations");
}

void CudaOps::do_read_act(const Act& a, int64_t rows, float* out) const {
  use_device();
  const Activation& from = act(a.handle);
  const auto count = static_cast<size_t>(rows * from.stride);
  std::vector<uint16_t> halves(from.is_bf16 ? count : 0);
  std::vector<float> floats(from.is_bf16 ? 0 : count);
  void* to = from.is_bf16 ? static_cast<void*>(halves.data()) : floats.data();
  check_cuda(cudaStreamSynchronize(card_.stream), "reading activations");
  check_cuda(cudaMemcpy(to, from.buffer.as<void>(), count * (from.is_bf16 ? 2 : 4),
                        cudaMemcpyDeviceToHost),
             "reading activations");
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const auto at = static_cast<size_t>(row * from.stride + c);
      out[row * a.cols + c] = from.is_bf16 ? bf16_to_float(halves[at]) : floats[at];
    }
  }
}

}  // namespace polylm
