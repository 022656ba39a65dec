// onednn.cc: one product of the core and the same product of oneDNN in turns: y[M,N] = x[M,K] · w[N,K]ᵀ + bias in
// bfloat16 with fp32 sums, at the shapes of PolyLM 1.7B and 13B. Weights of both are packed once beforehand and copies
// of them rotate, so that no cache holds them. Built where oneDNN is found (Debian: libdnnl-dev).
// Trap: OpenMP's threads of oneDNN spin for a while after a product; a pause stands between the two.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "../measure.h"
#include "backends.h"
#include "cpu/probe.h"
#include "platform/bf16.h"
#include "platform/cpu_features.h"

namespace {

using polylm::Act;
using polylm::ActKind;
using polylm::Epilogue;
using polylm::Ops;
using polylm::SequenceRows;
using polylm::Vector;
using polylm::Weight;
using polylm_bench::counts_from;
using polylm_bench::median;

struct Shape {
  const char* name;
  int64_t k;
  int64_t n;
};
constexpr Shape kShapes[] = {
    {"1.7B qkv", 2048, 6144},  {"1.7B out", 2048, 2048},   {"1.7B up", 2048, 8192},
    {"1.7B down", 8192, 2048}, {"13B qkv", 5120, 15360},   {"13B out", 5120, 5120},
    {"13B up", 5120, 20480},   {"13B down", 20480, 5120},
};

struct Options {
  bool smoke = false;
  bool json = false;
  int64_t threads = 0;
  int64_t repeats = 5;
  std::vector<int64_t> rows = {512, 2048};
  std::string only;
};

std::vector<uint16_t> random_bf16(int64_t count, float scale, uint32_t state) {
  std::vector<uint16_t> numbers(static_cast<size_t>(count));
  for (uint16_t& x : numbers) {
    state = state * 1664525u + 1013904223u;
    x = polylm::bf16_from_float((static_cast<float>(state >> 8) * 0x1.0p-23F - 1.0F) * scale);
  }
  return numbers;
}

int64_t copies_of(const Shape& shape, bool smoke) {
  constexpr int64_t kBeyondCaches = int64_t{600} << 20;
  return smoke ? 1 : std::max<int64_t>(1, kBeyondCaches / (2 * shape.k * shape.n) + 1);
}

// The core's product, as its model calls it.
class Ours {
 public:
  Ours(const Shape& shape, int64_t rows, const Options& options, const std::vector<uint16_t>& w,
       const std::vector<float>& x, const std::vector<float>& bias)
      : rows_(rows) {
    polylm::BackendOptions backend;
    backend.device = "cpu";
    backend.threads = options.threads;
    ops_ = polylm::make_ops(backend);
    for (int64_t i = 0; i < copies_of(shape, options.smoke); ++i) {
      const Weight weight = ops_->make_weight(shape.n, shape.k, polylm::WeightFormat::kBf16);
      polylm::WeightPiece piece;
      piece.n_count = shape.n;
      piece.k_count = shape.k;
      piece.stride_n = shape.k;
      piece.stride_k = 1;
      piece.bf16_data = w.data();
      ops_->pack_weight(weight, piece);
      weights_.push_back(weight);
    }
    bias_ = ops_->make_vector(bias.data(), shape.n);
    x_ = ops_->make_act(rows, shape.k, ActKind::kInput);
    y_ = ops_->make_act(rows, shape.n, ActKind::kInput);
    tokens_.assign(static_cast<size_t>(rows), 0);
    blocks_.assign(static_cast<size_t>(rows), 0);
    ops_->reserve({rows, 1, 0, 0, 0, 16, rows});
    ops_->write_act(x_, rows, x.data());
  }
  void run() {
    const SequenceRows all = {0, rows_, 0, blocks_.data(), rows_};  // of a cache that nobody uses
    ops_->begin({rows_, 0, tokens_.data(), &all, 1});
    ops_->linear({x_, weights_[turn_++ % weights_.size()], bias_, Epilogue::kNone, y_});
    ops_->submit();
    ops_->collect();
  }
  void read(std::vector<float>* y) const { ops_->read_act(y_, rows_, y->data()); }
  const std::string& isa() const { return ops_->info().isa; }

