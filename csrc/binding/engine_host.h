// engine_host.h: an engine as JavaScript sees it: a plain object whose functions hold the host, so
// that there is no `this` to get wrong and nothing to use after a free. Owns the gate, packs
// events, counts pending requests (they keep the process alive), and ends the engine off the
// JavaScript thread.
// Trap: everything here is JavaScript-thread only, except what start() and dispose() run as jobs.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "binding/event_batch.h"
#include "binding/gate.h"
#include "engine/engine.h"

namespace polylm {

class EngineHost : public std::enable_shared_from_this<EngineHost> {
 public:
  // A promise of the object (NativeModel in lib/native.ts). Takes the model.
  static Napi::Value start(Napi::Env env, std::unique_ptr<Model> model,
                           std::shared_ptr<const Tokenizer> tokenizer,
                           const EngineOptions& options, const Napi::Function& on_events);
  EngineHost() = default;
  ~EngineHost();
  EngineHost(const EngineHost&) = delete;
  EngineHost& operator=(const EngineHost&) = delete;

 private:
  void open_gate(Napi::Env env);
  Napi::Object make_object(Napi::Env env);
  void deliver_waiting(Napi::Env env);
  void deliver(Napi::Env env, const std::vector<Event>& events);
  Engine& engine() const;               // throws DISPOSED
  const Tokenizer& tokenizer() const;   // throws TOKENIZER_MISSING

  Napi::Value submit(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value check(const Napi::CallbackInfo& info);
  Napi::Value tokenize(const Napi::CallbackInfo& info);
  Napi::Value tokenize_texts(const Napi::CallbackInfo& info);
  Napi::Value encode_now(const Napi::CallbackInfo& info);
  Napi::Value encode_text(const Napi::CallbackInfo& info);
  Napi::Value decode_ids(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value drain(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  void check_request(const Request& request) const;

  std::shared_ptr<Gate> gate_;
  std::shared_ptr<Engine> engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EngineStats last_stats_;  // after dispose
  Napi::FunctionReference on_events_;
  EventPacker packer_;
  std::vector<Event> undelivered_;
  int64_t pending_ = 0;
};

}  // namespace polylm
