// families.h: one constructor per model family; registry.cc maps config.family to it.
#pragma once

#include <memory>

#include "model/model.h"

namespace polylm {

std::unique_ptr<Model> make_gpt2(const ModelConfig& config, std::unique_ptr<Ops> ops,
                                 TensorSource& source);

}  // namespace polylm
