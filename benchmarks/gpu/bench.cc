// bench.cc: speed of the CUDA device through the same interface the engine uses, as ratios to what
// the card itself can do (peaks.h), measured first and last. Random weights; shapes of PolyLM-1.7B
// and 13B. One JSON object per line. Not here: PyTorch (torch_rival.py), the engine, text.
// Trap: an operation is timed by repeating it within one step over different matrices, so that
// neither the wait for the card nor its cache is measured; and the first two steps of a kind are not
// counted, because the second one makes the graph that the others replay.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "peaks.h"
#include "platform/bf16.h"
#include "platform/error.h"

namespace {

using namespace polylm;

struct Shape {
  std::string name;
  int64_t layers;
  int64_t heads;
  int64_t head_size;
  int64_t vocab;
  int64_t context;
  int64_t timed_layers;  // that operations are timed over: their matrices outgrow every cache
  int64_t hidden() const { return heads * head_size; }
  int64_t inner() const { return 4 * hidden(); }
  // Bytes of the matrices that a decode step reads.
  double step_bytes() const {
    const int64_t layer = hidden() * (4 * hidden() + 2 * inner());
    return 2.0 * static_cast<double>(layers * layer + vocab * hidden());
  }
  double token_kv_bytes() const { return 4.0 * static_cast<double>(layers * hidden()); }
};

int measured = 0;
int skipped = 0;
double stream_gbs = 0.0;
double matrix_tflops = 0.0;

void line(const std::string& name, double value, const char* unit, double ratio) {
  ++measured;
  std::printf("{\"name\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"ratio\":%.4f}\n", name.c_str(),
              value, unit, ratio);
  std::fflush(stdout);
}
void bytes_line(const std::string& name, double bytes, double seconds) {
  line(name, bytes / seconds / 1e9, "GB/s", bytes / seconds / 1e9 / stream_gbs);
}
void flop_line(const std::string& name, double flop, double seconds) {
  line(name, flop / seconds / 1e12, "TFLOP/s", flop / seconds / 1e12 / matrix_tflops);
}
void skip_line(const std::string& name, const std::string& reason) {
  ++skipped;
  std::printf("{\"name\":\"%s\",\"skipped\":\"%s\"}\n", name.c_str(), reason.c_str());
}

Weight random_weight(Ops& ops, int64_t n, int64_t k) {
  std::vector<uint16_t> rows(static_cast<size_t>(64 * k));
  uint32_t state = static_cast<uint32_t>(n * 31 + k);
  for (uint16_t& x : rows) {
    state = state * 1664525u + 1013904223u;
    const float unit = static_cast<float>(state >> 8) * 0x1.0p-23F - 1.0F;
    x = bf16_from_float(unit / std::sqrt(static_cast<float>(k)));
  }
  const Weight w = ops.make_weight(n, k, WeightFormat::kBf16);
  for (int64_t at = 0; at < n; at += 64) {
    WeightPiece piece;
    piece.n0 = at;
    piece.n_count = std::min<int64_t>(64, n - at);
    piece.k_count = k;
    piece.stride_n = k;
    piece.stride_k = 1;
    piece.bf16_data = rows.data();
    ops.pack_weight(w, piece);
  }
  return w;
}

// A model of random weights with `sequences` caches, all of `depth` tokens.
class Model {
 public:
  Model(const Shape& shape, int64_t sequences, int64_t rows, int64_t depth)
      : shape_(shape), ops_(make_cuda_ops({Precision::kBf16, 0})), sequences_(sequences) {
    Ops& ops = *ops_;
    const int64_t c = shape.hidden();
    head_ = random_weight(ops, shape.vocab, c);
    for (int64_t i = 0; i < shape.layers; ++i) {
      layers_.push_back({random_weight(ops, 3 * c, c), random_weight(ops, c, c),
                         random_weight(ops, shape.inner(), c),
                         random_weight(ops, c, shape.inner())});
    }
    const std::vector<float> halves(static_cast<size_t>(shape.inner() + 3 * c), 0.5F);
    norm_ = ops.make_vector(halves.data(), c);
    bias_3c_ = ops.make_vector(halves.data(), 3 * c);
    bias_f_ = ops.make_vector(halves.data(), shape.inner());
    x_ = ops.make_act(rows, c, ActKind::kResidual);
    h_ = ops.make_act(rows, c, ActKind::kInput);
    q_ = ops.make_act(rows, c, ActKind::kInput);
    a_ = ops.make_act(rows, c, ActKind::kInput);
    f_ = ops.make_act(rows, shape.inner(), ActKind::kInput);
    each_ = (depth + ops.info().block_tokens - 1) / ops.info().block_tokens;
    kv_ = ops.make_kv({shape.layers, shape.heads, shape.head_size, each_ * sequences});
    ops.reserve({rows, sequences, sequences, 0, 1, shape.vocab, depth});
    for (int64_t s = 0; s < sequences; ++s) {
      tables_.emplace_back();
      for (int64_t b = 0; b < each_; ++b) {
        tables_.back().push_back(static_cast<int32_t>(s * each_ + b));
      }
    }
  }
  Ops& ops() { return *ops_; }
  const Shape& shape() const { return shape_; }

