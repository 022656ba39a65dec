// engine_host.cc: the functions of a running engine and its end.
#include "binding/engine_host.h"

#include <new>
#include <string>
#include <utility>

#include "binding/guard.h"
#include "binding/job.h"
#include "binding/read.h"
#include "binding/request_reader.h"
#include "engine/decoder.h"
#include "engine/intake.h"
#include "text/tokenizer.h"

namespace polylm {
namespace {

Napi::Object argument(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) wrong_type("argument", "an object");
  return info[0].As<Napi::Object>();
}

Napi::Array to_strings(Napi::Env env, const std::vector<std::string>& texts) {
  const Napi::Array array = Napi::Array::New(env, texts.size());
  for (uint32_t i = 0; i < texts.size(); ++i) array.Set(i, Napi::String::New(env, texts[i]));
  return array;
}

const char* state_name(EngineState state) {
  switch (state) {
    case EngineState::kReady:
      return "ready";
    case EngineState::kDraining:
      return "draining";
    case EngineState::kFailed:
      return "failed";
    case EngineState::kDisposed:
      break;
  }
  return "disposed";
}

// Arguments 1 to 3 of the functions that encode text.
EncodeOptions encode_options(const Napi::CallbackInfo& info) {
  return {.add_special_tokens = info[1].ToBoolean(),
          .parse_special = info[2].ToBoolean(),
          .at_start = info[3].ToBoolean()};
}

Encoding encode_one(const Tokenizer& tokenizer, const std::string& text,
                    const EncodeOptions& options, bool with_offsets) {
  if (with_offsets) return tokenizer.encode_with_offsets(text, options);
  Encoding encoding;
  encoding.ids = tokenizer.encode(text, options);
  return encoding;
}

// { ids, offsets? }
Napi::Object to_encoding(Napi::Env env, const Encoding& encoding, bool with_offsets) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("ids", copy_array<Napi::Int32Array>(env, encoding.ids));
  if (with_offsets) object.Set("offsets", copy_array<Napi::Uint32Array>(env, encoding.offsets));
  return object;
}

Napi::Object to_stats(Napi::Env env, const EngineStats& stats, const DeviceMemory& memory) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("state", state_name(stats.state));
  object.Set("failure", stats.failure);
  object.Set("failureMessage", stats.failure_message);
  const auto set = [&](const char* name, int64_t value) {
    object.Set(name, static_cast<double>(value));
  };
  set("running", stats.running);
  set("waiting", stats.waiting);
  set("kvTokensUsed", stats.kv_tokens_used);
  set("kvTokensTotal", stats.kv_tokens_total);
  set("weightsBytes", memory.weights_bytes);
  set("kvBytes", memory.kv_bytes);
  set("workspaceBytes", memory.workspace_bytes);
  set("requests", stats.requests);
  set("rejected", stats.rejected);
  set("failed", stats.failed);
  set("aborted", stats.aborted);
  set("promptTokens", stats.prompt_tokens);
  set("cachedTokens", stats.cached_tokens);
  set("completionTokens", stats.completion_tokens);
  set("steps", stats.steps);
  object.Set("busyMs", stats.busy_ms);
  return object;
}

}  // namespace

Napi::Value EngineHost::start(Napi::Env env, std::unique_ptr<Model> model,
                              std::shared_ptr<const Tokenizer> tokenizer,
                              const EngineOptions& options, const Napi::Function& on_events) {
  const auto host = std::make_shared<EngineHost>();
  host->tokenizer_ = tokenizer;
  host->on_events_ = Napi::Persistent(on_events);
  host->open_gate(env);
  return start_job(env, "polylm:start", [&](const Notify&) {
    const auto held = std::make_shared<std::unique_ptr<Model>>(std::move(model));
    const std::weak_ptr<Gate> gate = host->gate_;
    JobSteps steps;
    steps.work = [host, held, gate, tokenizer, options] {
      host->engine_ = std::make_shared<Engine>(std::move(*held), tokenizer, options, [gate] {
        if (const auto open = gate.lock()) open->wake();
      });
    };
    steps.result = [host](Napi::Env e) { return Napi::Value(host->make_object(e)); };
    return steps;
  });
}

EngineHost::~EngineHost() {
  if (gate_ != nullptr) gate_->close();
}

