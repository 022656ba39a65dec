// loader.cc: a NativeLoad (lib/native.ts) to a Model. Progress is throttled here, because the
// loader's threads report every few milliseconds and JavaScript has better things to do.
#include "binding/loader.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "backends.h"
#include "binding/engine_host.h"
#include "binding/guard.h"
#include "binding/job.h"
#include "binding/read.h"
#include "binding/tokenizer_wrap.h"
#include "model/model.h"
#include "model/weights.h"

namespace polylm {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(50);
constexpr double kStepMs = 250;  // so long may a stranger's prompt hold up the next token

struct LoadPlan {
  ModelConfig config;
  BackendOptions backend;
  TensorTable table;
  bool random = false;
  uint64_t seed = 0;
  double stddev = 0;
};

struct Loaded {
  std::unique_ptr<Model> model;
  DeviceInfo device;
  int64_t parameters = 0;
  std::string fingerprint;
  std::vector<std::string> warnings;
  std::vector<std::string> unused;
};

// What the loader's threads last said; JavaScript looks at it when woken.
struct Progress {
  std::mutex mutex;
  int64_t loaded = 0;
  int64_t total = 0;
  std::string file;
  bool fresh = false;
  std::chrono::steady_clock::time_point last{};
};

uint64_t read_uint64(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBigInt()) wrong_type(name, "a bigint");
  bool lossless = false;
  const uint64_t number = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) wrong_type(name, "an unsigned 64-bit integer");
  return number;
}

ModelConfig read_config(const Napi::Object& object) {
  ModelConfig config;
  config.family = read_string(object, "family");
  config.layers = read_int(object, "layers");
  config.heads = read_int(object, "heads");
  config.hidden_size = read_int(object, "hiddenSize");
  config.inner_size = read_int(object, "innerSize");
  config.context_size = read_int(object, "contextSize");
  config.vocab_size = read_int(object, "vocabSize");
  config.layer_norm_epsilon = read_number(object, "layerNormEpsilon");
  config.gelu_tanh = read_bool(object, "geluTanh");
  config.scale_attention = read_bool(object, "scaleAttention");
  config.tie_word_embeddings = read_bool(object, "tieWordEmbeddings");
  return config;
}

std::vector<int64_t> read_ints(const Napi::Object& object, const char* name) {
  const Napi::Array array = read_array(object, name);
  std::vector<int64_t> values;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value value = array.Get(i);
    if (!value.IsNumber()) wrong_type(name, "an array of numbers");
    values.push_back(to_int64(value.As<Napi::Number>().DoubleValue(), name));
  }
  return values;
}

TensorType type_of(const std::string& name) {
  if (name == "F32") return TensorType::kF32;
  if (name == "F16") return TensorType::kF16;
  if (name == "BF16") return TensorType::kBf16;
  return TensorType::kOther;
}

TensorInfo read_tensor(const Napi::Object& object) {
  TensorInfo tensor;
  tensor.name = read_string(object, "name");
  tensor.type_name = read_string(object, "dtype");
  tensor.type = type_of(tensor.type_name);
  tensor.shape = read_ints(object, "shape");
  tensor.strides = read_ints(object, "strides");
  tensor.storage = read_int(object, "storageId");
  tensor.file = read_int32(object, "file");
  tensor.offset_bytes = read_int(object, "offset");
  return tensor;
}