 private:
  int64_t rows_;
  std::unique_ptr<Ops> ops_;
  std::vector<Weight> weights_;
  Vector bias_;
  Act x_;
  Act y_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> blocks_;
  size_t turn_ = 0;
};

// oneDNN's matmul, weights in the layout that it asks for.
class Theirs {
 public:
  Theirs(const Shape& shape, int64_t rows, const Options& options, const std::vector<uint16_t>& w,
         const std::vector<float>& x, const std::vector<float>& bias)
      : rows_(rows), n_(shape.n), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using dnnl::memory;
    const auto bf16 = memory::data_type::bf16;
    const memory::desc xd({rows, shape.k}, bf16, memory::format_tag::ab);
    const memory::desc yd({rows, shape.n}, bf16, memory::format_tag::ab);
    const memory::desc bd({1, shape.n}, memory::data_type::f32, memory::format_tag::ab);
    const memory::desc any({shape.k, shape.n}, bf16, memory::format_tag::any);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc pd(engine_, xd, any, bd, yd);
#else
    const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(xd, any, bd, yd), engine_);
#endif
    matmul_ = dnnl::matmul(pd);
    name_ = pd.impl_info_str();
    const memory::desc plain({shape.k, shape.n}, bf16, memory::format_tag::ba);
    const memory from(plain, engine_, const_cast<uint16_t*>(w.data()));
    for (int64_t i = 0; i < copies_of(shape, options.smoke); ++i) {
      memory packed(pd.weights_desc(), engine_);
      dnnl::reorder(from, packed).execute(stream_, const_cast<memory&>(from), packed);
      weights_.push_back(packed);
    }
    x_ = memory(xd, engine_);
    y_ = memory(yd, engine_);
    bias_ = memory(bd, engine_);
    auto* input = static_cast<uint16_t*>(x_.get_data_handle());
    for (size_t i = 0; i < x.size(); ++i) input[i] = polylm::bf16_from_float(x[i]);
    std::memcpy(bias_.get_data_handle(), bias.data(), bias.size() * sizeof(float));
    stream_.wait();
  }
  void run() {
    const dnnl::memory& w = weights_[turn_++ % weights_.size()];
    matmul_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, bias_},
                              {DNNL_ARG_DST, y_}});
    stream_.wait();
  }
  void read(std::vector<float>* y) const {
    const auto* from = static_cast<const uint16_t*>(y_.get_data_handle());
    for (int64_t i = 0; i < rows_ * n_; ++i) {
      (*y)[static_cast<size_t>(i)] = polylm::bf16_to_float(from[i]);
    }
  }
  const std::string& name() const { return name_; }

 private:
  int64_t rows_;
  int64_t n_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  std::vector<dnnl::memory> weights_;
  dnnl::memory x_, y_, bias_;
  std::string name_;
  size_t turn_ = 0;
};

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double apart = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    apart += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(apart / size);
}

