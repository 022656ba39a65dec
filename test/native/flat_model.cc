// flat_model.cc: see flat_model.h.
#include "flat_model.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "harness.h"
#include "platform/bf16.h"

namespace polylm::test {
namespace {

std::vector<char> read_file(const std::string& path) {
  std::vector<char> bytes;
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) skip(path + " is missing; npm test writes it (scripts/flatten-fixture.mjs)");
  char buffer[1 << 16];
  for (size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) {
    bytes.insert(bytes.end(), buffer, buffer + got);
  }
  std::fclose(file);
  return bytes;
}

template <class T>
T take(const std::vector<char>& bytes, size_t* at) {
  T value;
  std::memcpy(&value, bytes.data() + *at, sizeof value);
  *at += sizeof value;
  return value;
}

class FlatSource final : public TensorSource {
 public:
  explicit FlatSource(const std::map<std::string, FlatArray>& arrays) : arrays_(arrays) {}

  bool has(const std::string& name) const override { return find(name) != nullptr; }
  void resolve(std::vector<Parameter>& parameters, Precision) override {
    for (Parameter& p : parameters) {
      if (find(p.name) == nullptr) fail(Code::kWeightsMissing, p.name);
      p.format = WeightFormat::kBf16;
    }
  }
  void read(std::vector<Parameter>& parameters, Ops& ops) override {
    for (Parameter& p : parameters) {
      const std::vector<uint16_t>& data = find(p.name)->bf16;
      if (p.k == 0) {
        for (const uint16_t value : data) p.values.push_back(bf16_to_float(value));
        continue;
      }
      ops.pack_weight(p.weight, {.n0 = 0, .n_count = p.n, .k0 = 0, .k_count = p.k,
                                 .stride_n = p.conv1d ? 1 : p.k, .stride_k = p.conv1d ? p.n : 1,
                                 .bf16_data = data.data(), .fp32_data = nullptr});
    }
  }
  bool equal(const Parameter& a, const Parameter& b) override {
    return find(a.name)->bf16 == find(b.name)->bf16;
  }
  std::vector<std::string> unused() const override { return {}; }
  std::string fingerprint() const override { return ""; }
  const std::vector<std::string>& warnings() const override { return warnings_; }

 private:
  const FlatArray* find(const std::string& name) const {
    for (const char* prefix : {"tensor/transformer.", "tensor/"}) {
      const auto it = arrays_.find(prefix + name);
      if (it != arrays_.end()) return &it->second;
    }
    return nullptr;
  }
  const std::map<std::string, FlatArray>& arrays_;
  std::vector<std::string> warnings_;
};

}  // namespace

FlatModel FlatModel::open(const std::string& name) {
  const char* dir = std::getenv("POLYLM_FLAT");
  if (dir == nullptr) skip("POLYLM_FLAT is not set; npm test sets it");
  const std::vector<char> bytes = read_file(std::string(dir) + "/" + name + ".flat");
  FlatModel model;
  for (size_t at = 0; at < bytes.size();) {
    const auto name_bytes = take<uint32_t>(bytes, &at);
    std::string label(bytes.data() + at, name_bytes);
    at += name_bytes;
    const auto kind = take<uint8_t>(bytes, &at);
    FlatArray array;
    array.dims.resize(take<uint32_t>(bytes, &at));
    for (int64_t& dim : array.dims) dim = take<int64_t>(bytes, &at);
    const auto data_bytes = take<uint64_t>(bytes, &at);
    void* to = nullptr;
    if (kind == 0) {
      array.numbers.resize(data_bytes / 8);
      to = array.numbers.data();
    } else {
      array.bf16.resize(data_bytes / 2);
      to = array.bf16.data();
    }
    if (data_bytes > 0) std::memcpy(to, bytes.data() + at, data_bytes);
    at += data_bytes;
    model.arrays_.emplace(std::move(label), std::move(array));
  }
  return model;
}

const std::vector<double>& FlatModel::numbers(const std::string& name) const {
  const auto it = arrays_.find(name);
  if (it == arrays_.end()) fail(Code::kInternal, "the fixture has no " + name);
  return it->second.numbers;
}

std::vector<int32_t> FlatModel::ids(const std::string& name) const {
  std::vector<int32_t> out;
  for (const double value : numbers(name)) out.push_back(static_cast<int32_t>(value));
  return out;
}

int64_t FlatModel::length(const std::string& name) const {
  return has(name + "/length") ? static_cast<int64_t>(number(name + "/length")) : 0;
}

std::string FlatModel::text(const std::string& name) const {
  std::string out;
  for (const double value : numbers(name)) out.push_back(static_cast<char>(value));
  return out;
}

ModelConfig FlatModel::config() const {
  const auto get = [this](const char* name) {
    return static_cast<int64_t>(number(std::string("config/") + name));
  };
  ModelConfig c;
  c.family = text("config/model_type");
  c.layers = get("n_layer");
  c.heads = get("n_head");
  c.hidden_size = get("n_embd");
  c.inner_size = has("config/n_inner") ? get("n_inner") : 4 * c.hidden_size;
  c.context_size = get("n_positions");
  c.vocab_size = get("vocab_size");
  c.layer_norm_epsilon = number("config/layer_norm_epsilon");
  c.gelu_tanh = text("config/activation_function") != "gelu";
  c.scale_attention = get("scale_attn_weights") != 0;
  c.tie_word_embeddings =
      !has("config/tie_word_embeddings") || get("tie_word_embeddings") != 0;
  return c;
}

std::unique_ptr<TensorSource> FlatModel::source() const {
  return std::make_unique<FlatSource>(arrays_);
}

std::unique_ptr<Model> FlatModel::load(std::unique_ptr<Ops> ops) const {
  const std::unique_ptr<TensorSource> tensors = source();
  return make_model(config(), std::move(ops), *tensors);
}

}  // namespace polylm::test