TensorTable read_table(const Napi::Object& object) {
  TensorTable table;
  const Napi::Array files = read_array(object, "files");
  for (uint32_t i = 0; i < files.Length(); ++i) {
    const Napi::Object file = object_at(files, i, "files");
    FileIdentity identity;
    identity.path = read_string(file, "path");
    identity.size_bytes = read_int(file, "size");
    identity.mtime_ns = static_cast<int64_t>(read_uint64(file, "mtimeNs"));
    identity.device = read_uint64(file, "dev");
    identity.inode = read_uint64(file, "ino");
    table.files.push_back(std::move(identity));
  }
  const Napi::Array tensors = read_array(object, "tensors");
  for (uint32_t i = 0; i < tensors.Length(); ++i) {
    table.tensors.push_back(read_tensor(object_at(tensors, i, "tensors")));
  }
  const Napi::Array storages = read_array(object, "storages");
  for (uint32_t i = 0; i < storages.Length(); ++i) {
    const Napi::Object item = object_at(storages, i, "storages");
    StorageInfo storage;
    storage.file = read_int32(item, "file");
    storage.offset_bytes = read_int(item, "offset");
    storage.size_bytes = static_cast<size_t>(read_int(item, "bytes"));
    storage.crc32 = static_cast<uint32_t>(read_int(item, "crc32"));
    table.storages.push_back(storage);
  }
  return table;
}

LoadPlan read_plan(const Napi::Object& object) {
  LoadPlan plan;
  plan.config = read_config(read_object(object, "config"));
  plan.backend.device = read_string(object, "device");
  plan.backend.precision =
      read_string(object, "precision") == "fp32" ? Precision::kFp32 : Precision::kBf16;
  plan.backend.threads = read_int(object, "threads");
  plan.backend.needed_bytes = read_int(object, "neededBytes");
  const Napi::Value random = object.Get("random");
  plan.random = random.IsObject();
  if (plan.random) {
    plan.seed = static_cast<uint64_t>(read_int(random.As<Napi::Object>(), "seed"));
    plan.stddev = read_number(random.As<Napi::Object>(), "stddev");
  } else {
    plan.table = read_table(read_object(object, "table"));
  }
  return plan;
}

Loaded run_plan(LoadPlan& plan, LoadControl control) {
  Loaded loaded;
  std::unique_ptr<Ops> ops = make_ops(plan.backend);
  loaded.device = ops->info();
  if (plan.backend.threads > 0) control.threads = plan.backend.threads;
  const std::unique_ptr<TensorSource> source =
      plan.random ? make_random_source(plan.seed, plan.stddev, std::move(control))
                  : make_file_source(std::move(plan.table), std::move(control));
  loaded.model = make_model(plan.config, std::move(ops), *source);
  loaded.parameters = loaded.model->parameter_count();
  loaded.fingerprint = source->fingerprint();
  loaded.warnings = source->warnings();
  loaded.unused = source->unused();
  return loaded;
}

EngineOptions read_engine_options(const Napi::Object& object) {
  EngineOptions options;
  options.context_size = read_int(object, "contextSize");
  options.max_sequences = read_int(object, "maxSequences");
  options.kv_blocks = read_int(object, "kvBlocks");
  options.max_queue = read_int(object, "maxQueue");
  options.prefix_cache = read_bool(object, "prefixCache");
  options.step_ms = kStepMs;
  return options;
}

Napi::Object to_device(Napi::Env env, const DeviceInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", info.kind);
  object.Set("name", info.name);
  object.Set("isa", info.isa);
  object.Set("index", static_cast<double>(info.index));
  object.Set("reason", info.reason);
  object.Set("precision", info.precision == Precision::kFp32 ? "fp32" : "bf16");
  object.Set("blockTokens", static_cast<double>(info.block_tokens));
  return object;
}

Napi::Array to_strings(Napi::Env env, const std::vector<std::string>& texts) {
  const Napi::Array array = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); ++i) array.Set(i, Napi::String::New(env, texts[i]));
  return array;
}

// start(tokenizer, options, onEvents): a promise of the running engine. Once.
Napi::Value start_engine(const Napi::CallbackInfo& info, const std::shared_ptr<Loaded>& loaded) {
  return guard(info.Env(), [&] {
    if (loaded->model == nullptr) fail(Code::kInternal, "binding: these weights are gone");
    if (!info[1].IsObject() || !info[2].IsFunction()) wrong_type("arguments of start", "right");
    std::shared_ptr<const Tokenizer> tokenizer;
    if (info[0].IsObject()) tokenizer = unwrap_tokenizer(info[0]);
    return EngineHost::start(info.Env(), std::move(loaded->model), std::move(tokenizer),
                             read_engine_options(info[1].As<Napi::Object>()),
                             info[2].As<Napi::Function>());
  });
}

