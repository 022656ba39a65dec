// tokenizer_wrap.cc: see tokenizer_wrap.h. Text crosses as UTF-8; V8 writes U+FFFD for a lone
// surrogate, which is one UTF-16 unit as well, so offsets stay right.
#include "binding/tokenizer_wrap.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "binding/guard.h"
#include "binding/job.h"
#include "binding/read.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace polylm {
namespace {

constexpr napi_type_tag kTokenizerTag = {0x706f6c796c6d2d74, 0x6f6b656e697a6572};

// Container: a vector or, for bytes, a string; copied once.
template <class T, class Container = std::vector<T>>
Container read_typed(const Napi::Object& object, const char* name, napi_typedarray_type type) {
  const Napi::Value value = object.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    wrong_type(name, "a typed array of the right kind");
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  if (array.ElementLength() == 0) return {};
  return Container(array.Data(), array.Data() + array.ElementLength());
}

std::string read_bytes(const Napi::Object& object, const char* name) {
  return read_typed<uint8_t, std::string>(object, name, napi_uint8_array);
}

Compat read_compat(const Napi::Object& object) {
  const std::string name = read_string(object, "compat");
  if (name == "hf-4.31") return Compat::k431;
  if (name == "hf-4.36") return Compat::k436;
  if (name == "hf-4.55") return Compat::k455;
  wrong_type("compat", "a known version");
}

AddedToken read_added(const Napi::Object& object) {
  return {.content = read_string(object, "content"),
          .id = read_int32(object, "id"),
          .special = read_bool(object, "special"),
          .additional = read_bool(object, "additional"),
          .lstrip = read_bool(object, "lstrip"),
          .rstrip = read_bool(object, "rstrip")};
}

TokenizerTables read_tables(const Napi::Object& object) {
  TokenizerTables tables;
  tables.kind = read_string(object, "kind") == "bpe" ? ModelKind::kBpe : ModelKind::kUnigram;
  tables.blob = read_bytes(object, "blob");
  tables.piece_offsets = read_typed<uint32_t>(object, "offsets", napi_uint32_array);
  tables.scores = read_typed<float>(object, "scores", napi_float32_array);
  tables.types = read_typed<uint8_t>(object, "types", napi_uint8_array);
  tables.byte_fallback = read_bool(object, "byteFallback");
  tables.unk_surface = read_bytes(object, "unkSurface");
  tables.charsmap = read_bytes(object, "charsmap");
  tables.add_dummy_prefix = read_bool(object, "addDummyPrefix");
  tables.remove_extra_whitespaces = read_bool(object, "removeExtraWhitespaces");
  tables.escape_whitespaces = read_bool(object, "escapeWhitespaces");
  tables.treat_whitespace_as_suffix = read_bool(object, "treatWhitespaceAsSuffix");
  const Napi::Array added = read_array(object, "added");
  for (uint32_t i = 0; i < added.Length(); ++i) {
    tables.added.push_back(read_added(object_at(added, i, "added")));
  }
  tables.unk_id = read_int32(object, "unkId");
  tables.bos_id = read_int32(object, "bosId");
  tables.eos_id = read_int32(object, "eosId");
  tables.pad_id = read_int32(object, "padId");
  tables.add_bos = read_bool(object, "addBos");
  tables.add_eos = read_bool(object, "addEos");
  tables.legacy = read_bool(object, "legacy");
  tables.add_prefix_space = read_bool(object, "addPrefixSpace");
  tables.compat = read_compat(object);
  tables.id_limit = read_int32(object, "idLimit");
  return tables;
}

std::string to_text(const Napi::Value& value) {
  if (!value.IsString()) wrong_type("text", "a string");
  return value.As<Napi::String>().Utf8Value();
}

bool to_bool(const Napi::Value& value, const char* name) {
  if (!value.IsBoolean()) wrong_type(name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

// (text, addSpecialTokens, parseSpecial)
EncodeOptions to_options(const Napi::CallbackInfo& info) {
  return {.add_special_tokens = to_bool(info[1], "addSpecialTokens"),
          .parse_special = to_bool(info[2], "parseSpecial")};
}

int32_t to_id(const Napi::Value& value) {
  if (!value.IsNumber()) wrong_type("id", "a number");
  return value.As<Napi::Number>().Int32Value();
}

// The texts of the ids from `first` on in one string, which crosses in one piece: where each ends
// in UTF-16 units, and for those that are only a part of a character (id, length, bytes...).
Napi::Object surfaces(Napi::Env env, const Tokenizer& tokenizer, int32_t first, int32_t count) {
  std::string all;
  std::vector<uint32_t> ends;
  std::vector<int32_t> partial;
  for (int32_t id = first; id < first + count; ++id) {
    const std::string text = tokenizer.surface(id);
    all += to_valid_utf8(text);
    ends.push_back(static_cast<uint32_t>(all.size()));
    if (is_valid_utf8(text)) continue;
    partial.push_back(id);
    partial.push_back(static_cast<int32_t>(text.size()));
    for (const char byte : text) partial.push_back(static_cast<uint8_t>(byte));
  }
  const std::vector<uint32_t> positions = utf16_positions(all);
  for (uint32_t& end : ends) end = positions[end];
  Napi::Object object = Napi::Object::New(env);
  object.Set("text", Napi::String::New(env, all));
  object.Set("ends", copy_array<Napi::Uint32Array>(env, ends));
  object.Set("partial", copy_array<Napi::Int32Array>(env, partial));
  return object;
}

// { push, finish } around one decoder.
Napi::Object stream_object(Napi::Env env, StreamDecoder decoder) {
  const auto shared = std::make_shared<StreamDecoder>(std::move(decoder));
  Napi::Object object = Napi::Object::New(env);
  const auto push = [shared](const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return Napi::String::New(info.Env(), shared->push(to_id(info[0])));
    });
  };
  const auto finish = [shared](const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] { return Napi::String::New(info.Env(), shared->finish()); });
  };
  object.Set("push", Napi::Function::New(env, push, "push"));
  object.Set("finish", Napi::Function::New(env, finish, "finish"));
  return object;
}

