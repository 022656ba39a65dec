// cuda_ops.cu: how each operation becomes kernel launches. See cuda_ops.h.
#include "cuda/cuda_ops.h"

#include <algorithm>

#include "cuda/tiles.h"
#include "platform/bf16.h"
#include "platform/checked.h"

namespace polylm {
namespace {

SinkKind sink_of(Epilogue e) {
  switch (e) {
    case Epilogue::kGeluTanh: return SinkKind::kGeluTanh;
    case Epilogue::kGeluErf: return SinkKind::kGeluErf;
    case Epilogue::kAdd: return SinkKind::kAdd;
    case Epilogue::kNone: break;
  }
  return SinkKind::kStore;
}

// Tiles of 64 prompt rows that a step of these limits can need at most.
int64_t most_tiles(const StepLimits& limits) {
  return limits.rows / kPrefillQueries + limits.sequences;
}

}  // namespace

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
  info_.name = device.name;
  info_.isa = device.isa;
  info_.precision = options.precision;
  info_.block_tokens = kCudaBlockTokens;
  info_.roles_matter = true;
  card_.processors = std::max<int64_t>(1, device.processors);
  use_device();
  check_cuda(cudaStreamCreateWithFlags(&card_.stream, cudaStreamNonBlocking), "creating a stream");
}

CudaOps::~CudaOps() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(card_.stream);
  cudaStreamDestroy(card_.stream);
}

void CudaOps::use_device() const {
  check_cuda_usable();
  check_cuda(cudaSetDevice(device_), "choosing the device");
}

void CudaOps::note(cudaError_t e, const char* doing) {
  if (e == cudaSuccess || failure_ != cudaSuccess) return;
  failure_ = e;
  failed_doing_ = doing;
}

DeviceMemory CudaOps::memory() const {
  DeviceMemory m;
  m.weights_bytes = weights_.weights_bytes();
  for (const Cache& c : caches_) m.kv_bytes += c.buffer.size_bytes();
  for (const Activation& a : acts_) m.workspace_bytes += a.buffer.size_bytes();
  m.workspace_bytes += tables_card_.size_bytes() + partial_.size_bytes() + head_.size_bytes() +
                       weights_.staging_bytes();
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
  const int64_t table = ceil_div(limits.context, kCudaBlockTokens);
  places_.tiles = round_up(limits.rows * static_cast<int64_t>(sizeof(RowInfo)), 256);
  places_.tables =
      places_.tiles + round_up(most_tiles(limits) * static_cast<int64_t>(sizeof(QueryTile)), 256);
  places_.end = checked_add(places_.tables, checked_mul(limits.sequences * 4, table));
  tables_host_ = PinnedBuffer(places_.end, "the step's tables");
  tables_card_ = DeviceBuffer(places_.end, "the step's tables");
  head_.reserve(limits);
  reserve_late();
}

// What depends on both the limits and the cache, whichever came last.
void CudaOps::reserve_late() {
  int64_t floats = 0;
  const int64_t segments = segments_of(reserved_.context);
  const int64_t rows = std::min<int64_t>(reserved_.rows, kDecodeAttendRows);
  if (segments > 1 && info_.precision == Precision::kBf16) {
    for (const Cache& c : caches_) {
      const int64_t parts = checked_mul(rows * segments, c.shape.heads);
      floats = std::max(floats, checked_mul(parts, c.padded + 2));
    }
  }
  if (floats * 4 > partial_.size_bytes()) {
    partial_ = DeviceBuffer(checked_mul(floats, 4), "attention");
  }
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
  if (in_flight_) check_cuda(cudaStreamSynchronize(card_.stream), "ending an abandoned step");
  in_flight_ = true;
  head_.clear();
  tile_count_ = 0;
  if (step().rows == 0) return;
  const int64_t used = places_.tables + fill_tables() * int64_t{4};
  note(cudaMemcpyAsync(tables_card_.as<void>(), tables_host_.as<void>(),
                       static_cast<size_t>(used), cudaMemcpyHostToDevice, card_.stream),
       "sending the step's tables");
}

