// SigLIP: two towers, or the vision tower alone. Ref: configuration_siglip.py for names and
// defaults, modeling_siglip.py for tensors. Files of transformers 5 may leave out "vision_model.".
#include "model/configs/family.hpp"

namespace pali {
namespace {

// One pre-LN encoder layer: both towers have the same, and CLIP's.
void add_layer_rules(RuleWriter& rules, const std::string& ours, const std::string& theirs,
                     int64_t width, int64_t mlp) {
  rules.layer_norm(ours + ".norm1", theirs + ".layer_norm1", width);
  rules.linear(ours + ".attn.q", theirs + ".self_attn.q_proj", width, width);
  rules.linear(ours + ".attn.k", theirs + ".self_attn.k_proj", width, width);
  rules.linear(ours + ".attn.v", theirs + ".self_attn.v_proj", width, width);
  rules.linear(ours + ".attn.o", theirs + ".self_attn.out_proj", width, width);
  rules.layer_norm(ours + ".norm2", theirs + ".layer_norm2", width);
  rules.linear(ours + ".mlp.up", theirs + ".mlp.fc1", mlp, width);
  rules.linear(ours + ".mlp.down", theirs + ".mlp.fc2", width, mlp);
}

// nn.MultiheadAttention keeps q, k and v in one matrix [3D, D].
void add_pooling_rules(RuleWriter& rules, const VisionConfig& config) {
  const int64_t width = config.width;
  TensorRule& probe = rules.matrix("vision.head.probe", "head.probe", 1, width);
  probe.transform = Transform::flatten_in;  // [1, 1, D]
  probe.least = Precision::f32;
  const char* parts[] = {"q", "k", "v"};
  for (int part = 0; part < 3; ++part) {
    const std::string ours = std::string("vision.head.attn.") + parts[part];
    TensorRule& weight =
        rules.matrix(ours + ".weight", "head.attention.in_proj_weight", width, width);
    weight.transform = Transform::rows_part;
    weight.part = part;
    weight.parts = 3;
    TensorRule& bias = rules.vector(ours + ".bias", "head.attention.in_proj_bias", width);
    bias.transform = Transform::rows_part;
    bias.part = part;
    bias.parts = 3;
  }
  rules.linear("vision.head.attn.o", "head.attention.out_proj", width, width);
  rules.layer_norm("vision.head.norm", "head.layernorm", width);
  rules.linear("vision.head.mlp.up", "head.mlp.fc1", config.mlp, width);
  rules.linear("vision.head.mlp.down", "head.mlp.fc2", width, config.mlp);
}

}  // namespace

// Ref: the three configuration files have the same defaults.
TowerShape read_tower_shape(const JsonFields& fields) {
  TowerShape shape;
  shape.width = fields.integer("hidden_size", 1, kMaxWidth, 768);
  shape.layers = fields.integer("num_hidden_layers", 1, kMaxLayers, 12);
  shape.heads = fields.integer("num_attention_heads", 1, kMaxWidth, 12);
  shape.mlp = fields.integer("intermediate_size", 1, kMaxMlp, 3072);
  if (shape.width % shape.heads != 0) {
    throw Error(ErrorCode::corrupt_file,
                "hidden_size " + std::to_string(shape.width) + " is no multiple of the " +
                    std::to_string(shape.heads) + " of num_attention_heads (" + fields.where() +
                    "); restore the file");
  }
  return shape;
}

VisionConfig read_siglip_vision(const JsonFields& fields) {
  const TowerShape shape = read_tower_shape(fields);
  VisionConfig config;
  config.width = shape.width;
  config.layers = shape.layers;
  config.heads = shape.heads;
  config.mlp = shape.mlp;
  config.patch = fields.integer("patch_size", 1, 1024, 16);
  config.image_size = fields.integer("image_size", config.patch, 1 << 14, 224);
  fields.integer("num_channels", 3, 3, 3);
  config.eps = static_cast<float>(fields.number("layer_norm_eps", 0.0, 1.0, 1e-6));
  config.activation =
      parse_activation(fields.string("hidden_act", "gelu_pytorch_tanh"), fields.where());
  config.pooling_head = fields.boolean("vision_use_head", true);
  return config;
}

TextTowerConfig read_siglip_text(const JsonFields& fields) {
  const TowerShape shape = read_tower_shape(fields);
  TextTowerConfig config;
  config.width = shape.width;
  config.layers = shape.layers;
  config.heads = shape.heads;
  config.mlp = shape.mlp;
  config.vocab = fields.integer("vocab_size", 2, 1 << 22, 32000);
  config.length = fields.integer("max_position_embeddings", 1, 1 << 16, 64);
  config.projection = fields.integer("projection_size", 1, kMaxWidth, config.width);
  config.eps = static_cast<float>(fields.number("layer_norm_eps", 0.0, 1.0, 1e-6));
  config.activation =
      parse_activation(fields.string("hidden_act", "gelu_pytorch_tanh"), fields.where());
  config.pad = static_cast<int32_t>(fields.integer("pad_token_id", 0, config.vocab - 1, 1));
  return config;
}

void add_siglip_vision_rules(const VisionConfig& config, const std::vector<std::string>& prefixes,
                             std::vector<TensorRule>& all) {
  RuleWriter rules(all, prefixes);
  const int64_t width = config.width;
  // Conv2d's kernel [D, 3, p, p] is a matrix over patches in (channel, y, x) order.
  TensorRule& patch = rules.matrix("vision.patch.weight", "embeddings.patch_embedding.weight",
                                   width, 3 * config.patch * config.patch);
  patch.transform = Transform::flatten_in;
  patch.least = Precision::bf16;  // io/tensor_table.hpp says why
  if (config.patch_bias) {
    rules.vector("vision.patch.bias", "embeddings.patch_embedding.bias", width);
  }
  if (config.class_token) rules.vector("vision.class", "embeddings.class_embedding", width);
  rules.matrix("vision.pos", "embeddings.position_embedding.weight", config.tokens(), width).least =
      Precision::f32;
  if (config.norm_before) rules.layer_norm("vision.norm_before", "pre_layrnorm", width);
  for (int64_t i = 0; i < config.layers; ++i) {
    add_layer_rules(rules, "vision.blocks." + std::to_string(i),
                    "encoder.layers." + std::to_string(i), width, config.mlp);
  }
  if (config.norm_after) rules.layer_norm("vision.norm", "post_layernorm", width);
  if (config.pooling_head) add_pooling_rules(rules, config);
}

void add_siglip_text_rules(const TextTowerConfig& config, const std::vector<std::string>& prefixes,
                           std::vector<TensorRule>& all) {
  RuleWriter rules(all, prefixes);
  rules.matrix("text.embed", "embeddings.token_embedding.weight", config.vocab, config.width);
  rules.matrix("text.pos", "embeddings.position_embedding.weight", config.length, config.width)
      .least = Precision::f32;
  for (int64_t i = 0; i < config.layers; ++i) {
    add_layer_rules(rules, "text.blocks." + std::to_string(i),
                    "encoder.layers." + std::to_string(i), config.width, config.mlp);
  }
  rules.layer_norm("text.norm", "final_layer_norm", config.width);
  rules.linear("text.head", "head", config.projection, config.width);
  RuleWriter scalars(all, {""});
  scalars.vector("logit_scale", "logit_scale", 1);
  scalars.vector("logit_bias", "logit_bias", 1);
}

void read_siglip(const JsonFields& fields, Family& family) {
  family.config.family = "siglip";
  family.config.vision = read_siglip_vision(fields.object("vision_config"));
  family.config.text_tower = read_siglip_text(fields.object("text_config"));
  if (family.config.vision->pooling_head &&
      family.config.text_tower->projection != family.config.vision->width) {
    throw Error(ErrorCode::corrupt_file,
                "projection_size " + std::to_string(family.config.text_tower->projection) +
                    " of the text tower differs from the vision tower's width " +
                    std::to_string(family.config.vision->width) + " (" + fields.where() +
                    "); restore the file");
  }
  add_siglip_vision_rules(*family.config.vision, {"vision_model."}, family.rules);
  add_siglip_text_rules(*family.config.text_tower, {"text_model."}, family.rules);
}

}  // namespace pali
