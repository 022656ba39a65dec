// event_batch.cc: packing of events and of results. Copies; nothing here outlives the call.
#include "binding/event_batch.h"

#include <algorithm>
#include <string>

#include "binding/guard.h"
#include "binding/read.h"
#include "text/utf8.h"

namespace polylm {
namespace {

double number(int64_t value) { return static_cast<double>(value); }

uint32_t position_of(const std::vector<uint32_t>& positions, int32_t byte) {
  const size_t index = byte < 0 ? 0 : static_cast<size_t>(byte);
  return positions[std::min(index, positions.size() - 1)];
}

// id, logprob, start, end, alternatives, (id, logprob)*
void pack_token(const TokenInfo& token, const std::vector<uint32_t>& positions,
                std::vector<double>* numbers) {
  numbers->push_back(token.id);
  numbers->push_back(static_cast<double>(token.logprob));
  numbers->push_back(position_of(positions, token.text_begin));
  numbers->push_back(position_of(positions, token.text_end));
  numbers->push_back(static_cast<double>(token.top.size()));
  for (const TokenAlternative& other : token.top) {
    numbers->push_back(other.id);
    numbers->push_back(static_cast<double>(other.logprob));
  }
}

Napi::Float64Array pack_tokens(Napi::Env env, const std::vector<TokenInfo>& tokens,
                               const std::string& text) {
  std::vector<double> numbers;
  const std::vector<uint32_t> positions = utf16_positions(text);
  for (const TokenInfo& token : tokens) pack_token(token, positions, &numbers);
  return copy_array<Napi::Float64Array>(env, numbers);
}

Napi::Object to_output(Napi::Env env, const OutputResult& output) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("text", Napi::String::New(env, output.text));
  object.Set("tokens", copy_array<Napi::Int32Array>(env, output.tokens));
  object.Set("score", output.score);
  object.Set("finishReason", static_cast<double>(output.finish_reason));
  object.Set("stoppedByToken", output.stopped_by_token);
  object.Set("stoppedByString", output.stopped_by_string);
  object.Set("logprobs", pack_tokens(env, output.logprobs, output.text));
  return object;
}

Napi::Array to_array(Napi::Env env, std::initializer_list<double> values) {
  const Napi::Array array = Napi::Array::New(env, values.size());
  uint32_t i = 0;
  for (const double value : values) array.Set(i++, value);
  return array;
}

Napi::Object to_result(Napi::Env env, const RequestResult& result) {
  Napi::Object object = Napi::Object::New(env);
  const Napi::Array outputs = Napi::Array::New(env, result.outputs.size());
  for (uint32_t i = 0; i < result.outputs.size(); ++i) {
    outputs.Set(i, to_output(env, result.outputs[i]));
  }
  object.Set("outputs", outputs);
  std::vector<double> scored;
  std::vector<uint8_t> greedy;
  const std::vector<uint32_t> nowhere{0};  // scored tokens have no text
  for (const ScoredToken& token : result.scored) {
    pack_token(token.token, nowhere, &scored);
    greedy.push_back(token.is_greedy ? 1 : 0);
  }
  object.Set("scored", copy_array<Napi::Float64Array>(env, scored));
  object.Set("greedy", copy_array<Napi::Uint8Array>(env, greedy));
  object.Set("promptIds", copy_array<Napi::Int32Array>(env, result.prompt_ids));
  object.Set("logits", copy_array<Napi::Float32Array>(env, result.logits));
  object.Set("logitsRows", number(result.logits_rows));
  const Usage& usage = result.usage;
  object.Set("usage", to_array(env, {number(usage.prompt_tokens), number(usage.completion_tokens),
                                     number(usage.cached_tokens), number(usage.truncated_tokens)}));
  const Timings& timings = result.timings;
  object.Set("timings", to_array(env, {timings.queue_ms, timings.prefill_ms,
                                       timings.time_to_first_token_ms, timings.decode_ms}));
  object.Set("seed", static_cast<double>(result.seed));
  return object;
}

}  // namespace

void EventPacker::track(uint64_t request, int64_t outputs) {
  tracked_[request].assign(static_cast<size_t>(outputs), Positions{0});
}

// Tokens are packed for requests that asked for log-probabilities, which are the tracked ones.
void EventPacker::pack_delta(const Event& event, std::vector<double>* numbers,
                             std::string* text) {
  numbers->push_back(event.output);
  numbers->push_back(static_cast<double>(event.text.size()));
  text->append(event.text);
  const auto found = tracked_.find(event.request);
  if (found == tracked_.end() || static_cast<size_t>(event.output) >= found->second.size()) {
    numbers->push_back(0);
    return;
  }
  numbers->push_back(static_cast<double>(event.tokens.size()));
  Positions& positions = found->second[static_cast<size_t>(event.output)];
  const uint32_t base = positions.back();
  grown_.push_back({&positions, positions.size()});
  const std::vector<uint32_t> more = utf16_positions(event.text);
  for (size_t i = 1; i < more.size(); ++i) positions.push_back(base + more[i]);
  for (const TokenInfo& token : event.tokens) pack_token(token, positions, numbers);
}

// A token that adds no text says nothing to a caller who gets no tokens.
bool EventPacker::says_nothing(const Event& event) const {
  return event.kind == EventKind::kDelta && event.text.empty() && !tracked_.contains(event.request);
}

void EventPacker::pack(Napi::Env env, const Event& event, std::vector<double>* numbers,
                       std::string* text, const Napi::Array& objects) {
  numbers->push_back(static_cast<double>(event.request));
  numbers->push_back(static_cast<double>(event.kind));
  switch (event.kind) {
    case EventKind::kAdmitted:
      break;
    case EventKind::kPrefill:
      numbers->push_back(number(event.done));
      numbers->push_back(number(event.total));
      break;
    case EventKind::kDelta:
      pack_delta(event, numbers, text);
      break;
    case EventKind::kFinished:
      numbers->push_back(objects.Length());
      objects.Set(objects.Length(), to_result(env, *event.result));
      break;
    case EventKind::kFailed:
      numbers->push_back(objects.Length());
      objects.Set(objects.Length(), to_js_error(env, event.error.value()).Value());
      break;
  }
}

int64_t EventPacker::deliver(Napi::Env env, const std::vector<Event>& events,
                             const Napi::Function& on_events) {
  if (events.empty()) return 0;
  std::vector<double> numbers;
  std::string text;
  const Napi::Array objects = Napi::Array::New(env);
  Napi::Uint8Array bytes;
  Napi::Float64Array packed;
  grown_.clear();
  try {
    for (const Event& event : events) {
      if (!says_nothing(event)) pack(env, event, &numbers, &text, objects);
    }
    if (numbers.empty()) return 0;
    bytes = Napi::Uint8Array::New(env, text.size());
    if (!text.empty()) std::memcpy(bytes.Data(), text.data(), text.size());
    packed = copy_array<Napi::Float64Array>(env, numbers);
  } catch (...) {
    undo();
    throw;
  }
  for (const Event& event : events) {
    const bool ended = event.kind == EventKind::kFinished || event.kind == EventKind::kFailed;
    if (ended) tracked_.erase(event.request);
  }
  const auto count = static_cast<int64_t>(objects.Length());
  on_events.Call({packed, bytes, objects});
  return count;
}

void EventPacker::undo() {
  for (size_t i = grown_.size(); i > 0; --i) grown_[i - 1].positions->resize(grown_[i - 1].before);
}

}  // namespace polylm
