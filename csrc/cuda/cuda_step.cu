// cuda_step.cu: how a step that was written down becomes copies and launches on the stream, one by
// one or into a capture. See cuda_ops.h. Not here: kernels.
// Trap: whatever is an argument here stays in the graph: only handles, addresses and shape_, never
// a number of this step alone.
#include <algorithm>
#include <functional>

#include "cuda/cuda_ops.h"
#include "cuda/tiles.h"

namespace polylm {
namespace {

SinkKind kind_of(Epilogue e) {
  switch (e) {
    case Epilogue::kGeluTanh: return SinkKind::kGeluTanh;
    case Epilogue::kGeluErf: return SinkKind::kGeluErf;
    case Epilogue::kAdd: return SinkKind::kAdd;
    case Epilogue::kNone: break;
  }
  return SinkKind::kStore;
}

const char* name_of(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbed: return "embedding tokens";
    case OpKind::kNorm: return "normalising";
    case OpKind::kQkv: return "multiplying (q, k, v)";
    case OpKind::kAttend: return "attending";
    case OpKind::kLinear: return "multiplying";
    case OpKind::kSelect: break;
  }
  return "selecting tokens";
}

template <class T>
const T* at(const char* upload, int64_t place) {
  return reinterpret_cast<const T*>(upload + place);
}

}  // namespace

void* CudaOps::layer_of(const Cache& cache, int64_t layer) const {
  return cache.buffer.as<char>() + layer * cache.shape.blocks * cache.block_bytes;
}

CudaOps::Started CudaOps::start_step() {
  const auto bytes = static_cast<size_t>(places_of(shape_).end);
  const cudaError_t sent = cudaMemcpyAsync(tables_card_.as<void>(), flight().tables.as<void>(),
                                           bytes, cudaMemcpyHostToDevice, card_.stream);
  if (sent != cudaSuccess) return {sent, "sending the step's tables"};
  const bool overlaps = card_.overlaps;
  const Started started = start_operations(overlaps);
  card_.overlaps = overlaps;
  if (started.error != cudaSuccess) return started;
  return {head_.send_back(card_, shape_), "sending results"};
}

// The first kernel follows a copy and has nothing to overlap with: it is launched as any other.
CudaOps::Started CudaOps::start_operations(bool overlaps) {
  for (size_t i = 0; i < recorded_.size(); ++i) {
    card_.overlaps = overlaps && i > 0;
    const Recorded& r = recorded_[i];
    const bool taken = i + 1 < recorded_.size() && takes_norm(r, recorded_[i + 1]);
    const cudaError_t e =
        taken ? start_product(recorded_[i + 1], norm_of(r)) : start_operation(r);
    if (e != cudaSuccess) return {e, name_of(recorded_[taken ? i + 1 : i].kind)};
    if (taken) ++i;
  }
  return {};
}

cudaError_t CudaOps::start_operation(const Recorded& r) {
  switch (r.kind) {
    case OpKind::kEmbed: return start_embed(r);
    case OpKind::kNorm: return norm_rows(card_, norm_of(r));
    case OpKind::kAttend: return start_attend(r);
    case OpKind::kSelect: return start_select(r);
    case OpKind::kQkv:
    case OpKind::kLinear: break;
  }
  return start_product(r, NormCall{});
}

cudaError_t CudaOps::start_embed(const Recorded& r) {
  EmbedCall call;
  call.wte = weights_.matrix(r.weight).view();
  if (r.second >= 0) call.wpe = weights_.matrix(r.second).view();
  call.rows = at<RowInfo>(upload(), 0);
  call.chosen = head_.results();
  call.x = act(r.out).buffer.as<float>();
  call.stride = act(r.out).stride;
  call.row_count = shape_.rows;
  return embed_rows(card_, call);
}

NormCall CudaOps::norm_of(const Recorded& r) const {
  NormCall call;
  call.x = act(r.in).buffer.as<float>();
  call.x_stride = act(r.in).stride;
  call.h = act(r.out).buffer.as<void>();
  call.h_stride = act(r.out).stride;
  call.h_is_bf16 = act(r.out).is_bf16;
  call.weight = weights_.vector(r.weight);
  call.bias = weights_.vector(r.second);
  call.cols = r.number;
  call.epsilon = r.scalar;
  call.row_count = shape_.rows;
  return call;
}

// Whether the product normalises its input itself: few generated rows, and nothing that it writes
// is what it normalises (a residual add writes x while other blocks still read it).
bool CudaOps::takes_norm(const Recorded& norm, const Recorded& next) const {
  if (norm.kind != OpKind::kNorm || next.in != norm.out) return false;
  const bool product =
      next.kind == OpKind::kQkv || (next.kind == OpKind::kLinear && next.out != norm.in);
  if (!product || shape_.generated != shape_.rows || shape_.rows > kNormedRows) return false;
  const DeviceMatrix& m = weights_.matrix(next.weight);
  return m.is_bf16 && act(norm.out).is_bf16 && norm.number == m.k && m.k <= kNormedCols;
}

