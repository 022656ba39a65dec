// request_reader.h: JavaScript objects to Request and SamplingParams, through the table of
// sampling_params.def. Not here: what is allowed (lib/generate-options.ts, check_params).
#pragma once

#include <napi.h>

#include "engine/request.h"

namespace polylm {

// Of a NativeParams (lib/native.ts).
SamplingParams read_params(const Napi::Object& object);
// Of a NativeRequest (lib/native.ts).
Request read_request(const Napi::Object& object);
// The rows of the table as [{name, type, min, max, default}].
Napi::Array describe_params(Napi::Env env);
// The rows of option_limits.def as {name: value}.
Napi::Object describe_limits(Napi::Env env);

}  // namespace polylm
