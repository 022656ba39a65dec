// loader.h: weights from disk (or a random generator) into memory on a thread of their own, with
// progress and cancellation, as the JavaScript object NativeWeights (lib/native.ts). Not here:
// reading files (model/weights.cc), running the model (engine_host.h).
#pragma once

#include <napi.h>

namespace polylm {

// loadWeights(load, onProgress) -> { promise, cancel }
Napi::Value load_weights(const Napi::CallbackInfo& info);

}  // namespace polylm
