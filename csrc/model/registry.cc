// registry.cc: family name to constructor. A new family is one row here and one file beside it.
#include <utility>

#include "model/families.h"
#include "model/weights.h"
#include "platform/error.h"

namespace polylm {
namespace {

struct Family {
  const char* name;
  std::unique_ptr<Model> (*make)(const ModelConfig&, std::unique_ptr<Ops>, TensorSource&);
};
constexpr Family kFamilies[] = {{"gpt2", make_gpt2}};

}  // namespace

std::unique_ptr<Model> make_model(const ModelConfig& config, std::unique_ptr<Ops> ops,
                                  TensorSource& source) {
  check_config(config);
  std::string known;
  for (const Family& family : kFamilies) {
    if (config.family == family.name) return family.make(config, std::move(ops), source);
    known.append(known.empty() ? "" : ", ").append(family.name);
  }
  fail(Code::kUnsupportedModel,
       "model family " + quoted(config.family) + " is not supported, expected " + known);
}

}  // namespace polylm