class TokenizerWrap : public Napi::ObjectWrap<TokenizerWrap> {
 public:
  using Held = std::shared_ptr<const Tokenizer>;

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeTokenizer",
                       {InstanceMethod<&TokenizerWrap::encode>("encode"),
                        InstanceMethod<&TokenizerWrap::encode_with_offsets>("encodeWithOffsets"),
                        InstanceMethod<&TokenizerWrap::count>("count"),
                        InstanceMethod<&TokenizerWrap::decode>("decode"),
                        InstanceMethod<&TokenizerWrap::stream>("createStreamDecoder"),
                        InstanceMethod<&TokenizerWrap::encode_raw>("encodeRaw"),
                        InstanceMethod<&TokenizerWrap::decode_raw>("decodeRaw"),
                        InstanceMethod<&TokenizerWrap::piece>("piece"),
                        InstanceMethod<&TokenizerWrap::find>("find"),
                        InstanceMethod<&TokenizerWrap::texts>("texts"),
                        InstanceMethod<&TokenizerWrap::is_special>("isSpecial"),
                        InstanceAccessor<&TokenizerWrap::bytes_per_token>("bytesPerToken"),
                        InstanceAccessor<&TokenizerWrap::vocab_size>("vocabSize"),
                        InstanceAccessor<&TokenizerWrap::id_limit>("idLimit")});
  }

  // Constructed from C++ only, with an External that points to a Held.
  explicit TokenizerWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TokenizerWrap>(info) {
    guard(info.Env(), [&] {
      if (!info[0].IsExternal()) wrong_type("the tokenizer", "made by createTokenizer");
      held_ = *info[0].As<Napi::External<Held>>().Data();
      info.This().As<Napi::Object>().TypeTag(&kTokenizerTag);
      return info.Env().Undefined();
    });
  }

  const Held& held() const { return held_; }

 private:
  Napi::Value encode(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return copy_array<Napi::Int32Array>(info.Env(),
                                          held_->encode(to_text(info[0]), to_options(info)));
    });
  }

  Napi::Value encode_with_offsets(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      const Encoding encoding = held_->encode_with_offsets(to_text(info[0]), to_options(info));
      Napi::Object object = Napi::Object::New(info.Env());
      object.Set("ids", copy_array<Napi::Int32Array>(info.Env(), encoding.ids));
      object.Set("offsets", copy_array<Napi::Uint32Array>(info.Env(), encoding.offsets));
      return object;
    });
  }

  Napi::Value count(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      const size_t ids = held_->encode(to_text(info[0]), to_options(info)).size();
      return Napi::Number::New(info.Env(), static_cast<double>(ids));
    });
  }

  Napi::Value decode(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      const std::vector<int32_t> ids = to_ids(info[0], "ids");
      return Napi::String::New(info.Env(),
                               held_->decode(ids.data(), static_cast<int64_t>(ids.size()),
                                             to_bool(info[1], "skipSpecialTokens")));
    });
  }

  // (skipSpecialTokens, prompt)
  Napi::Value stream(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      StreamDecoder decoder(held_, to_bool(info[0], "skipSpecialTokens"));
      const std::vector<int32_t> prompt = to_ids(info[1], "prompt");
      decoder.seed(prompt.data(), static_cast<int64_t>(prompt.size()));
      return stream_object(info.Env(), std::move(decoder));
    });
  }

  Napi::Value encode_raw(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return copy_array<Napi::Int32Array>(info.Env(), held_->encode_raw(to_text(info[0])));
    });
  }

  Napi::Value decode_raw(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      const std::vector<int32_t> ids = to_ids(info[0], "ids");
      return Napi::String::New(info.Env(),
                               held_->decode_raw(ids.data(), static_cast<int64_t>(ids.size())));
    });
  }

  Napi::Value piece(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return Napi::String::New(info.Env(), std::string(held_->piece(to_id(info[0]))));
    });
  }

  Napi::Value find(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return Napi::Number::New(info.Env(), held_->find(to_text(info[0])));
    });
  }

  // (first, count)
  Napi::Value texts(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      const int32_t first = std::clamp(to_id(info[0]), 0, held_->id_limit());
      const int32_t count = std::clamp(to_id(info[1]), 0, held_->id_limit() - first);
      return surfaces(info.Env(), *held_, first, count);
    });
  }

  Napi::Value is_special(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return Napi::Boolean::New(info.Env(), held_->is_special(to_id(info[0])));
    });
  }

  Napi::Value bytes_per_token(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      return Napi::Number::New(info.Env(), static_cast<double>(held_->bytes_per_token()));
    });
  }
  Napi::Value vocab_size(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] { return Napi::Number::New(info.Env(), held_->vocab_size()); });
  }

  Napi::Value id_limit(const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] { return Napi::Number::New(info.Env(), held_->id_limit()); });
  }

  Held held_;
};

