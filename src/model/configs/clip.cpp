// CLIP's vision tower. Ref: configuration_clip.py for names and defaults, modeling_clip.py for the
// arithmetic; image_processing_pil_clip.py. CLIPVisionModel's last_hidden_state is taken: its
// post_layernorm is for the pooled class token alone.
#include <algorithm>
#include <iterator>

#include "model/configs/family.hpp"

namespace pali {

VisionConfig read_clip_vision(const JsonFields& fields, Preprocessing& preprocessing) {
  const TowerShape shape = read_tower_shape(fields);
  VisionConfig config;
  config.width = shape.width;
  config.layers = shape.layers;
  config.heads = shape.heads;
  config.mlp = shape.mlp;
  config.patch = fields.integer("patch_size", 1, 1024, 32);
  config.image_size = fields.integer("image_size", config.patch, 1 << 14, 224);
  fields.integer("num_channels", 3, 3, 3);
  config.eps = static_cast<float>(fields.number("layer_norm_eps", 0.0, 1.0, 1e-5));
  config.activation = parse_activation(fields.string("hidden_act", "quick_gelu"), fields.where());
  config.patch_bias = false;
  config.class_token = true;
  config.norm_before = true;
  config.norm_after = false;
  // OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
  constexpr float kMean[] = {0.48145466f, 0.4578275f, 0.40821073f};
  constexpr float kStd[] = {0.26862954f, 0.26130258f, 0.27577711f};
  std::copy(std::begin(kMean), std::end(kMean), preprocessing.mean);
  std::copy(std::begin(kStd), std::end(kStd), preprocessing.std);
  preprocessing.fit = Fit::crop;
  return config;
}

void read_clip(const JsonFields& fields, Family& family) {
  // CLIPConfig: where older files have both, this one counts.
  const char* older = "vision_config_dict";
  read_tower(fields.object(fields.has(older) ? older : "vision_config"), "clip_vision_model",
             family);
}

}  // namespace pali
