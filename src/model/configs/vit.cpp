// ViT as classifiers have it, without their head. Ref: configuration_vit.py for names and defaults,
// modeling_vit.py for the arithmetic; tensors under the names of files on the hub, which
// transformers 5 still writes. ViTModel's last_hidden_state is taken, the class token and the
// LayerNorm after the last block included.
#include "model/configs/family.hpp"

namespace pali {

VisionConfig read_vit_vision(const JsonFields& fields, Preprocessing& preprocessing) {
  const TowerShape shape = read_tower_shape(fields);
  VisionConfig config;
  config.width = shape.width;
  config.layers = shape.layers;
  config.heads = shape.heads;
  config.mlp = shape.mlp;
  config.patch = fields.integer("patch_size", 1, 1024, 16);
  config.image_size = fields.integer("image_size", config.patch, 1 << 14, 224);
  fields.integer("num_channels", 3, 3, 3);
  config.eps = static_cast<float>(fields.number("layer_norm_eps", 0.0, 1.0, 1e-12));
  config.activation = parse_activation(fields.string("hidden_act", "gelu"), fields.where());
  config.qkv_bias = fields.boolean("qkv_bias", true);
  config.class_token = true;
  preprocessing.resample = Resample::bilinear;  // ViTImageProcessor
  return config;
}

void add_vit_rules(const VisionConfig& config, const std::vector<std::string>& prefixes,
                   std::vector<TensorRule>& all) {
  RuleWriter rules(all, prefixes);
  const int64_t width = config.width;
  const std::string projection = "embeddings.patch_embeddings.projection";
  TensorRule& patch = rules.matrix("vision.patch.weight", projection + ".weight", width,
                                   3 * config.patch * config.patch);
  patch.transform = Transform::flatten_in;  // Conv2d's kernel [D, 3, p, p]
  patch.least = Precision::bf16;            // io/tensor_table.hpp says why
  rules.vector("vision.patch.bias", projection + ".bias", width);
  TensorRule& token = rules.vector("vision.class", "embeddings.cls_token", width);
  token.transform = Transform::axes;
  token.axes = "abn>n";  // [1, 1, D]
  token.picks = {{0, 1}, {0, 1}};
  TensorRule& positions =
      rules.matrix("vision.pos", "embeddings.position_embeddings", config.tokens(), width);
  positions.transform = Transform::axes;
  positions.axes = "aon>o,n";  // [1, N, D]
  positions.picks = {{0, 1}};
  positions.least = Precision::f32;
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string ours = "vision.blocks." + std::to_string(i);
    const std::string theirs = "encoder.layer." + std::to_string(i);
    rules.layer_norm(ours + ".norm1", theirs + ".layernorm_before", width);
    for (const auto& [q, query] : {std::pair("q", "query"), {"k", "key"}, {"v", "value"}}) {
      const std::string name = ours + ".attn." + q;
      const std::string source = theirs + ".attention.attention." + query;
      rules.matrix(name + ".weight", source + ".weight", width, width);
      if (config.qkv_bias) rules.vector(name + ".bias", source + ".bias", width);
    }
    rules.linear(ours + ".attn.o", theirs + ".attention.output.dense", width, width);
    rules.layer_norm(ours + ".norm2", theirs + ".layernorm_after", width);
    rules.linear(ours + ".mlp.up", theirs + ".intermediate.dense", config.mlp, width);
    rules.linear(ours + ".mlp.down", theirs + ".output.dense", width, config.mlp);
  }
  rules.layer_norm("vision.norm", "layernorm", width);
}

}  // namespace pali