  // Starts a step: `rows` rows of each of `sequences` sequences from `position` on.
  void begin(int64_t sequences, int64_t position, int64_t rows, bool generated,
             int32_t token = -1) {
    parts_.clear();
    select_.clear();
    tokens_.resize(static_cast<size_t>(sequences * rows));
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const auto any = static_cast<int32_t>(static_cast<int64_t>(i * 7919 + 11) % shape_.vocab);
      tokens_[i] = token >= 0 ? token : any;
    }
    for (int64_t s = 0; s < sequences; ++s) {
      parts_.push_back({s * rows, rows, position, tables_[static_cast<size_t>(s)].data(), each_});
      select_.push_back({.row = (s + 1) * rows - 1});
    }
    const int64_t all = sequences * rows;
    ops_->begin({all, generated ? all : 0, tokens_.data(), parts_.data(), sequences});
  }
  // The best token of the first selected row.
  int32_t end() {
    ops_->submit();
    const std::vector<SelectResult>& results = ops_->collect();
    return results.empty() || results[0].candidate_count == 0 ? 0 : results[0].candidate_ids[0];
  }
  // `count` tokens one after the other, each chosen by the host from the one before.
  void generate(int64_t count) {
    begin(1, 0, 8, false);
    forward();
    int32_t token = end();
    for (int64_t i = 1; i < count; ++i) {
      begin(1, 7 + i, 1, true, token);
      forward();
      token = end();
    }
  }
  void embed() { ops_->embed({head_, Weight{}, x_}); }
  void norm() { ops_->norm({x_, norm_, norm_, 1e-5F, h_}); }
  void product(int which, int64_t turn) {
    const int64_t l = turn % shape_.layers;
    const Layer& w = layers_[static_cast<size_t>(l)];
    if (which == 0) ops_->qkv({h_, w.qkv, bias_3c_, kv_, l, 0.088F, q_});
    if (which == 1) ops_->linear({a_, w.out, norm_, Epilogue::kAdd, x_});
    if (which == 2) ops_->linear({h_, w.up, bias_f_, Epilogue::kGeluTanh, f_});
    if (which == 3) ops_->linear({f_, w.down, norm_, Epilogue::kAdd, x_});
  }
  void attend(int64_t turn) { ops_->attend({q_, kv_, turn % shape_.layers, a_}); }
  void select() {
    ops_->select({h_, head_, select_.data(), static_cast<int64_t>(select_.size())});
  }
  void forward() {
    embed();
    for (int64_t l = 0; l < shape_.layers; ++l) {
      norm();
      product(0, l);
      attend(l);
      product(1, l);
      norm();
      product(2, l);
      product(3, l);
    }
    norm();
    select();
  }
  // Gives every sequence a context of `depth` tokens: one is computed, the others are copies.
  void fill(int64_t depth, int64_t chunk) {
    for (int64_t at = 0; at < depth; at += chunk) {
      begin(1, at, std::min(chunk, depth - at), false);
      forward();
      end();
    }
    std::vector<BlockCopy> copies;
    for (int64_t s = 1; s < sequences_; ++s) {
      for (int64_t b = 0; b < each_; ++b) {
        copies.push_back({static_cast<int32_t>(b), static_cast<int32_t>(s * each_ + b)});
      }
    }
    ops_->copy_blocks(kv_, copies.data(), static_cast<int64_t>(copies.size()));
  }

 private:
  struct Layer {
    Weight qkv, out, up, down;
  };
  Shape shape_;
  std::unique_ptr<Ops> ops_;
  int64_t sequences_;
  int64_t each_ = 0;
  Weight head_;
  std::vector<Layer> layers_;
  Vector norm_, bias_3c_, bias_f_;
  Act x_, h_, q_, a_, f_;
  Kv kv_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<SequenceRows> parts_;
  std::vector<SelectRow> select_;
  std::vector<int32_t> tokens_;
};

