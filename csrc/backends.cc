// backends.cc: the only file that knows the devices by name.
#include "backends.h"

#include <algorithm>

#include "cpu/cpu_ops.h"
#include "cpu/probe.h"
#include "platform/cpu_features.h"
#include "platform/error.h"
#include "platform/memory_info.h"
#include "ref/ref_ops.h"

namespace polylm {
namespace {

constexpr const char* kNoCuda = "this build has no CUDA kernels";

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
  if (options.device == "auto") return make_cpu(options, std::string("cuda: ") + kNoCuda);
  if (names_cuda(options.device)) {
    fail(Code::kDevice, "device " + quoted(options.device) + " cannot be used: " + kNoCuda,
         "use device \"cpu\" or \"auto\"");
  }
  fail(Code::kDevice, "device is " + quoted(options.device) +
                          ", expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"");
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
  DeviceReport cuda;
  cuda.kind = "cuda";
  cuda.reason = kNoCuda;
  return {cpu, cuda};
}

double probe_read_bandwidth(int64_t threads) {
  return cpu_read_bandwidth(probe_threads(threads), int64_t{5} << 28, 7);
}

double probe_fma_peak(int64_t threads, Precision precision) {
  const Isa isa = precision == Precision::kFp32 ? std::min(best_isa(), Isa::kAvx512) : best_isa();
  return cpu_multiply_peak(probe_threads(threads), isa, 9);
}

}  // namespace polylm
