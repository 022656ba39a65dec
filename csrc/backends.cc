// backends.cc: the only file that knows the devices by name.
#include "backends.h"

#include "platform/error.h"
#include "ref/ref_ops.h"

namespace polylm {

std::unique_ptr<Ops> make_ops(const BackendOptions& options) {
  if (options.device == "ref") return std::make_unique<RefOps>(options.precision);
  fail(Code::kDevice, "device " + quoted(options.device) + " cannot be used by this build");
}

std::vector<DeviceReport> list_devices() { return {}; }

}  // namespace polylm
