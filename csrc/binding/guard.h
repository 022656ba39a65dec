// guard.h: the only place besides the engine's loop where C++ exceptions are caught: every exported
// function runs inside guard(), which turns any of them into a JavaScript error with code and hint.
// lib/native.ts rewraps those as PolyLMError. Trap: a Napi::Error (JavaScript threw) passes
// through.
#pragma once

#include <napi.h>

#include <string>

#include "platform/error.h"

namespace polylm {

// Error object {message, code, hint, fields} for a core error; the JavaScript side makes it a
// PolyLMError.
inline Napi::Error to_js_error(Napi::Env env, const Error& e) {
  Napi::Error error = Napi::Error::New(env, e.message());
  error.Value().Set("code", Napi::String::New(env, code_name(e.code())));
  if (!e.hint().empty()) error.Value().Set("hint", Napi::String::New(env, e.hint()));
  for (const ErrorField& field : e.fields()) {
    error.Value().Set(field.name, field.is_text
                                      ? Napi::Value(Napi::String::New(env, field.text))
                                      : Napi::Value(Napi::Number::New(env, field.number)));
  }
  return error;
}

template <class F>
Napi::Value guard(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, caught_error());
  }
}

}  // namespace polylm
