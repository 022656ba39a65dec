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
};

// Throws DEVICE when the device is not usable; "auto" never does and says why in info().reason.
std::unique_ptr<Ops> make_ops(const BackendOptions& options);

struct DeviceReport {
  std::string kind;
  std::string name;
  std::string isa;
  bool usable = false;
  std::string reason;  // why not, or what is missing for a better choice
  int64_t memory_bytes = 0;  // total memory of the device (or what a cgroup leaves of it)
  int64_t free_bytes = 0;
};
std::vector<DeviceReport> list_devices();

}  // namespace polylm
