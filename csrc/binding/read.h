// read.h: properties of JavaScript objects as C++ values. The objects were made by lib/*.ts, so a
// wrong type is a bug of ours: INTERNAL. Not here: the checks of what users gave
// (lib/option-reader.ts).
#pragma once

#include <napi.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "platform/error.h"

namespace polylm {

[[noreturn]] inline void wrong_type(const char* name, const char* expected) {
  fail(Code::kInternal, std::string("binding: ") + name + " is not " + expected);
}

inline double read_number(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) wrong_type(name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

inline int64_t to_int64(double value, const char* name) {
  constexpr double kExact = 9007199254740991.0;
  if (!(value >= -kExact && value <= kExact) || value != std::floor(value)) {
    wrong_type(name, "an exact integer");
  }
  return static_cast<int64_t>(value);
}

inline int64_t read_int(const Napi::Object& object, const char* name) {
  return to_int64(read_number(object, name), name);
}

inline int32_t read_int32(const Napi::Object& object, const char* name) {
  const int64_t value = read_int(object, name);
  if (value < INT32_MIN || value > INT32_MAX) wrong_type(name, "a 32-bit integer");
  return static_cast<int32_t>(value);
}

inline bool read_bool(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) wrong_type(name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

// A missing property gives `absent`.
inline bool read_bool_or(const Napi::Object& object, const char* name, bool absent) {
  return object.Get(name).IsUndefined() ? absent : read_bool(object, name);
}
inline int64_t read_int_or(const Napi::Object& object, const char* name, int64_t absent) {
  return object.Get(name).IsUndefined() ? absent : read_int(object, name);
}

inline std::string read_string(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) wrong_type(name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

inline Napi::Object read_object(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsObject()) wrong_type(name, "an object");
  return value.As<Napi::Object>();
}

inline Napi::Array read_array(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsArray()) wrong_type(name, "an array");
  return value.As<Napi::Array>();
}

inline Napi::Object object_at(const Napi::Array& array, uint32_t index, const char* name) {
  const Napi::Value value = array.Get(index);
  if (!value.IsObject()) wrong_type(name, "an array of objects");
  return value.As<Napi::Object>();
}

inline std::vector<int32_t> to_ids(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) {
    wrong_type(name, "an Int32Array");
  }
  const auto array = value.As<Napi::Int32Array>();
  if (array.ElementLength() == 0) return {};
  return {array.Data(), array.Data() + array.ElementLength()};
}

inline std::vector<double> to_doubles(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() ||
      value.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    wrong_type(name, "a Float64Array");
  }
  const auto array = value.As<Napi::Float64Array>();
  if (array.ElementLength() == 0) return {};
  return {array.Data(), array.Data() + array.ElementLength()};
}

// A typed array with a copy of `data`; external memory is forbidden in some hosts.
template <class Array, class T>
Array copy_array(Napi::Env env, const std::vector<T>& data) {
  Array array = Array::New(env, data.size());
  if (!data.empty()) std::memcpy(array.Data(), data.data(), data.size() * sizeof(T));
  return array;
}

}  // namespace polylm
