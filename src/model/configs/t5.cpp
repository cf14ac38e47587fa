// T5, T5 1.1, mT5, umT5, UL2, Flan-T5: one shape, a few switches.
// Ref: configuration_{t5,mt5,umt5}.py and modeling_t5.py of transformers.
#include "model/configs/family.hpp"

namespace pali {
namespace {

constexpr int64_t kMaxVocab = 1 << 22;

// "gated-gelu", "gated-silu", "relu": T5Config.__post_init__; "gated-gelu" means gelu_new.
void read_mlp(const JsonFields& fields, const std::string& fallback, LanguageConfig& config) {
  const std::string name = fields.string("feed_forward_proj", fallback);
  const std::string gated = "gated-";
  config.gated = name.rfind(gated, 0) == 0;
  const std::string activation = config.gated ? name.substr(gated.size()) : name;
  config.activation =
      name == "gated-gelu" ? Activation::gelu_tanh : parse_activation(activation, fields.where());
}

// Self- or cross-attention: no biases, inner width H*Hd beside the model's D.
void add_attention_rules(RuleWriter& rules, const std::string& ours, const std::string& theirs,
                         const LanguageConfig& config) {
  const int64_t inner = config.heads * config.head_dim;
  rules.matrix(ours + ".q.weight", theirs + ".q.weight", inner, config.width);
  rules.matrix(ours + ".k.weight", theirs + ".k.weight", inner, config.width);
  rules.matrix(ours + ".v.weight", theirs + ".v.weight", inner, config.width);
  rules.matrix(ours + ".o.weight", theirs + ".o.weight", config.width, inner);
}

// T5DenseActDense (wi) or T5DenseGatedActDense (wi_0 activated, wi_1 linear).
void add_mlp_rules(RuleWriter& rules, const std::string& ours, const std::string& theirs,
                   const LanguageConfig& config) {
  if (config.gated) {
    rules.matrix(ours + ".gate.weight", theirs + ".wi_0.weight", config.mlp, config.width);
    rules.matrix(ours + ".up.weight", theirs + ".wi_1.weight", config.mlp, config.width);
  } else {
    rules.matrix(ours + ".up.weight", theirs + ".wi.weight", config.mlp, config.width);
  }
  rules.matrix(ours + ".down.weight", theirs + ".wo.weight", config.width, config.mlp);
}

void add_stack_rules(RuleWriter& rules, const std::string& stack, int64_t layers, bool cross,
                     const LanguageConfig& config) {
  const std::string ours_stack = "lm." + stack;
  for (int64_t i = 0; i < layers; ++i) {
    const std::string ours = ours_stack + ".blocks." + std::to_string(i);
    const std::string theirs = stack + ".block." + std::to_string(i) + ".layer.";
    rules.vector(ours + ".norm1.weight", theirs + "0.layer_norm.weight", config.width);
    add_attention_rules(rules, ours + ".attn", theirs + "0.SelfAttention", config);
    if (config.bias_per_layer || i == 0) {
      const std::string bias = config.bias_per_layer ? ours + ".bias" : ours_stack + ".bias";
      rules
          .matrix(bias, theirs + "0.SelfAttention.relative_attention_bias.weight", config.buckets,
                  config.heads)
          .least = Precision::f32;
    }
    if (cross) {
      rules.vector(ours + ".norm_cross.weight", theirs + "1.layer_norm.weight", config.width);
      add_attention_rules(rules, ours + ".cross", theirs + "1.EncDecAttention", config);
    }
    const std::string last = theirs + (cross ? "2" : "1");
    rules.vector(ours + ".norm2.weight", last + ".layer_norm.weight", config.width);
    add_mlp_rules(rules, ours + ".mlp", last + ".DenseReluDense", config);
  }
  rules.vector(ours_stack + ".norm.weight", stack + ".final_layer_norm.weight", config.width);
}

}  // namespace

LanguageConfig read_t5_config(const JsonFields& fields, const std::string& model_type) {
  LanguageConfig config;
  config.width = fields.integer("d_model", 1, kMaxWidth);
  config.head_dim = fields.integer("d_kv", 1, 4096);
  config.mlp = fields.integer("d_ff", 1, kMaxMlp);
  config.heads = config.kv_heads = fields.integer("num_heads", 1, 4096);
  config.encoder_layers = fields.integer("num_layers", 1, kMaxLayers);
  config.decoder_layers =
      fields.integer("num_decoder_layers", 1, kMaxLayers, config.encoder_layers);
  config.vocab = fields.integer("vocab_size", 2, kMaxVocab);
  config.buckets =
      static_cast<int32_t>(fields.integer("relative_attention_num_buckets", 4, 65536, 32));
  // Half the buckets of a direction are exact distances; the others reach to max_distance.
  config.max_distance = static_cast<int32_t>(
      fields.integer("relative_attention_max_distance", config.buckets / 2 + 1, 1 << 24, 128));
  config.bias_per_layer = model_type == "umt5";
  read_mlp(fields, model_type == "t5" ? "relu" : "gated-gelu", config);
  config.eps = static_cast<float>(fields.number("layer_norm_epsilon", 0.0, 1.0, 1e-6));

  // lm_head.weight is used where it exists, whatever the file says of tying (build_model looks).
  const bool tied = fields.boolean("tie_word_embeddings", true);
  config.separate_head = !tied;
  // Scaled: T5 where scale_decoder_outputs, its older spelling tie_word_embeddings; umT5 by
  // tie_word_embeddings; mT5 never.
  if (model_type == "mt5") {
    config.scale_head = false;
  } else if (model_type == "umt5") {
    config.scale_head = tied;
  } else {
    config.scale_head = fields.boolean("scale_decoder_outputs", tied);
  }
  const auto token = [&](const char* key, int32_t fallback) {
    return static_cast<int32_t>(fields.integer(key, 0, config.vocab - 1, fallback));
  };
  config.pad_token = token("pad_token_id", 0);
  config.end_token = token("eos_token_id", 1);
  config.start_token = token("decoder_start_token_id", config.pad_token);
  return config;
}

void add_t5_rules(const LanguageConfig& config, const std::vector<std::string>& prefixes,
                  std::vector<TensorRule>& all) {
  RuleWriter rules(all, prefixes);
  TensorRule& embed = rules.matrix("lm.embed", "shared.weight", config.vocab, config.width);
  embed.least = Precision::int8;  // io/tensor_table.hpp says why
  for (const std::string& prefix : prefixes) {
    embed.sources.push_back(prefix + "encoder.embed_tokens.weight");
    embed.sources.push_back(prefix + "decoder.embed_tokens.weight");
  }
  add_stack_rules(rules, "encoder", config.encoder_layers, /*cross=*/false, config);
  add_stack_rules(rules, "decoder", config.decoder_layers, /*cross=*/true, config);
  rules.matrix("lm.head.weight", "lm_head.weight", config.vocab, config.width).optional = true;
}

void read_t5(const JsonFields& fields, const std::string& model_type, Family& family) {
  family.config.family = "t5";
  family.extra_ids = kT5ExtraIds;
  family.config.language = read_t5_config(fields, model_type);
  add_t5_rules(*family.config.language, {""}, family.rules);
}

}  // namespace pali
