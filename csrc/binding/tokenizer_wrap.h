// tokenizer_wrap.h: the tokenizer as a JavaScript object: createTokenizer(tables) indexes the
// vocabulary on a thread of its own; encode and decode are synchronous. lib/tokenizer gives the
// functions their types. Not here: reading tokenizer files (lib/tokenizer).
#pragma once

#include <napi.h>

#include <memory>

namespace polylm {

class Tokenizer;

void init_tokenizer(Napi::Env env, Napi::Object exports);

// The tokenizer of an object that createTokenizer made; INTERNAL for any other value.
std::shared_ptr<const Tokenizer> unwrap_tokenizer(Napi::Value value);

}  // namespace polylm
