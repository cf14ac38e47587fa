// Which adapter reads a config.json, and the files that all families share.
#include "model/configs/family.hpp"

#include <utility>

#include "base/quote.hpp"
#include "model/configs/shared_files.hpp"

namespace pali {

TensorRule& RuleWriter::add(const std::string& ours, const std::string& theirs,
                            std::vector<int64_t> shape) {
  TensorRule& rule = rules_.emplace_back();
  rule.name = ours;
  for (const std::string& prefix : prefixes_) rule.sources.push_back(prefix + theirs);
  rule.shape = std::move(shape);
  return rule;
}

TensorRule& RuleWriter::vector(const std::string& ours, const std::string& theirs, int64_t n) {
  TensorRule& rule = add(ours, theirs, {n});
  rule.least = Precision::f32;
  return rule;
}

TensorRule& RuleWriter::matrix(const std::string& ours, const std::string& theirs, int64_t out,
                               int64_t in) {
  return add(ours, theirs, {out, in});
}

void RuleWriter::linear(const std::string& ours, const std::string& theirs, int64_t out,
                        int64_t in) {
  matrix(ours + ".weight", theirs + ".weight", out, in);
  vector(ours + ".bias", theirs + ".bias", out);
}

void RuleWriter::layer_norm(const std::string& ours, const std::string& theirs, int64_t n) {
  vector(ours + ".weight", theirs + ".weight", n);
  vector(ours + ".bias", theirs + ".bias", n);
}

// Ref: ACT2FN in transformers' activations.py; quick_gelu is x * sigmoid(1.702 x).
Activation parse_activation(const std::string& name, const std::string& where) {
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") {
    return Activation::gelu_tanh;
  }
  if (name == "gelu") return Activation::gelu_erf;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  throw Error(ErrorCode::unsupported,
              "activation " + quote(name) + " (" + where +
                  "); known: gelu_pytorch_tanh, gelu_new, gelu, quick_gelu, silu, relu");
}

namespace {

constexpr const char* kFamilies =
    "clip, clip_vision_model, pali3, paligemma, siglip, siglip_vision_model, t5, t5gemma2, mt5, "
    "umt5, vit";

}  // namespace

Family read_family(const ConfigFiles& files) {
  const JsonFields fields(files.config, files.where);
  const std::string type = fields.string("model_type", "");
  Family family;
  if (type == "pali3") {
    read_pali3(fields, family);
  } else if (type == "paligemma") {
    read_paligemma(fields, family);
  } else if (type == "t5gemma2") {
    read_t5gemma2(fields, family);
  } else if (type == "siglip") {
    read_siglip(fields, family);
  } else if (type == "clip") {
    read_clip(fields, family);
  } else if (type == "siglip_vision_model" || type == "vit" || type == "clip_vision_model") {
    read_tower(fields, type, family);
  } else if (type == "t5" || type == "mt5" || type == "umt5") {
    read_t5(fields, type, family);
  } else {
    const std::string found =
        type.empty() ? "no model_type in the config"
                     : "models of model_type " + quote(type) + " are not read by this version";
    throw Error(ErrorCode::unsupported,
                found + " (" + files.where + "); it runs those of " + std::string(kFamilies));
  }
  ModelConfig& config = family.config;
  config.json = files.config_text;
  if (config.vision) {
    config.preprocessing.size = config.preprocessing.resized = config.vision->image_size;
    read_preprocessing(files.preprocessor.value_or(Json::object()),
                       files.preprocessor_name + " of " + files.where, config.preprocessing,
                       family.warnings);
  }
  if (files.generation) {
    read_generation(*files.generation, "generation_config.json of " + files.where, config);
  }
  if (config.language) {
    if (files.tokenizer) {
      const JsonFields tokenizer(*files.tokenizer, "tokenizer_config.json of " + files.where);
      family.extra_ids_given = tokenizer.has("extra_ids");
      family.extra_ids =
          static_cast<int>(tokenizer.integer("extra_ids", 0, 65536, family.extra_ids));
    }
  }
  return family;
}

}  // namespace pali