template <class Product>
double flops_of(Product& product, double flop, bool smoke) {
  const int64_t times = smoke ? 1 : std::max<int64_t>(1, static_cast<int64_t>(2e10 / flop));
  const double seconds = polylm_bench::seconds_of([&] {
    for (int64_t i = 0; i < times; ++i) product.run();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return flop * static_cast<double>(times) / seconds / 1e12;
}

class Compare {
 public:
  explicit Compare(const Options& options) : options_(options) {
    if (options_.threads == 0) options_.threads = polylm::usable_cores();
  }

  int run() {
    for (const int64_t rows : options_.rows) {
      std::vector<double> ratios;
      for (const Shape& shape : kShapes) {
        const std::string name = std::string(shape.name) + ", " + std::to_string(rows) + " rows";
        if (name.find(options_.only) != std::string::npos) ratios.push_back(one(shape, rows, name));
      }
      double product = 1.0;
      for (const double ratio : ratios) product *= ratio;
      if (!ratios.empty() && !options_.json) {
        std::printf("geometric mean, %lld rows: polylm is %.2fx\n", static_cast<long long>(rows),
                    std::pow(product, 1.0 / static_cast<double>(ratios.size())));
      }
    }
    return wrong_ ? 1 : 0;
  }

 private:
  // Both in turns, a look at the machine beside them; the median ratio.
  double one(Shape shape, int64_t rows, const std::string& name) {
    if (options_.smoke) shape = {shape.name, shape.k / 32, shape.n / 32};
    const auto w = random_bf16(shape.n * shape.k, 1.0F / std::sqrt(static_cast<float>(shape.k)), 7);
    const auto raw = random_bf16(rows * shape.k, 1.0F, 11);
    std::vector<float> x(raw.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = polylm::bf16_to_float(raw[i]);
    const std::vector<float> bias(static_cast<size_t>(shape.n), 0.25F);
    Ours ours(shape, rows, options_, w, x, bias);
    Theirs theirs(shape, rows, options_, w, x, bias);
    std::vector<float> a(static_cast<size_t>(rows * shape.n));
    std::vector<float> b(a.size());
    ours.run();
    theirs.run();
    ours.read(&a);
    theirs.read(&b);
    const double apart = difference(a, b);
    wrong_ = wrong_ || !(apart < 5e-3);
    const double flop = 2.0 * static_cast<double>(rows * shape.k * shape.n);
    std::vector<double> mine, other, ratios, peaks;
    const polylm::Isa isa = polylm::isa_from_environment();
    for (int64_t i = 0; i < options_.repeats; ++i) {
      mine.push_back(flops_of(ours, flop, options_.smoke));
      other.push_back(flops_of(theirs, flop, options_.smoke));
      ratios.push_back(mine.back() / other.back());
      peaks.push_back(polylm::cpu_multiply_peak(options_.threads, isa, 1, 1 << 18));
    }
    print(name, theirs.name(), mine, other, ratios, peaks, apart);
    return median(ratios);
  }

  void print(const std::string& name, const std::string& kernel, const std::vector<double>& mine,
             const std::vector<double>& other, const std::vector<double>& ratios,
             const std::vector<double>& peaks, double apart) const {
    const char* format = options_.json
        ? "{\"name\":\"%s\",\"threads\":%lld,\"polylm\":%.4f,\"onednn\":%.4f,\"ratio\":%.3f,"
          "\"ratio_min\":%.3f,\"ratio_max\":%.3f,\"peak\":%.4f,\"difference\":%.2e,"
          "\"unit\":\"TFLOP/s\",\"kernel\":\"%s\"}\n"
        : "%-22s %lld threads  polylm %.3f  oneDNN %.3f TFLOP/s  ratio %.2f (%.2f..%.2f)  "
          "peak %.2f  apart %.0e  %s\n";
    const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
    std::printf(format, name.c_str(), static_cast<long long>(options_.threads), median(mine),
                median(other), median(ratios), *least, *most, median(peaks), apart,
                kernel.c_str());
    std::fflush(stdout);
  }

  Options options_;
  bool wrong_ = false;
};

bool parse(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const bool has_value = i + 1 < count;
    if (name == "--smoke") {
      options->smoke = true;
      options->repeats = 1;
      options->rows = {32};
    } else if (name == "--json") {
      options->json = true;
    } else if (name == "--only" && has_value) {
      options->only = arguments[++i];
    } else if (has_value && (name == "--threads" || name == "--repeats" || name == "--rows")) {
      const std::vector<int64_t> values = counts_from(arguments[++i]);
      if (values.empty() || (name != "--rows" && values.size() != 1)) return false;
      if (name == "--threads") options->threads = values.front();
      if (name == "--repeats") options->repeats = values.front();
      if (name == "--rows") options->rows = values;
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
    std::fprintf(stderr, "usage: polylm_onednn [--rows 512,2048] [--threads N] [--repeats N]"
                         " [--only TEXT] [--json] [--smoke]\n");
    return 2;
  }
  try {
    return Compare(options).run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "polylm_onednn: %s\n", e.what());
    return 1;
  }
}