void EngineHost::open_gate(Napi::Env env) {
  const std::weak_ptr<EngineHost> weak = weak_from_this();
  gate_ = Gate::open(
      env, "polylm:events",
      [weak](Napi::Env e) {
        const auto host = weak.lock();
        if (host == nullptr || host->engine_ == nullptr) return;
        host->deliver_waiting(e);
      },
      [weak] {
        const auto host = weak.lock();
        if (host == nullptr || host->engine_ == nullptr) return;
        host->engine_->close();
        host->engine_.reset();
        host->on_events_.Reset();
      });
}

// Without memory the events stay where they are and are tried again: whoever waits for one would
// otherwise wait for ever.
void EngineHost::deliver_waiting(Napi::Env env) {
  try {
    engine_->take_events(&undelivered_);
    deliver(env, undelivered_);
  } catch (const std::bad_alloc&) {
    gate_->wake();
    return;
  } catch (...) {
    undelivered_.clear();
    throw;
  }
  undelivered_.clear();
}

void EngineHost::deliver(Napi::Env env, const std::vector<Event>& events) {
  const int64_t ended = packer_.deliver(env, events, on_events_.Value());
  pending_ -= ended;
  if (ended > 0 && pending_ == 0) gate_->hold(false);
}

Engine& EngineHost::engine() const {
  if (engine_ == nullptr) fail(Code::kDisposed, "the model was disposed");
  return *engine_;
}

const Tokenizer& EngineHost::tokenizer() const {
  if (tokenizer_ == nullptr) {
    fail(Code::kTokenizerMissing, "the model directory has no tokenizer",
         "add the tokenizer files to the directory, or use token ids");
  }
  return *tokenizer_;
}

Napi::Object EngineHost::make_object(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (EngineHost::*function)(
                                             const Napi::CallbackInfo&)) {
    const auto call = [host = shared_from_this(), function](const Napi::CallbackInfo& info) {
      return guard(info.Env(), [&] { return (host.get()->*function)(info); });
    };
    object.Set(name, Napi::Function::New(env, call, name));
  };
  add("submit", &EngineHost::submit);
  add("cancel", &EngineHost::cancel);
  add("check", &EngineHost::check);
  add("tokenize", &EngineHost::tokenize);
  add("tokenizeTexts", &EngineHost::tokenize_texts);
  add("encodePrompt", &EngineHost::encode_now);
  add("encodeText", &EngineHost::encode_text);
  add("decodeIds", &EngineHost::decode_ids);
  add("stats", &EngineHost::stats);
  add("drain", &EngineHost::drain);
  add("dispose", &EngineHost::dispose);
  return object;
}

void EngineHost::check_request(const Request& request) const {
  if (request.kind != RequestKind::kGenerate) return;
  const EngineOptions& options = engine().options();
  check_params(request.params, engine().config().vocab_size, options.context_size,
               options.max_sequences, tokenizer_ != nullptr);
}

