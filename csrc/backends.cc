// backends.cc: the only file that knows the devices by name.
#include "backends.h"

#include <algorithm>
#include <iterator>
#include <mutex>

#include "cpu/cpu_ops.h"
#include "cpu/probe.h"
#ifdef POLYLM_CUDA
#include "cuda/device.h"
#endif
#include "platform/cpu_features.h"
#include "platform/error.h"
#include "platform/memory_info.h"
#include "ref/ref_ops.h"

namespace polylm {
namespace {

// Architectures that "auto" may take: those whose kernels passed every test on such a GPU
// (benchmarks/results). lib/memory.ts asks the device that "auto" would take what is free.
constexpr const char* kProven[] = {"sm_90"};
constexpr const char* kUnproven =
    "CUDA kernels were never run on a GPU of this architecture; ask for device 'cuda' to use them";
constexpr const char* kNoCuda = "this build has no CUDA kernels";

// The cards, or one report that says why there are none. Never empty.
std::vector<DeviceReport> cuda_reports() {
  std::vector<DeviceReport> reports;
  DeviceReport report;
  report.kind = "cuda";
#ifdef POLYLM_CUDA
  const int64_t count = cuda_device_count(&report.reason);
  for (int64_t i = 0; i < count; ++i) {
    const CudaDevice device = cuda_device(i);
    report.name = device.name;
    report.isa = device.isa;
    report.usable = device.reason.empty();
    report.proven = report.usable && std::find(std::begin(kProven), std::end(kProven),
                                               device.isa) != std::end(kProven);
    report.reason = report.usable && !report.proven ? kUnproven : device.reason;
    report.memory_bytes = device.memory_bytes;
    report.free_bytes = device.free_bytes;
    reports.push_back(report);
  }
#else
  report.reason = kNoCuda;
#endif
  if (reports.empty()) reports.push_back(report);
  return reports;
}

// "cuda" is "cuda:0".
std::unique_ptr<Ops> make_cuda(const BackendOptions& options) {
#ifdef POLYLM_CUDA
  const size_t colon = options.device.find(':');
  const int64_t index =
      colon == std::string::npos ? 0 : std::stoll(options.device.substr(colon + 1));
  return make_cuda_ops({options.precision, index});
#else
  fail(Code::kDevice, "device " + quoted(options.device) + " cannot be used: " + kNoCuda,
       "use device \"cpu\" or \"auto\"");
#endif
}

std::unique_ptr<Ops> make_cpu(const BackendOptions& options, const std::string& note) {
  CpuOptions cpu;
  cpu.precision = options.precision;
  cpu.threads = options.threads;
  cpu.isa = isa_from_environment();
  cpu.note = note;
  return std::make_unique<CpuOps>(cpu);
}

bool names_cuda(const std::string& device) {
  if (device == "cuda") return true;
  if (device.rfind("cuda:", 0) != 0 || device.size() == 5 || device.size() > 8) return false;
  return device.find_first_not_of("0123456789", 5) == std::string::npos;
}

// Workers that a model with this request would get, without deciding the default for the process.
int64_t probe_threads(int64_t requested) { return requested > 0 ? requested : usable_cores(); }

}  // namespace

std::unique_ptr<Ops> make_ops(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > ThreadPool::kMaxWorkers) {
    fail(Code::kInvalidOption, "threads is " + std::to_string(options.threads) +
                                   ", expected 0 to " + std::to_string(ThreadPool::kMaxWorkers));
  }
  if (options.device == "ref") return std::make_unique<RefOps>(options.precision);
  if (options.device == "cpu") return make_cpu(options, "");
  if (options.device == "auto") {
    const DeviceChoice choice = choose_device(cuda_reports(), options.needed_bytes);
    if (choice.device == "cpu") return make_cpu(options, choice.reason);
    BackendOptions chosen = options;
    chosen.device = choice.device;
    return make_cuda(chosen);
  }
  if (names_cuda(options.device)) return make_cuda(options);
  fail(Code::kDevice, "device is " + quoted(options.device) +
                          ", expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"");
}

DeviceChoice choose_device(const std::vector<DeviceReport>& reports, int64_t needed_bytes) {
  DeviceChoice choice;
  int64_t index = -1;
  int64_t most_free = -1;
  for (const DeviceReport& report : reports) {
    if (report.kind != "cuda") continue;
    ++index;
    if (!report.usable || !report.proven) {
      if (choice.reason.empty()) choice.reason = "cuda: " + report.reason;
      continue;
    }
    if (report.free_bytes <= most_free) continue;
    most_free = report.free_bytes;
    choice.device = "cuda:" + std::to_string(index);
  }
  if (most_free < 0) return choice;
  choice.reason.clear();
  if (most_free >= needed_bytes) return choice;
  choice.device = "cpu";
  choice.reason = "cuda: too little memory: the weights take " + std::to_string(needed_bytes) +
                  " bytes, " + std::to_string(most_free) + " are free on the GPU";
  return choice;
}

std::vector<DeviceReport> list_devices() {
  DeviceReport cpu;
  cpu.kind = "cpu";
  cpu.name = cpu_name();
  cpu.isa = isa_name(best_isa());
  cpu.usable = true;
  if (cpu_features().amx_bf16 && best_isa() != Isa::kAmx) {
    cpu.reason = "amx: " + isa_obstacle(Isa::kAmx);
  }
  const MemoryInfo memory = memory_info();
  cpu.memory_bytes = memory.total_bytes;
  cpu.free_bytes = memory.free_bytes;
  std::vector<DeviceReport> reports = cuda_reports();
  reports.insert(reports.begin(), cpu);
  return reports;
}

double probe_read_bandwidth(int64_t threads, int64_t size_bytes) {
  static std::mutex mutex;
  static std::unique_ptr<BandwidthProbe> probe;
  static int64_t probe_workers = 0;
  static int64_t probe_bytes = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  const int64_t workers = probe_threads(threads);
  const int64_t wanted_bytes = size_bytes > 0 ? size_bytes : int64_t{5} << 28;
  if (probe == nullptr || workers != probe_workers || wanted_bytes != probe_bytes) {
    probe.reset();
    probe = std::make_unique<BandwidthProbe>(workers, wanted_bytes);
    probe_workers = workers;
    probe_bytes = wanted_bytes;
  }
  std::vector<double> speeds;
  for (int round = 0; round < 7; ++round) speeds.push_back(probe->pass());
  std::nth_element(speeds.begin(), speeds.begin() + 3, speeds.end());
  return speeds[3];
}

double probe_fma_peak(int64_t threads, Precision precision, int64_t rounds) {
  const Isa used = isa_from_environment();
  const Isa isa = precision == Precision::kFp32 ? std::min(used, Isa::kAvx512) : used;
  return cpu_multiply_peak(probe_threads(threads), isa, rounds, 1 << 20);
}

}  // namespace polylm