Sink CudaOps::sink_of(const Recorded& r) const {
  Sink sink;
  sink.is_bf16 = act(r.out).is_bf16;
  sink.bias = r.second >= 0 ? weights_.vector(r.second) : nullptr;
  sink.out = act(r.out).buffer.as<void>();
  sink.stride = act(r.out).stride;
  sink.n = static_cast<int32_t>(weights_.matrix(r.weight).n);
  if (r.kind != OpKind::kQkv) {
    sink.kind = kind_of(static_cast<Epilogue>(r.number));
    return sink;
  }
  const Cache& cache = caches_[static_cast<size_t>(r.kv)];
  sink.kind = SinkKind::kQkv;
  sink.channels = static_cast<int32_t>(weights_.matrix(r.weight).k);
  sink.head_size = static_cast<int32_t>(cache.shape.head_size);
  sink.padded = static_cast<int32_t>(cache.padded);
  sink.q_scale = r.scalar;
  sink.rows = at<RowInfo>(upload(), 0);
  sink.tables = at<int32_t>(upload(), places_of(shape_).tables);
  sink.layer = layer_of(cache, r.number);
  return sink;
}

// Generated rows take the decode family, prompt rows the prefill family, whatever else there is.
cudaError_t CudaOps::start_product(const Recorded& r, const NormCall& norm) {
  const DeviceMatrix& m = weights_.matrix(r.weight);
  const Activation& in = act(r.in);
  if (!m.is_bf16 || !in.is_bf16) {
    FmaCall call;
    call.w = m.buffer.as<void>();
    call.w_is_bf16 = m.is_bf16;
    call.x = in.buffer.as<void>();
    call.x_is_bf16 = in.is_bf16;
    call.x_stride = in.stride;
    call.k = m.k;
    call.rows = shape_.rows;
    call.sink = sink_of(r);
    return fma_product(card_, call);
  }
  ProductCall call;
  call.w = m.buffer.as<uint16_t>();
  call.n_tiles = m.n_tiles();
  call.k_blocks = m.k_blocks();
  call.x = in.buffer.as<uint16_t>();
  call.x_stride = in.stride;
  call.sink = sink_of(r);
  call.norm = norm;
  if (shape_.generated > 0) {
    call.rows = shape_.generated;
    const cudaError_t e = decode_product(card_, call);
    if (e != cudaSuccess) return e;
  }
  if (shape_.rows == shape_.generated) return cudaSuccess;
  call.first_row = shape_.generated;
  call.rows = shape_.rows - shape_.generated;
  return prefill_product(card_, call);
}

cudaError_t CudaOps::start_attend(const Recorded& r) {
  const Cache& cache = caches_[static_cast<size_t>(r.kv)];
  const TablePlaces places = places_of(shape_);
  AttendCall call;
  call.q = act(r.in).buffer.as<void>();
  call.out = act(r.out).buffer.as<void>();
  call.stride = act(r.in).stride;
  call.layer = layer_of(cache, r.number);
  call.heads = static_cast<int32_t>(cache.shape.heads);
  call.head_size = static_cast<int32_t>(cache.shape.head_size);
  call.padded = static_cast<int32_t>(cache.padded);
  call.rows = at<RowInfo>(upload(), 0);
  call.tables = at<int32_t>(upload(), places.tables);
  call.tiles = at<QueryTile>(upload(), places.tiles);
  call.tile_count = shape_.tiles;
  call.partial = partial_.as<float>();
  call.arrived = arrived_.as<int32_t>();
  if (info_.precision == Precision::kFp32) {
    call.row_count = shape_.rows;
    return attend_fp32(card_, call);
  }
  const cudaError_t e = start_generated(call);
  return e != cudaSuccess || shape_.tiles == 0 ? e : attend_prefill(card_, call);
}

cudaError_t CudaOps::start_generated(AttendCall call) {
  call.segments = shape_.segments;
  cudaError_t e = cudaSuccess;
  for (int32_t first = 0; e == cudaSuccess && first < shape_.generated;
       first += kDecodeAttendRows) {
    call.first_row = first;
    call.row_count = std::min(kDecodeAttendRows, shape_.generated - first);
    e = attend_decode(card_, call);
  }
  return e;
}

// The head takes the decode family for every row: its role is "to be read", whatever the row was.
cudaError_t CudaOps::start_select(const Recorded& r) {
  const DeviceMatrix& m = weights_.matrix(r.weight);
  const Activation& in = act(r.in);
  const auto product = [&](const int32_t* gather, int64_t count, float* logits, int64_t stride) {
    Sink sink;
    sink.out = logits;
    sink.stride = stride;
    sink.n = static_cast<int32_t>(m.n);
    const auto rows = static_cast<int32_t>(count);
    if (!m.is_bf16 || !in.is_bf16) {
      FmaCall call{m.buffer.as<void>(), m.is_bf16, in.buffer.as<void>(), in.is_bf16, in.stride,
                   m.k, gather, rows, sink};
      return fma_product(card_, call);
    }
    ProductCall call{m.buffer.as<uint16_t>(), m.n_tiles(), m.k_blocks(), in.buffer.as<uint16_t>(),
                     in.stride, gather, 0, rows, sink, NormCall{}};
    return decode_product(card_, call);
  };
  return head_.run(card_, shape_, upload(), std::cref(product));
}

}  // namespace polylm
