// ops.cc: speed of the operations on this machine, as ratios to what the machine can do: a
// read-only stream (memory) and multiply-adds in registers (arithmetic), taken in turns with the work.
// Weights are random; the shapes are those of PolyLM-1.7B. Not here: single products (gemm.cc), the
// engine, text, tokens/s of a real request (polylm bench). Trap: on a shared machine only the ratios
// mean anything; activations come from a cache, so the norm's ratio to memory can exceed 1.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "backends.h"
#include "cpu/probe.h"
#include "gemm.h"
#include "platform/cpu_features.h"
#include "turns.h"

namespace {

using polylm::Act;
using polylm::ActKind;
using polylm::Epilogue;
using polylm::Kv;
using polylm::Ops;
using polylm::SelectRow;
using polylm::SequenceRows;
using polylm::Vector;
using polylm::Weight;
using polylm_bench::random_weight;
using polylm_bench::Report;
using polylm_bench::take_count;
using polylm_bench::take_turns;

constexpr int64_t kProbeLength = int64_t{1} << 20;
constexpr int64_t kBatch = 16;
constexpr int64_t kBatchDepth = 20;

struct Options {
  bool smoke = false;
  bool json = false;
  int64_t threads = 0;
  int64_t repeats = 7;
  int64_t neighbours = 0;  // threads of somebody else that are busy meanwhile
  std::string only;        // measure lines whose name contains this
};

// Threads that only burn time, as other programs on the machine do.
class Neighbours {
 public:
  explicit Neighbours(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        while (!gone_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Neighbours() {
    gone_ = true;
    for (std::thread& t : threads_) t.join();
  }
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;

 private:
  std::atomic<bool> gone_{false};
  std::vector<std::thread> threads_;
};

struct Shape {
  int64_t layers = 24;
  int64_t heads = 16;
  int64_t head_size = 128;
  int64_t vocab = 256000;
  int64_t context = 2048;
  int64_t hidden() const { return heads * head_size; }
  int64_t inner() const { return 4 * hidden(); }
  int64_t layer_parameters() const { return hidden() * (4 * hidden() + 2 * inner()); }
};

class Model {
 public:
  Model(Ops& ops, const Shape& shape, int64_t rows) : ops_(ops), shape_(shape) {
    const int64_t c = shape.hidden();
    head_ = random_weight(ops, shape.vocab, c);
    for (int64_t i = 0; i < shape.layers; ++i) {
      layers_.push_back({random_weight(ops, 3 * c, c), random_weight(ops, c, c),
                         random_weight(ops, shape.inner(), c),
                         random_weight(ops, c, shape.inner())});
    }
    const std::vector<float> ones(static_cast<size_t>(shape.inner() + 3 * c), 0.5F);
    norm_ = ops.make_vector(ones.data(), c);
    bias_c_ = ops.make_vector(ones.data(), c);
    bias_3c_ = ops.make_vector(ones.data(), 3 * c);
    bias_f_ = ops.make_vector(ones.data(), shape.inner());
    x_ = ops.make_act(rows, c, ActKind::kResidual);
    h_ = ops.make_act(rows, c, ActKind::kInput);
    q_ = ops.make_act(rows, c, ActKind::kInput);
    a_ = ops.make_act(rows, c, ActKind::kInput);
    f_ = ops.make_act(rows, shape.inner(), ActKind::kInput);
    const int64_t block = ops.info().block_tokens;
    const int64_t blocks = (shape.context + block - 1) / block;
    kv_ = ops.make_kv({shape.layers, shape.heads, shape.head_size, blocks});
    for (int64_t b = 0; b < blocks; ++b) table_.push_back(static_cast<int32_t>(b));
    tokens_.assign(static_cast<size_t>(rows), 1);
    ops.reserve({rows, rows, kBatch, 0, 1, shape.vocab, shape.context});
  }

  // One step of `rows` rows of one sequence from `position` on, logits of the last.
  void step(int64_t position, int64_t rows, bool products_only) {
    const SequenceRows s = {0, rows, position, table_.data(), static_cast<int64_t>(table_.size())};
    const SelectRow row = {rows - 1, nullptr, 0, 1.0F, false};
    ops_.begin({rows, 0, tokens_.data(), &s, 1});
    forward(products_only);
    ops_.select({h_, head_, &row, 1});
    ops_.submit();
    ops_.collect();
  }

  // One step of `batch` sequences, one token each, all at `position` whose blocks overlap.
  void step_of_batch(int64_t position, int64_t batch) {
    const auto blocks = static_cast<int64_t>(table_.size());
    const int64_t starts = blocks - position / ops_.info().block_tokens;
    std::vector<SequenceRows> s;
    std::vector<SelectRow> select;
    for (int64_t i = 0; i < batch; ++i) {
      const int64_t first = i % starts;
      s.push_back({i, 1, position, table_.data() + first, blocks - first});
      select.push_back({i, nullptr, 0, 1.0F, false});
    }
    ops_.begin({batch, batch, tokens_.data(), s.data(), batch});
    forward(false);
    ops_.select({h_, head_, select.data(), batch});
    ops_.submit();
    ops_.collect();
  }

  // Attention of one row at `position` in every layer, nothing else.
  void attend(int64_t position) {
    const SequenceRows s = {0, 1, position, table_.data(), static_cast<int64_t>(table_.size())};
    ops_.begin({1, 1, tokens_.data(), &s, 1});
    for (int64_t i = 0; i < shape_.layers; ++i) ops_.attend({q_, kv_, i, a_});
    ops_.submit();
    ops_.collect();
  }

  void forward(bool products_only) {
    if (!products_only) ops_.embed({head_, Weight{}, x_});
    int64_t index = 0;
    for (const Layer& l : layers_) {
      if (!products_only) ops_.norm({x_, norm_, norm_, 1e-5F, h_});
      ops_.qkv({h_, l.qkv, bias_3c_, kv_, index, 0.088F, q_});
      if (!products_only) ops_.attend({q_, kv_, index, a_});
      ops_.linear({a_, l.out, bias_c_, Epilogue::kAdd, x_});
      if (!products_only) ops_.norm({x_, norm_, norm_, 1e-5F, h_});
      ops_.linear({h_, l.up, bias_f_, Epilogue::kGeluTanh, f_});
      ops_.linear({f_, l.down, bias_c_, Epilogue::kAdd, x_});
      ++index;
    }
    if (!products_only) ops_.norm({x_, norm_, norm_, 1e-5F, h_});
  }

  // The norm of `rows` rows as often as a step has it, nothing else.
  void norms(int64_t rows) {
    const SequenceRows s = {0, rows, 0, table_.data(), static_cast<int64_t>(table_.size())};
    ops_.begin({rows, 0, tokens_.data(), &s, 1});
    for (int64_t i = 0; i <= 2 * shape_.layers; ++i) ops_.norm({x_, norm_, norm_, 1e-5F, h_});
    ops_.submit();
    ops_.collect();
  }

  // The output layer and what it selects for `rows` rows, sums at a temperature included.
  void head(int64_t rows, float temperature) {
    const SequenceRows s = {0, rows, 0, table_.data(), static_cast<int64_t>(table_.size())};
    std::vector<SelectRow> select;
    for (int64_t i = 0; i < rows; ++i) select.push_back({i, nullptr, 0, temperature, false});
    ops_.begin({rows, 0, tokens_.data(), &s, 1});
    ops_.select({h_, head_, select.data(), rows});
    ops_.submit();
    ops_.collect();
  }

 private:
  struct Layer {
    Weight qkv, out, up, down;
  };
  Ops& ops_;
  Shape shape_;
  Weight head_;
  std::vector<Layer> layers_;
  Vector norm_, bias_c_, bias_3c_, bias_f_;
  Act x_, h_, q_, a_, f_;
  Kv kv_;
  std::vector<int32_t> table_;
  std::vector<int32_t> tokens_;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : threads_(options.threads > 0 ? options.threads : polylm::usable_cores()),
        stream_(threads_, options.smoke ? int64_t{1} << 26 : int64_t{5} << 28),
        options_(options),
        report_(options.json) {}

  void run() {
    Shape shape;
    if (options_.smoke) {
      shape.layers = 2;
      shape.heads = 4;
      shape.head_size = 64;
      shape.vocab = 4096;
      shape.context = 256;
    }
    const int64_t rows = options_.smoke ? 128 : 2048;
    polylm::BackendOptions backend;
    backend.device = "cpu";
    backend.threads = threads_;
    const auto ops = polylm::make_ops(backend);
    if (!options_.json) {
      std::printf("%s, %s, %lld layers, hidden %lld\n", ops->info().name.c_str(),
                  ops->info().isa.c_str(), static_cast<long long>(shape.layers),
                  static_cast<long long>(shape.hidden()));
    }
    Model model(*ops, shape, rows);
    const double weights = 2.0 * static_cast<double>(shape.layers * shape.layer_parameters() +
                                                     shape.vocab * shape.hidden());
    memory_bound("decode chain, products only", weights, [&] { model.step(0, 1, true); });
    memory_bound("decode step, depth 0", weights, [&] { model.step(0, 1, false); });
    const int64_t deep = shape.context * 15 / 16 - 20;
    const double kv = 4.0 * static_cast<double>(shape.layers * shape.hidden() * (deep + 1));
    memory_bound("decode step, depth " + std::to_string(deep), weights + kv,
                 [&] { model.step(deep, 1, false); });
    memory_bound("decode step, " + std::to_string(kBatch) + " sequences", weights,
                 [&] { model.step_of_batch(kBatchDepth, std::min(kBatch, rows)); });
    memory_bound("attention alone, depth " + std::to_string(deep), kv,
                 [&] { model.attend(deep); });
    for (const int64_t m : {rows / 4, rows}) {
      // Products and causal attention; the head only for the last row, which is not counted.
      const double flop = 2.0 * static_cast<double>(shape.layers) *
                          static_cast<double>(m * shape.layer_parameters() +
                                              m * m * shape.hidden());
      arithmetic_bound("prefill of " + std::to_string(m), flop,
                       [&] { model.step(0, m, false); });
    }
    const double head = 2.0 * static_cast<double>(shape.vocab * shape.hidden());
    model.step(0, kBatch, false);  // rows that are not zero: equal logits would all be candidates
    memory_bound("head, 1 row", head, [&] { model.head(1, 1.0F); });
    memory_bound("head, 16 rows", head, [&] { model.head(kBatch, 1.0F); });
    memory_bound("head, 16 rows, temperature 0.7", head, [&] { model.head(kBatch, 0.7F); });
    for (const int64_t m : {int64_t{1}, kBatch, rows / 4}) {
      const double bytes = 6.0 * static_cast<double>((2 * shape.layers + 1) * m * shape.hidden());
      memory_bound("norm, " + std::to_string(m) + " rows", bytes, [&] { model.norms(m); });
    }
  }

 private:
  void memory_bound(const std::string& name, double bytes, const std::function<void()>& f) {
    measure(name, "GB/s", bytes / 1e9, options_.repeats, f, [&] { return stream_.pass(); });
  }
  void arithmetic_bound(const std::string& name, double flop, const std::function<void()>& f) {
    measure(name, "TFLOP/s", flop / 1e12, std::min<int64_t>(options_.repeats, 5), f,
            [&] { return polylm::cpu_multiply_peak(threads_, isa_, 1, kProbeLength); });
  }
  void measure(const std::string& name, const char* unit, double amount, int64_t repeats,
               const std::function<void()>& f, const std::function<double()>& probe) {
    if (name.find(options_.only) == std::string::npos) return;
    report_.line(name, unit, take_turns(amount, repeats, f, probe));
  }

  int64_t threads_;
  polylm::Isa isa_ = polylm::isa_from_environment();
  polylm::BandwidthProbe stream_;
  Options options_;
  Report report_;
};

bool parse(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; ++i) {
    const std::string a = arguments[i];
    if (a == "--smoke") {
      options->smoke = true;
    } else if (a == "--json") {
      options->json = true;
    } else if (a == "--threads" && i + 1 < count) {
      if (!take_count(arguments[++i], &options->threads)) return false;
    } else if (a == "--only" && i + 1 < count) {
      options->only = arguments[++i];
    } else if (a == "--neighbours" && i + 1 < count) {
      if (!take_count(arguments[++i], &options->neighbours)) return false;
    } else if (a == "--repeats" && i + 1 < count) {
      if (!take_count(arguments[++i], &options->repeats)) return false;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  if (!parse(count, arguments, &options)) {
    std::fprintf(stderr, "usage: polylm_bench [--smoke] [--json] [--threads N] [--repeats N]"
                         " [--neighbours N] [--only TEXT]\n");
    return 2;
  }
  try {
    const Neighbours busy(options.neighbours);
    const bool only_gemm = options.only.find("gemm") == 0;
    if (!only_gemm) Bench(options).run();
    if (only_gemm || options.only.empty()) {
      polylm_bench::run_gemm(
          {options.smoke, options.json, options.threads, options.repeats, options.only});
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "polylm_bench: %s\n", e.what());
    return 1;
  }
  return 0;
}