// Seconds of one f(turn): the median of 5 steps that call it `repeats` times each.
double time_in_step(Model& m, int64_t sequences, int64_t position, int64_t rows, bool generated,
                    int repeats, const std::function<void(int64_t)>& f) {
  std::vector<double> seconds;
  for (int round = 0; round < 7; ++round) {
    m.begin(sequences, position, rows, generated);
    m.end();
    m.begin(sequences, position, rows, generated);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) f(i);
    m.end();
    const auto end = std::chrono::steady_clock::now();
    const double s = std::chrono::duration<double>(end - start).count();
    if (round > 1) seconds.push_back(s / repeats);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

void bench_operations(Model& m, bool smoke) {
  const Shape& s = m.shape();
  const char* names[] = {"qkv", "attention out", "mlp up", "mlp down"};
  const int64_t parts[] = {3, 1, 4, 4};
  const int repeats = smoke ? 2 : 48;
  for (int which = 0; which < 4; ++which) {
    const double size = static_cast<double>(parts[which] * s.hidden() * s.hidden());
    const auto call = [&](int64_t turn) { m.product(which, turn); };
    for (const int64_t rows : {1, 8, 16, 32}) {
      if (smoke && rows > 8) break;
      bytes_line(s.name + " " + names[which] + ", " + std::to_string(rows) + " generated rows",
                 2.0 * size, time_in_step(m, rows, 8, 1, true, repeats, call));
    }
    for (const int64_t rows : {128, 512, 2048}) {
      if (rows > s.context) break;
      flop_line(s.name + " " + names[which] + ", " + std::to_string(rows) + " prompt rows",
                2.0 * size * static_cast<double>(rows),
                time_in_step(m, 1, 0, rows, false, smoke ? 1 : 12, call));
    }
  }
  const auto attend = [&](int64_t turn) { m.attend(turn); };
  for (const int64_t batch : {1, 8, 32}) {
    if (smoke && batch > 1) break;
    const double bytes = 4.0 * static_cast<double>(batch * s.context * s.hidden());
    bytes_line(s.name + " decode attention, batch " + std::to_string(batch), bytes,
               time_in_step(m, batch, s.context - 1, 1, true, repeats, attend));
  }
  const double pairs = static_cast<double>(s.context) * static_cast<double>(s.context + 1) / 2.0;
  flop_line(s.name + " prefill attention, whole context",
            4.0 * pairs * static_cast<double>(s.hidden()),
            time_in_step(m, 1, 0, s.context, false, smoke ? 1 : 12, attend));
  const double head = 2.0 * static_cast<double>(s.vocab * s.hidden());
  for (const int64_t batch : {1, 8, 32}) {
    if (smoke && batch > 1) break;
    bytes_line(s.name + " head and select, batch " + std::to_string(batch), head,
               time_in_step(m, batch, 8, 1, true, smoke ? 1 : 12, [&](int64_t) { m.select(); }));
  }
  line(s.name + " norm, 1 row",
       time_in_step(m, 1, 8, 1, true, repeats, [&](int64_t) { m.norm(); }) * 1e6, "us", 0.0);
}

void bench_decode(Model& m, int64_t batch, int64_t depth) {
  const Shape& s = m.shape();
  const double bytes =
      s.step_bytes() + static_cast<double>(batch * (depth + 1)) * s.token_kv_bytes();
  const double seconds = time_in_step(m, batch, depth, 1, true, 1, [&](int64_t) { m.forward(); });
  const std::string name =
      s.name + " decode, batch " + std::to_string(batch) + ", depth " + std::to_string(depth);
  bytes_line(name, bytes, seconds);
  line(name + ", tokens", static_cast<double>(batch) / seconds, "tokens/s", 0.0);
}

void bench_whole(Model& m, bool smoke) {
  const Shape& s = m.shape();
  const int64_t count = smoke ? 8 : 128;
  std::vector<double> seconds;
  for (int round = 0; round < 4; ++round) {
    const auto start = std::chrono::steady_clock::now();
    m.generate(count);
    const auto end = std::chrono::steady_clock::now();
    if (round > 0) seconds.push_back(std::chrono::duration<double>(end - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  line(s.name + " generate, " + std::to_string(count) + " tokens, batch 1",
       static_cast<double>(count) / seconds[1], "tokens/s", 0.0);
  for (const int64_t rows : {128, 512, 2048}) {
    if (rows > s.context || (smoke && rows > 128)) break;
    const double t = time_in_step(m, 1, 0, rows, false, 1, [&](int64_t) { m.forward(); });
    line(s.name + " prefill, " + std::to_string(rows) + " tokens", static_cast<double>(rows) / t,
         "tokens/s", 0.0);
  }
}

// What does not fit the card is a line that says so.
void where_it_fits(const std::string& name, const std::function<void()>& measure) {
  try {
    measure();
  } catch (const Error& e) {
    if (e.code() != Code::kInsufficientMemory) throw;
    skip_line(name, "not enough memory on the card");
  }
}

// All batches at one depth, with one copy of the weights: making it takes longer than measuring.
// The largest batch whose cache fits decides; larger ones are lines that say so.
void bench_depth(const Shape& s, std::vector<int64_t> batches, int64_t depth) {
  const std::string where = ", depth " + std::to_string(depth);
  while (!batches.empty()) {
    const int64_t largest = batches.back();
    try {
      Model m(s, largest, std::max<int64_t>(256, largest), depth + 8);
      m.fill(depth, 256);
      for (const int64_t batch : batches) bench_decode(m, batch, depth);
      return;
    } catch (const Error& e) {
      if (e.code() != Code::kInsufficientMemory) throw;
      skip_line(s.name + " batch " + std::to_string(largest) + where,
                "not enough memory on the card");
      batches.pop_back();
    }
  }
}

void bench_shape(const Shape& s, bool smoke, const std::string& only) {
  const auto wanted = [&](const char* what) { return only.empty() || only == what; };
  if (wanted("ops")) {
    Shape part = s;
    part.layers = s.timed_layers;
    where_it_fits(s.name + " operations", [&] {
      Model m(part, smoke ? 8 : 32, s.context, s.context);
      m.fill(s.context - 1, s.context);
      bench_operations(m, smoke);
    });
  }
  if (wanted("whole")) {
    where_it_fits(s.name + " generate and prefill", [&] {
      Model m(s, 1, s.context, s.context);
      bench_whole(m, smoke);
    });
  }
  if (!wanted("decode")) return;
  const std::vector<int64_t> batches = smoke ? std::vector<int64_t>{1, 8}
                                             : std::vector<int64_t>{1, 8, 32, 128};
  for (const int64_t depth : {int64_t{0}, smoke ? s.context - 8 : int64_t{1900}}) {
    bench_depth(s, batches, depth);
  }
}

int run(bool smoke, const std::string& only) {
  const CudaDevice device = cuda_device(0);
  if (!device.reason.empty()) {
    skip_line("everything", device.reason);
    return 0;
  }
  std::printf("{\"name\":\"card\",\"card\":\"%s\",\"isa\":\"%s\"}\n", device.name.c_str(),
              device.isa.c_str());
  const int64_t bytes = smoke ? int64_t{1} << 20 : int64_t{4} << 30;
  const int64_t products = smoke ? 64 : int64_t{1} << 20;
  stream_gbs = card_read_bandwidth(bytes, smoke ? 1 : 9);
  matrix_tflops = card_matrix_peak(products, smoke ? 1 : 5);
  line("read-only stream, before", stream_gbs, "GB/s", 1.0);
  line("mma.sync in registers, before", matrix_tflops, "TFLOP/s", 1.0);
  if (smoke) {
    bench_shape({"tiny", 2, 2, 64, 2000, 128, 2}, true, only);
  } else {
    bench_shape({"1.7B", 24, 16, 128, 256000, 2048, 24}, false, only);
    bench_shape({"13B", 40, 40, 128, 256000, 2048, 6}, false, only);
  }
  const double after = card_read_bandwidth(bytes, smoke ? 1 : 9);
  line("read-only stream, after", after, "GB/s", after / stream_gbs);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  bool smoke = false;
  std::string only;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const bool more = i + 1 < count;
    if (argument == "--smoke") {
      smoke = true;
    } else if (argument == "--plain") {  // no graphs, no kernel that begins early
      ::setenv("POLYLM_CUDA_PLAIN", "1", 1);
    } else if (argument == "--only" && more) {
      only = arguments[++i];
    } else {
      std::fprintf(stderr, "usage: polylm_gpu_bench [--smoke] [--plain] "
                           "[--only ops|whole|decode]\n");
      return 2;
    }
  }
  int status = 1;
  try {
    status = run(smoke, only);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "polylm_gpu_bench: %s\n", e.what());
  }
  std::printf("{\"name\":\"total\",\"measured\":%d,\"skipped\":%d}\n", measured, skipped);
  return status;
}