// The class, kept by the function that needs it; never released before the environment ends.
std::shared_ptr<Napi::FunctionReference> keep(const Napi::Function& constructor) {
  auto reference = std::make_shared<Napi::FunctionReference>(Napi::Persistent(constructor));
  reference->SuppressDestruct();
  return reference;
}

}  // namespace

void init_tokenizer(Napi::Env env, Napi::Object exports) {
  const auto constructor = keep(TokenizerWrap::define(env));
  const auto create = [constructor](const Napi::CallbackInfo& info) {
    return guard(info.Env(), [&] {
      if (!info[0].IsObject()) wrong_type("tables", "an object");
      const auto tables =
          std::make_shared<TokenizerTables>(read_tables(info[0].As<Napi::Object>()));
      return start_job(info.Env(), "polylm:tokenizer", [&](const Notify&) {
        const auto made = std::make_shared<TokenizerWrap::Held>();
        JobSteps steps;
        steps.work = [tables, made] { *made = Tokenizer::create(std::move(*tables)); };
        steps.result = [constructor, made](Napi::Env e) {
          return Napi::Value(
              constructor->New({Napi::External<TokenizerWrap::Held>::New(e, made.get())}));
        };
        return steps;
      });
    });
  };
  exports.Set("createTokenizer", Napi::Function::New(env, create, "createTokenizer"));
}

std::shared_ptr<const Tokenizer> unwrap_tokenizer(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTokenizerTag)) {
    wrong_type("the tokenizer", "made by createTokenizer");
  }
  return TokenizerWrap::Unwrap(value.As<Napi::Object>())->held();
}

}  // namespace polylm
