// backends.h: the one door to the devices. backends.cc is the only file that knows them by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace polylm {

struct BackendOptions {
  std::string device = "auto";  // "auto", "cpu", "ref", "cuda", "cuda:N"
  Precision precision = Precision::kBf16;
  int64_t threads = 0;  // CPU workers, 0 = default; the first model of a process decides
  int64_t needed_bytes = 0;  // that the weights take on the device at least, 0 = not known
};

// Throws DEVICE when the device is not usable; "auto" takes the best and says why not a better one
// in info().reason. A bad POLYLM_ISA is DEVICE for every device that is or becomes the CPU.
std::unique_ptr<Ops> make_ops(const BackendOptions& options);

struct DeviceReport {
  std::string kind;
  std::string name;
  std::string isa;
  bool usable = false;
  bool proven = false;  // "auto" may take it
  std::string reason;  // why not, or what is missing for a better choice
  int64_t memory_bytes = 0;  // total memory of the device (or what a cgroup leaves of it)
  int64_t free_bytes = 0;
};
std::vector<DeviceReport> list_devices();

// What "auto" takes: the usable and proven GPU with the most free memory, if the model fits it;
// else the CPU, and why. A GPU is proven when the kernels for its architecture passed every test
// on one (kProven in backends.cc). Pure.
struct DeviceChoice {
  std::string device = "cpu";
  std::string reason;  // why not something better, "" when there is nothing to say
};
DeviceChoice choose_device(const std::vector<DeviceReport>& reports, int64_t needed_bytes);

// Yardsticks for benchmarks, measured when called (less than a second each). threads 0: as many as
// a model would get. GB/s (1e9) of a read-only stream, median of several passes over size_bytes,
// which stay allocated for the next call; 0: more than 1 GB, which no cache holds.
double probe_read_bandwidth(int64_t threads, int64_t size_bytes = 0);
// TFLOP/s of multiply-adds in registers, of the kind that products at this precision use.
double probe_fma_peak(int64_t threads, Precision precision, int64_t rounds = 9);

}  // namespace polylm