// Rows, tiles of prompt rows and block tables in page-locked memory; returns the tables' length.
int32_t CudaOps::fill_tables() {
  auto* rows = tables_host_.as<RowInfo>();
  auto* tiles = reinterpret_cast<QueryTile*>(tables_host_.as<char>() + places_.tiles);
  auto* tables = reinterpret_cast<int32_t*>(tables_host_.as<char>() + places_.tables);
  int32_t used = 0;
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    const int32_t table = used;
    const auto first_row = static_cast<int32_t>(s.first_row);
    const auto count = static_cast<int32_t>(s.row_count);
    const auto position = static_cast<int32_t>(s.first_position);
    const int64_t blocks = ceil_div(s.first_position + s.row_count, kCudaBlockTokens);
    if (count == 0) continue;
    for (int64_t b = 0; b < blocks; ++b) tables[used++] = s.blocks[b];
    for (int32_t t = 0; t < count; ++t) {
      rows[first_row + t] = {step().tokens[first_row + t], position + t, table, 0};
    }
    if (s.first_row < step().generated_rows) continue;
    for (int32_t t = 0; t < count; t += kPrefillQueries) {
      tiles[tile_count_++] = {first_row + t, std::min(kPrefillQueries, count - t), position + t,
                              table};
    }
  }
  return used;
}

const int32_t* CudaOps::card_tables() const {
  return reinterpret_cast<const int32_t*>(tables_card_.as<char>() + places_.tables);
}
const QueryTile* CudaOps::card_tiles() const {
  return reinterpret_cast<const QueryTile*>(tables_card_.as<char>() + places_.tiles);
}
void* CudaOps::layer_of(const Cache& cache, int64_t layer) const {
  return cache.buffer.as<char>() + layer * cache.shape.blocks * cache.block_bytes;
}

void CudaOps::do_embed(const EmbedArgs& a) {
  EmbedCall call;
  call.wte = weights_.matrix(a.wte.handle).view();
  if (a.wpe.n != 0) call.wpe = weights_.matrix(a.wpe.handle).view();
  call.rows = card_rows();
  call.x = act(a.x).buffer.as<float>();
  call.stride = act(a.x).stride;
  call.row_count = static_cast<int32_t>(step().rows);
  note(embed_rows(card_, call), "embedding tokens");
}

void CudaOps::do_norm(const NormArgs& a) {
  NormCall call;
  call.x = act(a.x).buffer.as<float>();
  call.x_stride = act(a.x).stride;
  call.h = act(a.h).buffer.as<void>();
  call.h_stride = act(a.h).stride;
  call.h_is_bf16 = act(a.h).is_bf16;
  call.weight = weights_.vector_or_null(a.weight);
  call.bias = weights_.vector_or_null(a.bias);
  call.cols = static_cast<int32_t>(a.weight.size);
  call.epsilon = a.epsilon;
  call.row_count = static_cast<int32_t>(step().rows);
  note(norm_rows(card_, call), "normalising");
}

void CudaOps::do_qkv(const QkvArgs& a) {
  const Cache& cache = caches_[static_cast<size_t>(a.kv.handle)];
  Sink sink;
  sink.kind = SinkKind::kQkv;
  sink.is_bf16 = act(a.q).is_bf16;
  sink.bias = weights_.vector_or_null(a.bias);
  sink.out = act(a.q).buffer.as<void>();
  sink.stride = act(a.q).stride;
  sink.channels = static_cast<int32_t>(a.w.k);
  sink.head_size = static_cast<int32_t>(cache.shape.head_size);
  sink.padded = static_cast<int32_t>(cache.padded);
  sink.q_scale = a.q_scale;
  sink.rows = card_rows();
  sink.tables = card_tables();
  sink.layer = layer_of(cache, a.layer);
  product(a.h, a.w, sink, "multiplying (q, k, v)");
}

void CudaOps::do_linear(const LinearArgs& a) {
  Sink sink;
  sink.kind = sink_of(a.epilogue);
  sink.is_bf16 = act(a.y).is_bf16;
  sink.bias = weights_.vector_or_null(a.bias);
  sink.out = act(a.y).buffer.as<void>();
  sink.stride = act(a.y).stride;
  product(a.x, a.w, sink, "multiplying");
}

