// config.cc: the second check of a model's shape; the first was made where config.json was read.
#include "model/config.h"

#include <cmath>

#include "platform/error.h"

namespace polylm {
namespace {

constexpr int64_t kLayersMax = 512;
constexpr int64_t kHeadsMax = 512;
constexpr int64_t kHiddenMax = 65536;
constexpr int64_t kVocabMax = int64_t{1} << 20;
constexpr int64_t kContextMax = int64_t{1} << 20;

void check_range(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return;
  fail(Code::kConfigRange, std::string(name) + " is " + std::to_string(value) + ", expected " +
                               std::to_string(min) + ".." + std::to_string(max));
}

}  // namespace

void check_config(const ModelConfig& c) {
  check_range("n_layer", c.layers, 1, kLayersMax);
  check_range("n_head", c.heads, 1, kHeadsMax);
  check_range("n_embd", c.hidden_size, 1, kHiddenMax);
  check_range("n_inner", c.inner_size, 1, 4 * kHiddenMax);
  check_range("n_positions", c.context_size, 1, kContextMax);
  check_range("vocab_size", c.vocab_size, 1, kVocabMax);
  if (c.hidden_size % c.heads != 0) {
    fail(Code::kConfigConflict, "n_embd " + std::to_string(c.hidden_size) +
                                    " is not divisible by n_head " + std::to_string(c.heads));
  }
  if (c.head_size() % 8 != 0 || c.head_size() > 256) {
    fail(Code::kConfigUnsupported, "head size " + std::to_string(c.head_size()) +
                                       " is not supported, expected a multiple of 8 up to 256");
  }
  if (c.inner_size % 8 != 0) {
    fail(Code::kConfigUnsupported, "n_inner " + std::to_string(c.inner_size) +
                                       " is not supported, expected a multiple of 8");
  }
  if (!(std::isfinite(c.layer_norm_epsilon) && c.layer_norm_epsilon > 0 &&
        c.layer_norm_epsilon <= 1)) {
    fail(Code::kConfigRange, "layer_norm_epsilon is out of range, expected above 0 and at most 1");
  }
}

}  // namespace polylm
