// request_reader.cc: one function per JavaScript object of lib/native.ts.
#include "binding/request_reader.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "binding/read.h"

namespace polylm {
namespace {

void read_scalar(const Napi::Object& object, const char* name, int64_t* out) {
  *out = read_int(object, name);
}
void read_scalar(const Napi::Object& object, const char* name, double* out) {
  *out = read_number(object, name);
}
void read_scalar(const Napi::Object& object, const char* name, bool* out) {
  const Napi::Value value = object.Get(name);
  *out = value.IsNumber() ? read_number(object, name) != 0 : read_bool(object, name);
}

std::vector<std::vector<int32_t>> read_id_lists(const Napi::Object& object, const char* name) {
  const Napi::Array array = read_array(object, name);
  std::vector<std::vector<int32_t>> lists;
  lists.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) lists.push_back(to_ids(array.Get(i), name));
  return lists;
}

template <class E>
E read_enum(const Napi::Object& object, const char* name, int64_t count) {
  const int64_t value = read_int(object, name);
  if (value < 0 || value >= count) wrong_type(name, "a known value");
  return static_cast<E>(value);
}

PromptPart read_part(const Napi::Object& object) {
  PromptPart part;
  const Napi::Value ids = object.Get("ids");
  if (ids.IsUndefined()) {
    part.text = read_string(object, "text");
    part.parse_special = read_bool(object, "parseSpecial");
  } else {
    part.ids = to_ids(ids, "ids");
    part.is_control = read_bool(object, "control");
  }
  return part;
}

}  // namespace

SamplingParams read_params(const Napi::Object& object) {
  SamplingParams params;
#define ROW(name, js_name, type, min, max, value, meaning) \
  read_scalar(object, js_name, &params.name);
#include "engine/sampling_params.def"
#undef ROW
  params.early_stopping = read_enum<EarlyStopping>(object, "earlyStopping", 3);
  params.beam_scoring = read_enum<BeamScoring>(object, "beamScoring", 2);
  const Napi::Array stop = read_array(object, "stop");
  for (uint32_t i = 0; i < stop.Length(); ++i) {
    const Napi::Value text = stop.Get(i);
    if (!text.IsString()) wrong_type("stop", "an array of strings");
    params.stop.push_back(text.As<Napi::String>().Utf8Value());
  }
  params.stop_token_ids = to_ids(object.Get("stopTokenIds"), "stopTokenIds");
  std::vector<std::vector<int32_t>> bias_tokens = read_id_lists(object, "biasTokens");
  const std::vector<double> bias_values = to_doubles(object.Get("biasValues"), "biasValues");
  if (bias_tokens.size() != bias_values.size()) wrong_type("biasValues", "as long as biasTokens");
  for (size_t i = 0; i < bias_tokens.size(); ++i) {
    params.bias.push_back({std::move(bias_tokens[i]), static_cast<float>(bias_values[i])});
  }
  const std::vector<int32_t> biased = to_ids(object.Get("biasIds"), "biasIds");
  const std::vector<double> amounts = to_doubles(object.Get("biasAmounts"), "biasAmounts");
  if (biased.size() != amounts.size()) wrong_type("biasAmounts", "as long as biasIds");
  params.token_bias.reserve(biased.size());
  for (size_t i = 0; i < biased.size(); ++i) {
    params.token_bias.push_back({biased[i], static_cast<float>(amounts[i])});
  }
  params.allow_tokens = to_ids(object.Get("allowTokens"), "allowTokens");
  params.allow_choices = read_id_lists(object, "allowChoices");
  return params;
}

Request read_request(const Napi::Object& object) {
  Request request;
  request.kind = read_enum<RequestKind>(object, "kind", 3);
  const Napi::Array parts = read_array(object, "prompt");
  for (uint32_t i = 0; i < parts.Length(); ++i) {
    request.prompt.push_back(read_part(object_at(parts, i, "prompt")));
  }
  request.add_special_tokens = read_bool_or(object, "addSpecialTokens", true);
  request.max_tokens_given = read_bool_or(object, "maxTokensGiven", false);
  request.truncate_left = read_bool_or(object, "truncateLeft", false);
  request.batch = read_bool_or(object, "batch", false);
  request.stream = read_bool_or(object, "stream", false);
  request.return_on_abort = read_bool_or(object, "returnOnAbort", false);
  request.queue_timeout_ms = read_int_or(object, "queueTimeoutMs", -1);
  if (!object.Get("cacheSalt").IsUndefined()) {
    request.cache_salt = read_string(object, "cacheSalt");
  }
  if (!object.Get("caller").IsUndefined()) request.caller = read_string(object, "caller");
  if (request.kind == RequestKind::kGenerate) {
    request.params = read_params(read_object(object, "params"));
  }
  request.score_from = read_int_or(object, "scoreFrom", 0);
  request.score_top = read_int_or(object, "scoreTop", 0);
  const Napi::Value positions = object.Get("logitsPositions");
  if (!positions.IsUndefined()) {
    for (const double position : to_doubles(positions, "logitsPositions")) {
      request.logits_positions.push_back(to_int64(position, "logitsPositions"));
    }
  }
  return request;
}

Napi::Object describe_limits(Napi::Env env) {
  Napi::Object limits = Napi::Object::New(env);
#define LIMIT(name, js_name, value) limits.Set(js_name, static_cast<double>(value));
#include "engine/option_limits.def"
#undef LIMIT
  return limits;
}

Napi::Array describe_params(Napi::Env env) {
  const Napi::Array rows = Napi::Array::New(env);
  const auto add = [&](const char* name, const char* type, double min, double max, double value) {
    Napi::Object row = Napi::Object::New(env);
    row.Set("name", name);
    row.Set("type", type);
    row.Set("min", min);
    row.Set("max", max);
    row.Set("default", value);
    rows.Set(rows.Length(), row);
  };
#define TYPE_kInt "int"
#define TYPE_kReal "real"
#define TYPE_kBool "bool"
#define ROW(name, js_name, type, min, max, value, meaning) \
  add(js_name, TYPE_##type, static_cast<double>(min), static_cast<double>(max), \
      static_cast<double>(value));
#include "engine/sampling_params.def"
#undef ROW
#undef TYPE_kInt
#undef TYPE_kReal
#undef TYPE_kBool
  return rows;
}

}  // namespace polylm
