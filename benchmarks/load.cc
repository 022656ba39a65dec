// load.cc: how fast weights come from files into packed matrices, as a ratio to the speed at which
// the same file can be read into fresh memory by as many threads; the file is in the page cache.
// Not here: parsing of formats (lib/checkpoint), disks. Trap: the file is written to the folder for
// temporary files, 1.2 GB or more; where that lies in memory it is memory.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backends.h"
#include "measure.h"
#include "model/model.h"
#include "model/weights.h"
#include "platform/bf16.h"
#include "platform/buffer.h"
#include "platform/cpu_features.h"
#include "platform/file.h"

namespace {

using polylm::ModelConfig;
using polylm::TensorInfo;
using polylm::TensorType;
using polylm_bench::median;
using polylm_bench::seconds_of;
using polylm_bench::take_count;

struct Options {
  bool smoke = false;
  bool json = false;
  int64_t threads = 0;
  int64_t repeats = 5;
  std::string only;  // measure lines whose name contains this
};

ModelConfig shape(bool smoke) {
  ModelConfig c;
  c.family = "gpt2";
  c.layers = smoke ? 1 : 8;
  c.heads = smoke ? 2 : 16;
  c.hidden_size = c.heads * 128;
  c.inner_size = 4 * c.hidden_size;
  c.context_size = smoke ? 64 : 2048;
  c.vocab_size = smoke ? 1000 : 100000;
  return c;
}

// The tensors of a checkpoint of this shape, one after the other.
class Checkpoint {
 public:
  Checkpoint(const ModelConfig& c, TensorType type, bool checksums, const std::string& path)
      : type_(type), path_(path) {
    const int64_t h = c.hidden_size;
    add("wte.weight", {c.vocab_size, h});
    add("wpe.weight", {c.context_size, h});
    for (int64_t l = 0; l < c.layers; ++l) {
      const std::string name = "h." + std::to_string(l) + ".";
      norm(name + "ln_1", h);
      conv1d(name + "attn.c_attn", h, 3 * h);
      conv1d(name + "attn.c_proj", h, h);
      norm(name + "ln_2", h);
      conv1d(name + "mlp.c_fc", h, c.inner_size);
      conv1d(name + "mlp.c_proj", c.inner_size, h);
    }
    norm("ln_f", h);
    write(checksums);
  }
  ~Checkpoint() { std::remove(path_.c_str()); }
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  const polylm::TensorTable& table() const { return table_; }
  int64_t size_bytes() const { return size_bytes_; }
  polylm::FileIdentity file() const { return {.path = path_, .size_bytes = size_bytes_}; }

 private:
  int64_t element_bytes() const { return type_ == TensorType::kF32 ? 4 : 2; }
  void add(const std::string& name, const std::vector<int64_t>& sizes) {
    TensorInfo t;
    t.name = name;
    t.type = type_;
    t.shape = sizes;
    t.strides = sizes.size() == 2 ? std::vector<int64_t>{sizes[1], 1} : std::vector<int64_t>{1};
    t.offset_bytes = size_bytes_;
    table_.tensors.push_back(t);
    size_bytes_ += sizes[0] * (sizes.size() == 2 ? sizes[1] : 1) * element_bytes();
  }
  void norm(const std::string& name, int64_t size) {
    add(name + ".weight", {size});
    add(name + ".bias", {size});
  }
  void conv1d(const std::string& name, int64_t in, int64_t out) {
    add(name + ".weight", {in, out});
    add(name + ".bias", {out});
  }

  void write(bool checksums) {
    std::vector<unsigned char> bytes(static_cast<size_t>(size_bytes_));
    uint32_t state = 1;
    for (size_t i = 0; i < bytes.size(); i += static_cast<size_t>(element_bytes())) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(state >> 8) * 0x1.0p-24F - 0.5F;
      if (type_ == TensorType::kF32) {
        std::memcpy(bytes.data() + i, &value, 4);
      } else {
        const uint16_t half = type_ == TensorType::kBf16 ? polylm::bf16_from_float(value)
                                                         : static_cast<uint16_t>(state >> 19);
        std::memcpy(bytes.data() + i, &half, 2);
      }
    }
    std::FILE* out = std::fopen(path_.c_str(), "wb");
    const bool written = out != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), out) ==
                                               bytes.size();
    if (out == nullptr || std::fclose(out) != 0 || !written) {
      throw std::runtime_error("cannot write " + path_);
    }
    table_.files.push_back(file());
    if (!checksums) return;
    for (size_t i = 0; i < table_.tensors.size(); ++i) {
      const int64_t begin = table_.tensors[i].offset_bytes;
      const int64_t end =
          i + 1 < table_.tensors.size() ? table_.tensors[i + 1].offset_bytes : size_bytes_;
      const uint32_t crc =
          polylm::crc32_update(0, bytes.data() + begin, static_cast<size_t>(end - begin));
      table_.storages.push_back({0, begin, end - begin, crc});
    }
  }

  TensorType type_;
  std::string path_;
  polylm::TensorTable table_;
  int64_t size_bytes_ = 0;
};

