// gpt2.cc: the GPT-2 family (PolyLM): parameter names, loading order and the forward pass.
// Source: Radford et al. 2019; names as in Hugging Face's checkpoints, whose Conv1D layers store
// the transpose [in, out]. The residual stream is fp32 on every device.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "model/families.h"
#include "model/model.h"
#include "model/weights.h"
#include "platform/error.h"

namespace polylm {
namespace {

struct Norm {
  Vector weight, bias;  // [C]
};
struct Linear {
  Weight w;     // [N,K]
  Vector bias;  // [N]
};
struct Layer {
  Norm ln_1;
  Linear c_attn;  // [3C,C]
  Linear attn_c_proj;  // [C,C]
  Norm ln_2;
  Linear c_fc;  // [F,C]
  Linear mlp_c_proj;  // [C,F]
};

class Gpt2 final : public Model {
 public:
  Gpt2(ModelConfig config, std::unique_ptr<Ops> ops, TensorSource& source)
      : config_(std::move(config)), ops_(std::move(ops)) {
    load(source);
  }

  const ModelConfig& config() const override { return config_; }
  Ops& ops() override { return *ops_; }
  const Kv& kv() const override { return kv_; }
  int64_t parameter_count() const override { return parameter_count_; }

  void reserve(const StepLimits& limits, int64_t kv_blocks) override {
    const int64_t rows = limits.rows;
    x_ = ops_->make_act(rows, config_.hidden_size, ActKind::kResidual);
    h_ = ops_->make_act(rows, config_.hidden_size, ActKind::kInput);
    q_ = ops_->make_act(rows, config_.hidden_size, ActKind::kInput);
    a_ = ops_->make_act(rows, config_.hidden_size, ActKind::kInput);
    f_ = ops_->make_act(rows, config_.inner_size, ActKind::kInput);
    kv_ = ops_->make_kv({.layers = config_.layers, .heads = config_.heads,
                         .head_size = config_.head_size(), .blocks = kv_blocks});
    ops_->reserve(limits);
  }

  bool forward(const StepInputs& in, const SelectRows& select,
               const std::atomic<bool>& stop) override {
    const auto epsilon = static_cast<float>(config_.layer_norm_epsilon);
    const float q_scale =
        config_.scale_attention ? 1.0F / std::sqrt(static_cast<float>(config_.head_size())) : 1.0F;
    const Epilogue gelu = config_.gelu_tanh ? Epilogue::kGeluTanh : Epilogue::kGeluErf;
    Ops& ops = *ops_;
    ops.begin(in);
    ops.embed({.wte = wte_, .wpe = wpe_, .x = x_});  // x[T,C]
    for (int64_t l = 0; l < config_.layers; ++l) {
      if (stop.load(std::memory_order_relaxed)) return false;
      const Layer& w = layers_[static_cast<size_t>(l)];
      ops.norm({x_, w.ln_1.weight, w.ln_1.bias, epsilon, h_});                    // h[T,C] = LN(x)
      ops.qkv({h_, w.c_attn.w, w.c_attn.bias, kv_, l, q_scale, q_});              // q[T,C], K, V
      ops.attend({q_, kv_, l, a_});                                               // a[T,C]
      ops.linear({a_, w.attn_c_proj.w, w.attn_c_proj.bias, Epilogue::kAdd, x_});  // x += a·W + b
      ops.norm({x_, w.ln_2.weight, w.ln_2.bias, epsilon, h_});
      ops.linear({h_, w.c_fc.w, w.c_fc.bias, gelu, f_});                          // f[T,F]
      ops.linear({f_, w.mlp_c_proj.w, w.mlp_c_proj.bias, Epilogue::kAdd, x_});
    }
    ops.norm({x_, ln_f_.weight, ln_f_.bias, epsilon, h_});
    ops.select({h_, head_, select.rows, select.count});
    ops.submit();
    return true;
  }

 private:
  void load(TensorSource& source);

  ModelConfig config_;
  std::unique_ptr<Ops> ops_;
  int64_t parameter_count_ = 0;
  Weight wte_;   // [V,C]
  Weight wpe_;   // [P,C]
  Weight head_;  // [V,C], wte_ when tied
  Norm ln_f_;
  std::vector<Layer> layers_;
  Kv kv_;
  Act x_, h_, q_, a_, f_;
};

// The parameters in the order they are read, each with the place its handle goes to.
struct Slots {
  std::vector<Parameter> parameters;
  std::vector<Weight*> weights;  // null for vectors
  std::vector<Vector*> vectors;  // null for matrices

