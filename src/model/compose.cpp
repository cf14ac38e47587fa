// A PaLI-3 put together from public parts: a vision tower, a projector, a T5-shaped model.
#include <cmath>
#include <cstring>

#include "base/quote.hpp"
#include "model/checkpoint.hpp"
#include "model/configs/shared_files.hpp"
#include "model/hub_cache.hpp"
#include "model/random.hpp"

namespace pali {
namespace {

// The part of a checkpoint's config.json that describes its language model: the whole file, or a
// field of it.
Json language_config(const Checkpoint& part) {
  const Json config = parse_json(part.config.json, part.path.string());
  const char* field = "text_config";
  return config.contains(field) ? config.at(field) : config;
}

// Rows whose names begin with `ours` keep those and their shapes; the tensors lie under the part's
// prefix, in the layout they have there. What else a part has, a composed model's own tower, stays
// out.
void take_rows(const Checkpoint& part, const std::string& ours, const std::string& prefix,
               std::vector<TensorRule>& rules) {
  const auto& bound = part.table.bound();
  for (TensorRule& rule : rules) {
    const auto it = bound.find(rule.name);
    if (it == bound.end() || !rule.name.starts_with(ours)) continue;
    const std::string& source = it->second.source;
    rule.sources = {prefix + source};
    // What a converted file holds needs none, but will not have its own name here.
    const bool canonical =
        source == rule.name && part.store.find(source)->shape == it->second.rule.shape;
    rule.transform = canonical ? Transform::none : it->second.rule.transform;
    rule.part = it->second.rule.part;
    rule.parts = it->second.rule.parts;
    rule.axes = it->second.rule.axes;
    rule.picks = it->second.rule.picks;
  }
}

// A projector file holds weight [D, Dv] and, perhaps, bias [D].
struct ProjectorFile {
  WeightStore store;
  std::string weight, bias;  // names in the store; empty where absent