Napi::Value EngineHost::submit(const Napi::CallbackInfo& info) {
  Engine& target = engine();
  Request request = read_request(argument(info));
  check_request(request);
  const bool with_ranges = request.stream && request.params.logprobs >= 0;
  const int64_t outputs = request.params.n;
  const uint64_t id = target.submit(std::move(request));
  if (with_ranges) packer_.track(id, outputs);
  if (++pending_ == 1) gate_->hold(true);
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

Napi::Value EngineHost::cancel(const Napi::CallbackInfo& info) {
  const Napi::Value id = info[0];
  if (!id.IsNumber()) wrong_type("id", "a number");
  if (engine_ != nullptr) {
    engine_->cancel(static_cast<uint64_t>(to_int64(id.As<Napi::Number>().DoubleValue(), "id")));
  }
  return info.Env().Undefined();
}

// Throws what submit would throw about the options, and says what they do.
Napi::Value EngineHost::check(const Napi::CallbackInfo& info) {
  Request request;
  request.params = read_params(argument(info));
  check_request(request);
  const Explanation explanation = explain(request.params);
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("processors", to_strings(info.Env(), explanation.processors));
  object.Set("inert", to_strings(info.Env(), explanation.inert));
  return object;
}

// A promise of the ids of a request's prompt, joined on a thread of its own.
Napi::Value EngineHost::tokenize(const Napi::CallbackInfo& info) {
  const auto request = std::make_shared<Request>(read_request(argument(info)));
  return start_job(info.Env(), "polylm:tokenize", [&](const Notify&) {
    const auto ids = std::make_shared<std::vector<int32_t>>();
    JobSteps steps;
    steps.work = [request, ids, tokenizer = tokenizer_] {
      *ids = encode_prompt(*request, tokenizer.get());
    };
    steps.result = [ids](Napi::Env env) {
      return Napi::Value(copy_array<Napi::Int32Array>(env, *ids));
    };
    return steps;
  });
}

// (texts, addSpecialTokens, parseSpecial, atStart, withOffsets) -> promise of [{ ids, offsets? }]
Napi::Value EngineHost::tokenize_texts(const Napi::CallbackInfo& info) {
  if (!info[0].IsArray()) wrong_type("texts", "an array");
  const auto given = info[0].As<Napi::Array>();
  const auto texts = std::make_shared<std::vector<std::string>>();
  for (uint32_t i = 0; i < given.Length(); ++i) {
    const Napi::Value text = given.Get(i);
    if (!text.IsString()) wrong_type("texts", "an array of strings");
    texts->push_back(text.As<Napi::String>().Utf8Value());
  }
  const EncodeOptions options = encode_options(info);
  const bool with_offsets = info[4].ToBoolean();
  tokenizer();  // throws without one
  return start_job(info.Env(), "polylm:tokenize", [&](const Notify&) {
    const auto made = std::make_shared<std::vector<Encoding>>();
    JobSteps steps;
    steps.work = [texts, options, with_offsets, made, tokenizer = tokenizer_] {
      for (const std::string& text : *texts) {
        made->push_back(encode_one(*tokenizer, text, options, with_offsets));
      }
    };
    steps.result = [made, with_offsets](Napi::Env env) {
      const Napi::Array array = Napi::Array::New(env, made->size());
      for (uint32_t i = 0; i < made->size(); ++i) {
        array.Set(i, to_encoding(env, (*made)[i], with_offsets));
      }
      return Napi::Value(array);
    };
    return steps;
  });
}

Napi::Value EngineHost::encode_now(const Napi::CallbackInfo& info) {
  const Request request = read_request(argument(info));
  return copy_array<Napi::Int32Array>(info.Env(), encode_prompt(request, tokenizer_.get()));
}

// (text, addSpecialTokens, parseSpecial, atStart, withOffsets) -> { ids, offsets? }
Napi::Value EngineHost::encode_text(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) wrong_type("text", "a string");
  const std::string text = info[0].As<Napi::String>().Utf8Value();
  const bool with_offsets = info[4].ToBoolean();
  const Encoding encoding = encode_one(tokenizer(), text, encode_options(info), with_offsets);
  return to_encoding(env, encoding, with_offsets);
}

Napi::Value EngineHost::decode_ids(const Napi::CallbackInfo& info) {
  const std::vector<int32_t> ids = to_ids(info[0], "ids");
  const auto count = static_cast<int64_t>(ids.size());
  return Napi::String::New(info.Env(), tokenizer().decode(ids.data(), count, false));
}

Napi::Value EngineHost::stats(const Napi::CallbackInfo& info) {
  const bool open = engine_ != nullptr;
  Napi::Object object = open ? to_stats(info.Env(), engine_->stats(), engine_->memory())
                             : to_stats(info.Env(), last_stats_, DeviceMemory{});
  object.Set("wakeUps", static_cast<double>(gate_->wakes()));
  return object;
}

Napi::Value EngineHost::drain(const Napi::CallbackInfo& info) {
  engine().drain();
  return info.Env().Undefined();
}

Napi::Value EngineHost::dispose(const Napi::CallbackInfo& info) {
  return start_job(info.Env(), "polylm:dispose", [&](const Notify&) {
    const auto events = std::make_shared<std::vector<Event>>();
    const auto last = std::make_shared<EngineStats>();
    const auto held = std::make_shared<std::shared_ptr<Engine>>(std::move(engine_));
    engine_ = nullptr;
    last_stats_.state = EngineState::kDisposed;
    JobSteps steps;
    steps.work = [events, last, held] {
      if (*held == nullptr) return;
      (*held)->close();
      (*held)->take_events(events.get());
      *last = (*held)->stats();
      held->reset();  // frees the weights here, not on the JavaScript thread
    };
    steps.result = [host = shared_from_this(), events, last, held](Napi::Env env) -> Napi::Value {
      events->insert(events->begin(), host->undelivered_.begin(), host->undelivered_.end());
      host->undelivered_.clear();
      host->deliver(env, *events);
      if (last->requests > 0 || host->last_stats_.requests == 0) host->last_stats_ = *last;
      host->last_stats_.state = EngineState::kDisposed;
      host->gate_->close();
      return env.Undefined();
    };
    return steps;
  });
}

}  // namespace polylm
