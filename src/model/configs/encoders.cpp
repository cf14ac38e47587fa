// Which encoder stands in front of a language model, and what it hands over: the part of a composed
// model's config that they share. Ref: LlavaConfig in transformers' configuration_llava.py for the
// name and the values of vision_feature_select_strategy.
#include <algorithm>
#include <iterator>

#include "base/assert.hpp"
#include "base/quote.hpp"
#include "model/configs/family.hpp"

namespace pali {
namespace {

constexpr const char* kStrategy = "vision_feature_select_strategy";

struct Encoder {
  const char* type;      // model_type of the tower alone
  const char* whole;     // model_type of what it may be the vision half of
  const char* family;    // for people
  const char* prefix;    // of its tensors' names, where they have one
  const char* strategy;  // where a config has none
  VisionConfig (*read)(const JsonFields& fields, Preprocessing& preprocessing);
  void (*add_rules)(const VisionConfig& config, const std::vector<std::string>& prefixes,
                    std::vector<TensorRule>& rules);
};

// VisionEncoderDecoderModel hands over all that ViTModel gives; LlavaModel, what CLIPVisionModel
// gives but for the class token.
constexpr Encoder kEncoders[] = {
    {"siglip_vision_model", "siglip", "siglip", "vision_model.", "full",
     [](const JsonFields& fields, Preprocessing&) { return read_siglip_vision(fields); },
     add_siglip_vision_rules},
    {"vit", "vit", "vit", "vit.", "full", read_vit_vision, add_vit_rules},
    {"clip_vision_model", "clip", "clip", "vision_model.", "default", read_clip_vision,
     add_siglip_vision_rules}};

const Encoder* find_encoder(const std::string& type) {
  const auto it = std::find_if(std::begin(kEncoders), std::end(kEncoders),
                               [&](const Encoder& encoder) { return type == encoder.type; });
  return it == std::end(kEncoders) ? nullptr : it;
}

std::string type_of(const Json& config) {
  const auto it = config.find("model_type");
  return it != config.end() && it->is_string() ? it->get<std::string>() : "";
}

const Json* object_in(const Json& config, const char* key) {
  const auto it = config.find(key);
  return it != config.end() && it->is_object() ? &*it : nullptr;
}

void read(const JsonFields& fields, const Encoder& encoder,
          const std::vector<std::string>& prefixes, Family& family) {
  family.config.vision = encoder.read(fields, family.config.preprocessing);
  encoder.add_rules(*family.config.vision, prefixes, family.rules);
}

}  // namespace

EncoderChoice read_encoder(const JsonFields& composed, Family& family) {
  const JsonFields vision = composed.object("vision_config");
  const std::string type = vision.string("model_type", kEncoders[0].type);
  const Encoder* encoder = find_encoder(type);
  if (encoder == nullptr) {
    throw Error(ErrorCode::unsupported,
                "vision_config with model_type " + quote(type) + " (" + composed.where() +
                    "); siglip_vision_model, vit and clip_vision_model are what runs here");
  }
  const std::string tower = "vision_tower.";
  read(vision, *encoder, {tower + encoder->prefix, tower, encoder->prefix}, family);
  const std::string strategy = composed.string(kStrategy, encoder->strategy);
  if (strategy != "default" && strategy != "full") {
    throw Error(ErrorCode::unsupported, std::string(kStrategy) + " " + quote(strategy) + " (" +
                                            composed.where() +
                                            "); default (no class token) and full are known");
  }
  return {encoder->family, strategy == "default" ? family.config.vision->class_tokens() : 0};
}

void read_tower(const JsonFields& fields, const std::string& type, Family& family) {
  const Encoder* encoder = find_encoder(type);
  PALI_ASSERT(encoder != nullptr);
  family.config.family = encoder->family;
  read(fields, *encoder, {encoder->prefix, ""}, family);
}

EncoderPart encoder_part(const Json& config) {
  const std::string type = type_of(config);
  const Json* own = object_in(config, "vision_config");
  if (const Json* encoder = object_in(config, "encoder"); own == nullptr && encoder != nullptr) {
    own = object_in(*encoder, "vision_config");
  }
  // CLIPConfig: this one goes before.
  if (const Json* older = object_in(config, "vision_config_dict")) own = older;
  EncoderPart part{own == nullptr ? config : *own, ""};
  const auto whole = std::find_if(std::begin(kEncoders), std::end(kEncoders),
                                  [&](const Encoder& encoder) { return type == encoder.whole; });
  const Encoder* encoder =
      whole != std::end(kEncoders) ? whole : find_encoder(type_of(part.config));
  if (encoder == nullptr) encoder = kEncoders;
  part.config["model_type"] = encoder->type;
  const auto strategy = config.find(kStrategy);
  part.strategy = strategy != config.end() && strategy->is_string() ? strategy->get<std::string>()
                                                                    : encoder->strategy;
  return part;
}

}  // namespace pali