  static ProjectorFile open(const std::filesystem::path& path, int64_t out, int64_t in) {
    ProjectorFile file{WeightStore::open_safetensors(path), "", ""};
    for (const char* prefix :
         {"", "projector.", "multi_modal_projector.linear.", "multi_modal_projector."}) {
      if (!file.store.find(std::string(prefix) + "weight")) continue;
      file.weight = std::string(prefix) + "weight";
      if (file.store.find(std::string(prefix) + "bias")) file.bias = std::string(prefix) + "bias";
      break;
    }
    if (file.weight.empty()) {
      throw Error(ErrorCode::corrupt_file,
                  "no tensor 'weight' (" + path.string() + "); a projector file holds weight [" +
                      std::to_string(out) + ", " + std::to_string(in) + "] and, perhaps, bias [" +
                      std::to_string(out) + "]");
    }
    return file;
  }
};

// Uniform values of variance 1/Dv: projected tokens are about as large as the tokens.
void add_random_projector(WeightStore& store, int64_t out, int64_t in, uint64_t seed) {
  RandomBits random(seed);
  const float spread = std::sqrt(3.0f / static_cast<float>(in));
  const std::span<std::byte> weight = store.add_owned("projector.weight", DType::f32, {out, in});
  for (size_t at = 0; at < weight.size(); at += 4) {
    const float value = spread * random.symmetric();
    std::memcpy(weight.data() + at, &value, 4);
  }
  const std::span<std::byte> bias = store.add_owned("projector.bias", DType::f32, {out});
  std::memset(bias.data(), 0, bias.size());
}

// Positions of another resolution, under the canonical name: the table finds it first.
void add_resized_positions(WeightStore& store, Checkpoint& vision, int64_t resolution) {
  vision.table.load(vision.store);
  const VisionConfig& config = *vision.config.vision;
  const Tensor resized = positions_for(config, vision.table, resolution / config.patch);
  const std::span<std::byte> out =
      store.add_owned("vision.pos", DType::f32, {resized.rows(), config.width});
  const size_t row_bytes = static_cast<size_t>(config.width) * 4;
  for (int64_t i = 0; i < resized.rows(); ++i) {
    std::memcpy(out.data() + static_cast<size_t>(i) * row_bytes, resized.row(i), row_bytes);
  }
}

Json prompts_json(const PromptTemplates& prompts) {
  return Json{{"caption", prompts.caption}, {"vqa", prompts.vqa},
              {"ocr", prompts.ocr},         {"detect", prompts.detect},
              {"segment", prompts.segment}, {"default_lang", prompts.default_lang}};
}

// The config.json that a folder of the composed model would have.
Json composed_config(const Checkpoint& vision, const Checkpoint& language, int64_t image_size,
                     bool projector_bias) {
  EncoderPart seen = encoder_part(parse_json(vision.config.json, vision.path.string()));
  seen.config["image_size"] = image_size;
  seen.config["vision_use_head"] = false;  // PaLI takes the tokens before pooling
  const bool has_prompts = !language.config.prompts.vqa.empty();
  return Json{{"model_type", "pali3"},
              {"vision_config", std::move(seen.config)},
              {"vision_feature_select_strategy", seen.strategy},
              {"text_config", language_config(language)},
              {"projector_bias", projector_bias},
              {"prompts", prompts_json(has_prompts ? language.config.prompts : pali3_prompts())}};
}

void check_parts(const Checkpoint& vision, const Checkpoint& language,
                 const ComposeOptions& options) {
  if (!vision.config.vision) {
    throw Error(ErrorCode::invalid_argument,
                "a " + vision.config.family + " model has no vision tower (" +
                    options.vision.string() + "); give --vision a SigLIP, ViT or CLIP model");
  }
  if (!language.config.language) {
    throw Error(ErrorCode::invalid_argument,
                "a " + language.config.family + " model writes no text (" +
                    options.language.string() + "); give --language a T5, mT5, umT5 or UL2 model");
  }
  const int64_t patch = vision.config.vision->patch;
  constexpr int64_t kMaxResolution = 1 << 14;
  if (options.resolution != 0 &&
      (options.resolution < patch || options.resolution > kMaxResolution)) {
    throw Error(ErrorCode::invalid_argument,
                "resolution of " + std::to_string(options.resolution) + " px, " +
                    std::to_string(patch) + " to " + std::to_string(kMaxResolution) +
                    " expected (--resolution); choose a multiple of the patch size");
  }
}

}  // namespace

Checkpoint compose_checkpoint(const ComposeOptions& options) {
  Checkpoint vision = open_checkpoint(options.vision);
  Checkpoint language =
      open_checkpoint(options.language, {.mmap = true, .tokenizer = options.tokenizer});
  check_parts(vision, language, options);
  const VisionConfig& seen = *vision.config.vision;
  const int64_t image_size = options.resolution == 0 ? seen.image_size : options.resolution;
  const int64_t out = language.config.language->width, in = seen.width;

  WeightStore store;
  std::vector<std::string> warnings;
  std::optional<ProjectorFile> projector;
  if (options.projector.empty()) {
    add_random_projector(store, out, in, options.seed);
    warnings.push_back("the projector is random (--seed " + std::to_string(options.seed) +
                       "): answers about images mean nothing until it is trained; give "
                       "--projector FILE");
  } else {
    projector = ProjectorFile::open(options.projector, out, in);
  }
  if (image_size != seen.image_size) add_resized_positions(store, vision, image_size);

  ConfigFiles files;
  files.where = options.vision.string() + " + " + options.language.string();
  files.config = composed_config(vision, language, image_size,
                                 /*projector_bias=*/!projector || !projector->bias.empty());
  files.config_text = files.config.dump(2) + "\n";
  files.preprocessor = preprocessing_json(vision.config.preprocessing.at(image_size));
  files.generation = generation_json(language.config);
  Family family = read_family(files);

  take_rows(vision, "vision.", "vision/", family.rules);
  take_rows(language, "lm.", "language/", family.rules);
  for (TensorRule& rule : family.rules) {
    if (!projector) break;
    if (rule.name == "projector.weight") rule.sources = {"projector/" + projector->weight};
    if (rule.name == "projector.bias") rule.sources = {"projector/" + projector->bias};
  }
  store.absorb(std::move(vision.store), "vision/");
  store.absorb(std::move(language.store), "language/");
  if (projector) store.absorb(std::move(projector->store), "projector/");

  Checkpoint composed =
      bind_checkpoint(std::move(family), std::move(store), "pali",
                      model_name(options.vision) + " + " + model_name(options.language));
  composed.tokenizer = std::move(language.tokenizer);
  if (composed.tokenizer) {
    composed.config.language->extra_ids = composed.tokenizer->extra_ids();
  }
  // What the parts leave over (pooling head, text tower) is not worth a warning here.
  composed.warnings = std::move(warnings);
  return composed;
}

}  // namespace pali
