// limits.cc: what this machine can do at best, by number of threads: reads from memory,
// multiply-adds in registers for each instruction set, reads of a file. Everything else is judged
// by these numbers. Rounds go over all rows in turn, so that a machine that slows down slows all.
// Not here: anything of a model. Trap: on a shared machine a limit is true for a minute, not a day;
// programs that compare measure it again beside the work.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__linux__)
#include <fcntl.h>
#include <unistd.h>
#endif

#include "../measure.h"
#include "cpu/probe.h"
#include "platform/buffer.h"
#include "platform/checked.h"
#include "platform/cpu_features.h"
#include "platform/file.h"
#include "platform/thread_pool.h"

namespace {

using polylm_bench::counts_from;
using polylm_bench::median;
using polylm_bench::quoted;
using polylm_bench::take_count;

struct Options {
  bool smoke = false;
  bool json = false;
  std::vector<int64_t> threads;
  int64_t repeats = 7;
  std::string file;  // read this one; empty: write one and remove it afterwards
  std::string only;  // measure rows whose name contains this
};

struct Row {
  std::string name;
  int64_t threads = 1;
  const char* unit = "";
  std::function<double()> measure;
  std::vector<double> values;
};

// 1, 2, 3, 4, then powers of two, and the last one is all of them.
std::vector<int64_t> default_threads(int64_t cores) {
  std::vector<int64_t> counts;
  for (int64_t n = 1; n < cores; n += n < 4 ? 1 : n) counts.push_back(n);
  counts.push_back(cores);
  return counts;
}

// A file that is removed with this object, unless it was there before.
class ProbeFile {
 public:
  ProbeFile(const std::string& given, int64_t size_bytes) : ours_(given.empty()) {
    namespace fs = std::filesystem;
    path_ = ours_ ? (fs::temp_directory_path() / "polylm-limits.bin").string() : given;
    if (ours_) write(size_bytes);
    std::error_code none;
    const auto found = fs::file_size(path_, none);
    size_bytes_ = none ? 0 : static_cast<int64_t>(found);
  }
  ~ProbeFile() {
    std::error_code ignored;
    if (ours_) std::filesystem::remove(path_, ignored);
  }
  ProbeFile(const ProbeFile&) = delete;
  ProbeFile& operator=(const ProbeFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }

  // Asks the system to forget its copy in memory; false where it cannot be asked.
  bool forget() const {
#if defined(__linux__)
    const int descriptor = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    const bool written = fdatasync(descriptor) == 0;
    const bool forgotten = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0;
    close(descriptor);
    return written && forgotten;
#else
    return false;
#endif
  }

 private:
  void write(int64_t size_bytes) const {
    std::FILE* out = std::fopen(path_.c_str(), "wb");
    if (out == nullptr) return;
    std::vector<unsigned char> block(size_t{1} << 20);
    for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<unsigned char>(i * 31 >> 3);
    for (int64_t done = 0; done < size_bytes; done += static_cast<int64_t>(block.size())) {
      if (std::fwrite(block.data(), 1, block.size(), out) != block.size()) break;
    }
    std::fclose(out);
  }

  bool ours_;
  std::string path_;
  int64_t size_bytes_ = 0;
};

// GB/s at which `threads` workers read a file, each into one buffer that it uses again and again.
double read_file(const ProbeFile& file, int64_t threads) {
  constexpr int64_t kChunk = int64_t{8} << 20;
  const polylm::File open({file.path(), file.size_bytes(), -1, 0, 0});
  polylm::ThreadPool::shared().grow(threads);
  polylm::Buffer buffers(kChunk * threads, "reading a file");
  polylm::SharedWork chunks(polylm::ceil_div(file.size_bytes(), kChunk), 1, threads);
  std::atomic<bool> failed{false};
  const double seconds = polylm_bench::seconds_of([&] {
    polylm::ThreadPool::shared().run_helped(threads, [&](int64_t worker) {
      int64_t helped = 0;
      for (polylm::Range one; chunks.take(worker, &helped, &one);) {
        const int64_t from = one.begin * kChunk;
        const auto bytes = static_cast<size_t>(std::min(kChunk, file.size_bytes() - from));
        try {
          open.read(from, bytes, buffers.as<char>() + worker * kChunk);
        } catch (const std::exception&) {
          failed = true;
        }
      }
    });
  });
  return failed ? 0.0 : static_cast<double>(file.size_bytes()) / seconds / 1e9;
}

class Limits {
 public:
  explicit Limits(const Options& options)
      : options_(options),
        threads_(options.threads.empty() ? default_threads(polylm::usable_cores())
                                         : options.threads) {
    most_ = *std::max_element(threads_.begin(), threads_.end());
  }

  void run() {
    add_reads();
    add_products();
    add_file();
    for (int64_t round = 0; round < options_.repeats; ++round) {
      for (Row& row : rows_) {
        const double value = row.measure();
        if (value > 0.0) row.values.push_back(value);
      }
    }
    if (options_.json) {
      print_json();
    } else {
      print_text();
    }
  }

