// addon.cc: what the .node file exports. Everything that can take long is a promise; nothing here
// is process-wide, so that any number of threads can load the addon.
// Trap: Node unloads an addon when the last worker that loaded it ends, but the core's thread pool
// lives as long as the process; so the library pins itself in memory.
#include <napi.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends.h"
#include "binding/guard.h"
#include "binding/job.h"
#include "binding/loader.h"
#include "binding/read.h"
#include "binding/request_reader.h"
#include "binding/tokenizer_wrap.h"
#include "platform/error.h"
#include "platform/main_stack.h"

namespace polylm {
namespace {

Napi::Value describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&] {
    Napi::Object object = Napi::Object::New(env);
    object.Set("params", describe_params(env));
    object.Set("limits", describe_limits(env));
    const Napi::Array codes = Napi::Array::New(env);
    for (int i = 0; i < kCodeCount; ++i) {
      codes.Set(static_cast<uint32_t>(i), code_name(static_cast<Code>(i)));
    }
    object.Set("errorCodes", codes);
#if defined(__VERSION__)
    object.Set("compiler", __VERSION__);
#else
    object.Set("compiler", "unknown");
#endif
#if defined(POLYLM_CUDA)
    object.Set("cuda", true);
#else
    object.Set("cuda", false);
#endif
    return object;
  });
}

Napi::Object to_object(Napi::Env env, const DeviceReport& device) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", device.kind);
  object.Set("name", device.name);
  object.Set("isa", device.isa);
  object.Set("usable", device.usable);
  object.Set("proven", device.proven);
  object.Set("reason", device.reason);
  object.Set("memoryBytes", static_cast<double>(device.memory_bytes));
  object.Set("freeBytes", static_cast<double>(device.free_bytes));
  return object;
}

Napi::Value devices(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    return start_job(info.Env(), "polylm:devices", [](const Notify&) {
      const auto found = std::make_shared<std::vector<DeviceReport>>();
      JobSteps steps;
      steps.work = [found] { *found = list_devices(); };
      steps.result = [found](Napi::Env env) {
        const Napi::Array array = Napi::Array::New(env);
        for (const DeviceReport& device : *found) array.Set(array.Length(), to_object(env, device));
        return Napi::Value(array);
      };
      return steps;
    });
  });
}

// A yardstick measured on a thread of its own; the promise gives a number per second.
Napi::Value start_probe(Napi::Env env, const char* name, std::function<double()> measure) {
  return start_job(env, name, [measure](const Notify&) {
    const auto found = std::make_shared<double>(0);
    JobSteps steps;
    steps.work = [found, measure] { *found = measure(); };
    steps.result = [found](Napi::Env now) { return Napi::Value(Napi::Number::New(now, *found)); };
    return steps;
  });
}

int64_t read_count(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) wrong_type(name, "a number");
  return to_int64(value.As<Napi::Number>().DoubleValue(), name);
}

Napi::Value probe_bandwidth(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const int64_t threads = read_count(info[0], "threads");
    const int64_t bytes = read_count(info[1], "bytes");
    return start_probe(info.Env(), "polylm:bandwidth",
                       [threads, bytes] { return probe_read_bandwidth(threads, bytes) * 1e9; });
  });
}

Napi::Value probe_products(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&] {
    const int64_t threads = read_count(info[0], "threads");
    const bool fp32 = info[1].IsString() && info[1].As<Napi::String>().Utf8Value() == "fp32";
    const Precision precision = fp32 ? Precision::kFp32 : Precision::kBf16;
    const int64_t rounds = std::max<int64_t>(1, read_count(info[2], "rounds"));
    return start_probe(info.Env(), "polylm:products", [threads, precision, rounds] {
      return probe_fma_peak(threads, precision, rounds) * 1e12;
    });
  });
}

// An anchor of this library; its address tells the loader which file is meant.
const char kInside = 0;

void pin_library() {
#if defined(_WIN32)
  HMODULE self = nullptr;
  GetModuleHandleExA(
      GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN, &kInside, &self);
#else
  Dl_info info{};
  if (dladdr(&kInside, &info) != 0 && info.dli_fname != nullptr) {
    static_cast<void>(dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE));
  }
#endif
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  pin_library();
  grow_main_stack();
  exports.Set("describe", Napi::Function::New(env, describe, "describe"));
  exports.Set("devices", Napi::Function::New(env, devices, "devices"));
  exports.Set("loadWeights", Napi::Function::New(env, load_weights, "loadWeights"));
  exports.Set("probeBandwidth", Napi::Function::New(env, probe_bandwidth, "probeBandwidth"));
  exports.Set("probeProducts", Napi::Function::New(env, probe_products, "probeProducts"));
  init_tokenizer(env, exports);
  return exports;
}

}  // namespace
}  // namespace polylm

static Napi::Object polylm_init(Napi::Env env, Napi::Object exports) {
  return polylm::init(env, exports);
}
NODE_API_MODULE(polylm, polylm_init)