  void matrix(const std::string& name, int64_t n, int64_t k, bool conv1d, Weight* to) {
    parameters.push_back({.name = name, .n = n, .k = k, .conv1d = conv1d});
    weights.push_back(to);
    vectors.push_back(nullptr);
  }
  void vector(const std::string& name, int64_t n, Vector* to) {
    parameters.push_back({.name = name, .n = n});
    weights.push_back(nullptr);
    vectors.push_back(to);
  }
  void norm(const std::string& name, int64_t n, Norm* to) {
    vector(name + ".weight", n, &to->weight);
    vector(name + ".bias", n, &to->bias);
  }
  void conv1d(const std::string& name, int64_t n, int64_t k, Linear* to) {
    matrix(name + ".weight", n, k, true, &to->w);
    vector(name + ".bias", n, &to->bias);
  }
};

void list_layer(const ModelConfig& c, int64_t index, Layer* layer, Slots* slots) {
  const std::string h = "h." + std::to_string(index) + ".";
  slots->norm(h + "ln_1", c.hidden_size, &layer->ln_1);
  slots->conv1d(h + "attn.c_attn", 3 * c.hidden_size, c.hidden_size, &layer->c_attn);
  slots->conv1d(h + "attn.c_proj", c.hidden_size, c.hidden_size, &layer->attn_c_proj);
  slots->norm(h + "ln_2", c.hidden_size, &layer->ln_2);
  slots->conv1d(h + "mlp.c_fc", c.inner_size, c.hidden_size, &layer->c_fc);
  slots->conv1d(h + "mlp.c_proj", c.hidden_size, c.inner_size, &layer->mlp_c_proj);
}

void Gpt2::load(TensorSource& source) {
  const ModelConfig& c = config_;
  const bool tied = c.tie_word_embeddings;
  Slots slots;
  layers_.resize(static_cast<size_t>(c.layers));
  slots.matrix("wte.weight", c.vocab_size, c.hidden_size, false, &wte_);
  slots.matrix("wpe.weight", c.context_size, c.hidden_size, false, &wpe_);
  for (int64_t l = 0; l < c.layers; ++l) {
    list_layer(c, l, &layers_[static_cast<size_t>(l)], &slots);
  }
  slots.norm("ln_f", c.hidden_size, &ln_f_);
  if (!tied) slots.matrix("lm_head.weight", c.vocab_size, c.hidden_size, false, &head_);

  source.resolve(slots.parameters, ops_->info().precision);
  for (size_t i = 0; i < slots.parameters.size(); ++i) {
    Parameter& p = slots.parameters[i];
    parameter_count_ += p.n * (p.k == 0 ? 1 : p.k);
    if (slots.weights[i] == nullptr) continue;
    p.weight = ops_->make_weight(p.n, p.k, p.format);
    *slots.weights[i] = p.weight;
  }
  if (tied && source.has("lm_head.weight")) {
    const Parameter& wte = slots.parameters.front();
    std::vector<Parameter> head = {{.name = "lm_head.weight", .n = wte.n, .k = wte.k}};
    source.resolve(head, ops_->info().precision);
    if (!source.equal(wte, head.front())) {
      fail(Code::kWeightsConflict,
           "lm_head.weight differs from wte.weight, but the model ties them",
           "set \"tie_word_embeddings\": false in config.json if the head is meant to differ",
           {{"tensor", std::string("lm_head.weight")}});
    }
  }
  source.read(slots.parameters, *ops_);
  for (size_t i = 0; i < slots.parameters.size(); ++i) {
    if (slots.vectors[i] == nullptr) continue;
    const std::vector<float>& values = slots.parameters[i].values;
    *slots.vectors[i] = ops_->make_vector(values.data(), static_cast<int64_t>(values.size()));
  }
  if (tied) head_ = wte_;
}

}  // namespace

std::unique_ptr<Model> make_gpt2(const ModelConfig& config, std::unique_ptr<Ops> ops,
                                 TensorSource& source) {
  return std::make_unique<Gpt2>(config, std::move(ops), source);
}

}  // namespace polylm