// GB/s of reading the whole file into memory nobody has touched, 4 MiB at a time.
double read_speed(const Checkpoint& checkpoint, int64_t threads) {
  const polylm::File file(checkpoint.file());
  const double seconds = seconds_of([&] {
    const polylm::Buffer memory(checkpoint.size_bytes(), "reading a file");
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      constexpr int64_t kChunk = 4 << 20;
      for (int64_t at = kChunk * next++; at < checkpoint.size_bytes(); at = kChunk * next++) {
        const int64_t bytes = std::min(kChunk, checkpoint.size_bytes() - at);
        file.read(at, static_cast<size_t>(bytes), memory.as<char>() + at);
      }
    };
    std::vector<std::thread> others;
    for (int64_t t = 1; t < threads; ++t) others.emplace_back(work);
    work();
    for (std::thread& t : others) t.join();
  });
  return static_cast<double>(checkpoint.size_bytes()) / seconds / 1e9;
}

double load_speed(const Checkpoint& checkpoint, const ModelConfig& config, int64_t threads) {
  polylm::BackendOptions backend;
  backend.device = "cpu";
  backend.threads = threads;
  auto ops = polylm::make_ops(backend);
  polylm::LoadControl control;
  control.threads = threads;
  const auto source = polylm::make_file_source(checkpoint.table(), control);
  std::unique_ptr<polylm::Model> model;
  const double seconds =
      seconds_of([&] { model = polylm::make_model(config, std::move(ops), *source); });
  return static_cast<double>(checkpoint.size_bytes()) / seconds / 1e9;
}

void measure(const char* name, TensorType type, bool checksums, const Options& o) {
  if (std::string(name).find(o.only) == std::string::npos) return;
  const ModelConfig config = shape(o.smoke);
  const int64_t threads = o.threads > 0 ? o.threads : polylm::usable_cores();
  const auto path = std::filesystem::temp_directory_path() /
                    ("polylm-load-" + std::to_string(std::chrono::steady_clock::now()
                                                         .time_since_epoch().count()));
  const Checkpoint checkpoint(config, type, checksums, path.string());
  std::vector<double> loads, reads, ratios;
  double before = read_speed(checkpoint, threads);
  for (int64_t i = 0; i < o.repeats; ++i) {
    loads.push_back(load_speed(checkpoint, config, threads));
    const double after = read_speed(checkpoint, threads);
    reads.push_back((before + after) / 2.0);
    ratios.push_back(loads.back() / reads.back());
    before = after;
  }
  const char* format =
      o.json ? "{\"name\":\"load %s\",\"unit\":\"GB/s\",\"threads\":%lld,\"bytes\":%lld,"
               "\"value\":%.3f,\"probe\":%.3f,\"ratio\":%.3f}\n"
             : "load %-16s %lld threads  %lld bytes  %.2f GB/s  read %.2f GB/s  ratio %.2f\n";
  std::printf(format, name, static_cast<long long>(threads),
              static_cast<long long>(checkpoint.size_bytes()), median(loads), median(reads),
              median(ratios));
  std::fflush(stdout);
}

bool parse(int count, char** arguments, Options* o) {
  for (int i = 1; i < count; ++i) {
    const std::string a = arguments[i];
    if (a == "--smoke") {
      o->smoke = true;
    } else if (a == "--json") {
      o->json = true;
    } else if (a == "--threads" && i + 1 < count) {
      if (!take_count(arguments[++i], &o->threads)) return false;
    } else if (a == "--repeats" && i + 1 < count) {
      if (!take_count(arguments[++i], &o->repeats)) return false;
    } else if (a == "--only" && i + 1 < count) {
      o->only = arguments[++i];
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  Options o;
  if (!parse(count, arguments, &o)) {
    std::fprintf(stderr, "usage: polylm_load_bench [--smoke] [--json] [--threads N] [--repeats N]"
                         " [--only TEXT]\n");
    return 2;
  }
  try {
    measure("bf16", TensorType::kBf16, false, o);
    measure("bf16, checksums", TensorType::kBf16, true, o);
    measure("f16", TensorType::kF16, false, o);
    measure("f32", TensorType::kF32, false, o);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "polylm_load_bench: %s\n", e.what());
    return 1;
  }
  return 0;
}