 private:
  bool wanted(const std::string& name) const {
    return name.find(options_.only) != std::string::npos;
  }
  void add(const std::string& name, int64_t threads, const char* unit,
           std::function<double()> measure) {
    if (!wanted(name)) return;
    measure();  // wakes threads and fills caches
    rows_.push_back({name, threads, unit, std::move(measure), {}});
  }

  void add_reads() {
    if (!wanted("memory reads")) return;
    const int64_t size_bytes = options_.smoke ? int64_t{1} << 26 : int64_t{5} << 28;
    stream_ = std::make_unique<polylm::BandwidthProbe>(most_, size_bytes);
    for (const int64_t n : threads_) {
      add("memory reads", n, "GB/s", [this, n] { return stream_->pass(n); });
    }
  }

  void add_products() {
    for (int i = 0; i < polylm::kIsaCount; ++i) {
      const auto isa = static_cast<polylm::Isa>(i);
      if (!polylm::isa_obstacle(isa).empty()) continue;
      const std::string name = std::string("multiply-adds, ") + polylm::isa_name(isa);
      for (const int64_t n : threads_) {
        add(name, n, "TFLOP/s", [n, isa] { return polylm::cpu_multiply_peak(n, isa, 1, 1 << 20); });
      }
    }
  }

  void add_file() {
    if (!wanted("file in memory") && !wanted("file from disk")) return;
    file_ = std::make_unique<ProbeFile>(options_.file,
                                        options_.smoke ? int64_t{1} << 24 : int64_t{1} << 30);
    for (const int64_t n : threads_) {
      add("file in memory", n, "GB/s", [this, n] { return read_file(*file_, n); });
    }
    // Last, because it leaves the file forgotten and read again.
    if (!file_->forget()) return;
    add("file from disk", most_, "GB/s", [this] {
      return file_->forget() ? read_file(*file_, most_) : 0.0;
    });
  }

  void print_text() const {
    std::printf("%s, %lld cores, best instruction set %s\n", polylm::cpu_name().c_str(),
                static_cast<long long>(polylm::usable_cores()),
                polylm::isa_name(polylm::best_isa()));
    for (const Row& row : rows_) {
      if (row.values.empty()) continue;
      const auto [least, most] = std::minmax_element(row.values.begin(), row.values.end());
      std::printf("%-28s %3lld threads  %9.3f %-7s  %.3f..%.3f\n", row.name.c_str(),
                  static_cast<long long>(row.threads), median(row.values), row.unit, *least, *most);
    }
  }

  void print_json() const {
    std::printf("{\"schema\":1,\"machine\":{\"cpu\":%s,\"cores\":%lld,\"isa\":%s},\"results\":[",
                quoted(polylm::cpu_name()).c_str(), static_cast<long long>(polylm::usable_cores()),
                quoted(polylm::isa_name(polylm::best_isa())).c_str());
    const char* comma = "";
    for (const Row& row : rows_) {
      if (row.values.empty()) continue;
      const auto [least, most] = std::minmax_element(row.values.begin(), row.values.end());
      std::printf("%s\n{\"name\":%s,\"threads\":%lld,\"unit\":\"%s\",\"median\":%.6g,"
                  "\"min\":%.6g,\"max\":%.6g,\"rounds\":%zu}",
                  comma, quoted(row.name).c_str(), static_cast<long long>(row.threads), row.unit,
                  median(row.values), *least, *most, row.values.size());
      comma = ",";
    }
    std::printf("]}\n");
  }

  Options options_;
  std::vector<int64_t> threads_;
  int64_t most_ = 1;
  std::unique_ptr<polylm::BandwidthProbe> stream_;
  std::unique_ptr<ProbeFile> file_;
  std::vector<Row> rows_;
};

bool parse(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const bool has_value = i + 1 < count;
    if (name == "--smoke") {
      options->smoke = true;
      options->repeats = 1;
    } else if (name == "--json") {
      options->json = true;
    } else if (name == "--threads" && has_value) {
      options->threads = counts_from(arguments[++i]);
      if (options->threads.empty()) return false;
    } else if (name == "--repeats" && has_value) {
      if (!take_count(arguments[++i], &options->repeats)) return false;
    } else if (name == "--file" && has_value) {
      options->file = arguments[++i];
    } else if (name == "--only" && has_value) {
      options->only = arguments[++i];
    } else {
      return false;
    }
  }
  for (const int64_t n : options->threads) {
    if (n > polylm::ThreadPool::kMaxWorkers) return false;
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  if (!parse(count, arguments, &options)) {
    std::fprintf(stderr, "usage: polylm_limits [--threads 1,2,4] [--repeats N] [--file PATH]"
                         " [--only TEXT] [--json] [--smoke]\n");
    return 2;
  }
  try {
    Limits(options).run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "polylm_limits: %s\n", e.what());
    return 1;
  }
  return 0;
}
