// config.h: the shape of a model, as TypeScript read it from config.json and the core checked it
// again. Not here: file formats. One struct for every family; a family checks what it uses.
#pragma once

#include <cstdint>
#include <string>

namespace polylm {

struct ModelConfig {
  std::string family;       // "gpt2"
  int64_t layers = 0;       // L
  int64_t heads = 0;        // H
  int64_t hidden_size = 0;  // C
  int64_t inner_size = 0;   // F
  int64_t context_size = 0;  // positions the checkpoint has
  int64_t vocab_size = 0;   // V
  double layer_norm_epsilon = 1e-5;
  bool gelu_tanh = true;     // false: the erf form
  bool scale_attention = true;  // scores / sqrt(D)
  bool tie_word_embeddings = true;

  int64_t head_size() const { return hidden_size / heads; }  // D
};

// Throws CONFIG_RANGE, CONFIG_CONFLICT or CONFIG_UNSUPPORTED (limits: reliability.md §5).
void check_config(const ModelConfig& config);

}  // namespace polylm