// Generated rows take the decode family, prompt rows the prefill family, whatever else there is.
void CudaOps::product(const Act& x, const Weight& w, const Sink& sink, const char* doing) {
  const DeviceMatrix& m = weights_.matrix(w.handle);
  const Activation& in = act(x);
  if (!m.is_bf16 || !in.is_bf16) {
    FmaCall call;
    call.w = m.buffer.as<void>();
    call.w_is_bf16 = m.is_bf16;
    call.x = in.buffer.as<void>();
    call.x_is_bf16 = in.is_bf16;
    call.x_stride = in.stride;
    call.k = m.k;
    call.rows = static_cast<int32_t>(step().rows);
    call.sink = sink;
    call.sink.n = static_cast<int32_t>(m.n);
    note(fma_product(card_, call), doing);
    return;
  }
  ProductCall call;
  call.w = m.buffer.as<uint16_t>();
  call.n_tiles = m.n_tiles();
  call.k_blocks = m.k_blocks();
  call.x = in.buffer.as<uint16_t>();
  call.x_stride = in.stride;
  call.sink = sink;
  call.sink.n = static_cast<int32_t>(m.n);
  const auto generated = static_cast<int32_t>(step().generated_rows);
  const auto rows = static_cast<int32_t>(step().rows);
  if (generated > 0) {
    call.rows = generated;
    note(decode_product(card_, call), doing);
  }
  if (rows > generated) {
    call.first_row = generated;
    call.rows = rows - generated;
    note(prefill_product(card_, call), doing);
  }
}

void CudaOps::do_attend(const AttendArgs& a) {
  const Cache& cache = caches_[static_cast<size_t>(a.kv.handle)];
  AttendCall call;
  call.q = act(a.q).buffer.as<void>();
  call.out = act(a.out).buffer.as<void>();
  call.stride = act(a.q).stride;
  call.layer = layer_of(cache, a.layer);
  call.heads = static_cast<int32_t>(cache.shape.heads);
  call.head_size = static_cast<int32_t>(cache.shape.head_size);
  call.padded = static_cast<int32_t>(cache.padded);
  call.rows = card_rows();
  call.tables = card_tables();
  call.tiles = card_tiles();
  call.tile_count = tile_count_;
  call.partial = partial_.as<float>();
  if (info_.precision == Precision::kFp32) {
    call.row_count = static_cast<int32_t>(step().rows);
    note(attend_fp32(card_, call), "attending");
    return;
  }
  if (step().generated_rows > 0) attend_generated(call);
  if (tile_count_ > 0) note(attend_prefill(card_, call), "attending");
}

void CudaOps::attend_generated(AttendCall call) {
  const RowInfo* rows = tables_host_.as<RowInfo>();
  const auto generated = static_cast<int32_t>(step().generated_rows);
  for (int32_t first = 0; first < generated; first += kDecodeAttendRows) {
    call.first_row = first;
    call.row_count = std::min(kDecodeAttendRows, generated - first);
    int32_t longest = 0;
    for (int32_t i = 0; i < call.row_count; ++i) {
      longest = std::max(longest, rows[first + i].position + 1);
    }
    call.segments = static_cast<int32_t>(segments_of(longest));
    note(attend_decode(card_, call), "attending");
  }
}

// The head takes the decode family for every row: its role is "to be read", whatever the row was.
void CudaOps::do_select(const SelectArgs& a) {
  const DeviceMatrix& m = weights_.matrix(a.w.handle);
  const Activation& in = act(a.h);
  const auto product = [&](const int32_t* gather, int64_t count, float* logits, int64_t stride) {
    Sink sink;
    sink.out = logits;
    sink.stride = stride;
    sink.n = static_cast<int32_t>(m.n);
    if (!m.is_bf16 || !in.is_bf16) {
      FmaCall call{m.buffer.as<void>(), m.is_bf16, in.buffer.as<void>(), in.is_bf16, in.stride,
                   m.k, gather, static_cast<int32_t>(count), sink};
      return fma_product(card_, call);
    }
    ProductCall call{m.buffer.as<uint16_t>(), m.n_tiles(), m.k_blocks(), in.buffer.as<uint16_t>(),
                     in.stride, gather, 0, static_cast<int32_t>(count), sink};
    return decode_product(card_, call);
  };
  note(head_.run(card_, a.rows, a.row_count, std::cref(product)), "selecting tokens");
}

void CudaOps::do_submit() { note(head_.send_back(card_), "sending results"); }

const std::vector<SelectResult>& CudaOps::do_collect() {
  const cudaError_t waited = cudaStreamSynchronize(card_.stream);
  in_flight_ = false;
  const cudaError_t failed = failure_;
  failure_ = cudaSuccess;
  check_cuda(failed, failed_doing_.c_str());
  check_cuda(waited, "computing a step");
  return head_.read_results();
}

const float* CudaOps::do_full_row(int64_t select_index) {
  use_device();
  return head_.full_row(card_, select_index);
}

// ------------------------------------------------------------------------------------- tests

void CudaOps::do_write_act(const Act& a, int64_t rows, const float* data) {
  use_device();
  const Activation& to = act(a);
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
  const Activation& from = act(a);
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