// dispose(): frees the weights on a thread of its own.
Napi::Value free_weights(const Napi::CallbackInfo& info, const std::shared_ptr<Loaded>& loaded) {
  return guard(info.Env(), [&] {
    const auto model = std::make_shared<std::unique_ptr<Model>>(std::move(loaded->model));
    return start_job(info.Env(), "polylm:free", [&](const Notify&) {
      JobSteps steps;
      steps.work = [model] { model->reset(); };
      return steps;
    });
  });
}

Napi::Value to_weights(Napi::Env env, const std::shared_ptr<Loaded>& loaded) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("device", to_device(env, loaded->device));
  object.Set("parameters", static_cast<double>(loaded->parameters));
  object.Set("fingerprint", loaded->fingerprint);
  object.Set("warnings", to_strings(env, loaded->warnings));
  object.Set("unused", to_strings(env, loaded->unused));
  object.Set("start", Napi::Function::New(env, [loaded](const Napi::CallbackInfo& info) {
               return start_engine(info, loaded);
             }));
  object.Set("dispose", Napi::Function::New(env, [loaded](const Napi::CallbackInfo& info) {
               return free_weights(info, loaded);
             }));
  return object;
}

LoadControl make_control(const std::shared_ptr<Progress>& progress,
                         const std::shared_ptr<std::atomic<bool>>& cancel, const Notify& notify) {
  LoadControl control;
  control.cancel = cancel;
  control.progress = [progress, notify](int64_t loaded, int64_t total, const std::string& file) {
    const std::lock_guard<std::mutex> lock(progress->mutex);
    progress->loaded = loaded;
    progress->total = total;
    progress->file = file;
    progress->fresh = true;
    const auto now = std::chrono::steady_clock::now();
    if (loaded < total && now - progress->last < kProgressInterval) return;
    progress->last = now;
    notify();
  };
  return control;
}

void report(Napi::Env env, Progress& progress, const Napi::Function& on_progress) {
  double loaded = 0;
  double total = 0;
  std::string file;
  {
    const std::lock_guard<std::mutex> lock(progress.mutex);
    if (!progress.fresh) return;
    progress.fresh = false;
    loaded = static_cast<double>(progress.loaded);
    total = static_cast<double>(progress.total);
    file = progress.file;
  }
  on_progress.Call({Napi::Number::New(env, loaded), Napi::Number::New(env, total),
                    Napi::String::New(env, file)});
}

}  // namespace

Napi::Value load_weights(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    if (!info[0].IsObject() || !info[1].IsFunction()) wrong_type("arguments of load", "right");
    const auto plan = std::make_shared<LoadPlan>(read_plan(info[0].As<Napi::Object>()));
    const auto on_progress = std::make_shared<Napi::FunctionReference>(
        Napi::Persistent(info[1].As<Napi::Function>()));
    const auto cancel = std::make_shared<std::atomic<bool>>(false);
    const auto loaded = std::make_shared<Loaded>();
    const Napi::Value promise = start_job(env, "polylm:load", [&](const Notify& notify) {
      const auto progress = std::make_shared<Progress>();
      JobSteps steps;
      steps.work = [plan, loaded, control = make_control(progress, cancel, notify)] {
        *loaded = run_plan(*plan, control);
      };
      steps.result = [loaded](Napi::Env e) { return to_weights(e, loaded); };
      steps.stop = [cancel] { cancel->store(true); };
      steps.progress = [progress, on_progress](Napi::Env e) {
        report(e, *progress, on_progress->Value());
      };
      return steps;
    });
    Napi::Object handle = Napi::Object::New(env);
    handle.Set("promise", promise);
    handle.Set("cancel", Napi::Function::New(env, [cancel](const Napi::CallbackInfo& call) {
                 cancel->store(true);
                 return call.Env().Undefined();
               }));
    return handle;
  });
}

}  // namespace polylm
