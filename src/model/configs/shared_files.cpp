#include "model/configs/shared_files.hpp"

#include <algorithm>
#include <cmath>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

void read_three(const JsonFields& fields, const char* key, float (&out)[3]) {
  const Json* list = fields.find(key);
  if (list == nullptr || list->is_null()) return;
  if (!list->is_array() || list->size() != 3) {
    throw Error(ErrorCode::corrupt_file, std::string("field \"") + key +
                                             "\" must be a list of 3 numbers (" + fields.where() +
                                             "); restore the file");
  }
  for (size_t i = 0; i < 3; ++i) {
    if (!(*list)[i].is_number()) {
      throw Error(ErrorCode::corrupt_file, std::string("field \"") + key +
                                               "\" must hold numbers (" + fields.where() +
                                               "); restore the file");
    }
    // Beyond these a pixel, scaled and shifted, would leave the range of a float.
    const double value = (*list)[i].get<double>();
    if (!(std::abs(value) <= 1e9)) {
      throw Error(ErrorCode::corrupt_file, std::string("field \"") + key +
                                               "\" must hold numbers from -1e9 to 1e9 (" +
                                               fields.where() + "); restore the file");
    }
    out[i] = static_cast<float>(value);
  }
}

// "crop_size": a number, or height and width, which must be the same.
int64_t read_crop(const JsonFields& fields, int64_t fallback) {
  const Json* size = fields.find("crop_size");
  if (size == nullptr || !size->is_object()) {
    return fields.integer("crop_size", 1, 1 << 14, fallback);
  }
  const JsonFields sides = fields.object("crop_size");
  const int64_t height = sides.integer("height", 1, 1 << 14);
  if (sides.integer("width", 1, 1 << 14) == height) return height;
  throw Error(ErrorCode::unsupported,
              "crop_size of unequal sides (" + fields.where() + "); squares are what runs here");
}

// What a file makes of an image: a square of `width` x `height` px.
struct Seen {
  int64_t width = 0, height = 0;
};

// "size": height and width, which all of the image is made; "shortest_edge", which its shorter side
// becomes, before the middle is cut out; or a number, which means what the family's own processor
// means by it (default_to_square).
Seen read_size(const JsonFields& fields, Preprocessing& how) {
  const bool cuts = fields.boolean("do_center_crop", how.fit == Fit::crop);
  const Json* size = fields.find("size");
  const bool sides_given = size != nullptr && size->is_object();
  const JsonFields sides = sides_given ? fields.object("size") : fields;
  Seen seen{how.size, how.size};
  if (sides_given) how.fit = sides.has("shortest_edge") ? Fit::crop : Fit::stretch;
  if (how.fit == Fit::crop) {
    if (!cuts) {
      throw Error(ErrorCode::unsupported, "images keep their shape, as do_center_crop is false (" +
                                              fields.where() + "); squares are what runs here");
    }
    how.resized = sides.integer(sides_given ? "shortest_edge" : "size", 1, 1 << 14, how.resized);
    seen.width = seen.height = read_crop(fields, how.size);
    return seen;
  }
  if (sides_given) {
    seen.height = sides.integer("height", 1, 1 << 14, how.size);
    seen.width = sides.integer("width", 1, 1 << 14, how.size);
  } else {
    seen.width = seen.height = fields.integer("size", 1, 1 << 14, how.size);
  }
  if (cuts && read_crop(fields, seen.width) < std::max(seen.width, seen.height)) {
    throw Error(
        ErrorCode::unsupported,
        "do_center_crop of images that are made square (" + fields.where() +
            "); a square, or the middle of an image (size shortest_edge) is what runs here");
  }
  return seen;
}

}  // namespace

// Ref: the fields of SiglipImageProcessor, ViTImageProcessor and CLIPImageProcessor; "resample"
// counts as PIL does, 2 bilinear, 3 bicubic.
void read_preprocessing(const Json& json, const std::string& where, Preprocessing& how,
                        std::vector<std::string>& warnings) {
  const JsonFields fields(json, where);
  const int64_t image_size = how.size;
  const Seen seen = read_size(fields, how);
  if (seen.height != image_size || seen.width != image_size) {
    warnings.push_back("images are resized to the model's " + std::to_string(image_size) + " x " +
                       std::to_string(image_size) + " px, not to the " +
                       std::to_string(seen.height) + " x " + std::to_string(seen.width) + " of " +
                       where);
    how.size = seen.width;
    how = how.at(image_size);
  }
  const int64_t resample =
      fields.integer("resample", 0, 5, how.resample == Resample::bilinear ? 2 : 3);
  if (resample != 2 && resample != 3) {
    throw Error(ErrorCode::unsupported, "resample " + std::to_string(resample) + " (" + where +
                                            "); 2 (bilinear) and 3 (bicubic) are known");
  }
  how.resample = resample == 2 ? Resample::bilinear : Resample::bicubic;
  // Ours alone: a converted file keeps the processing of what it was made from.
  const std::string name = fields.string("preprocess", pipeline_name(how.pipeline));
  const std::optional<Pipeline> pipeline = parse_pipeline(name);
  if (!pipeline) {
    throw Error(ErrorCode::unsupported,
                "preprocess " + quote(name) + " (" + where + "); hf, bv and bv-aa are known");
  }
  how.pipeline = *pipeline;
  how.rescale = fields.number("rescale_factor", 1e-9, 1e9, how.rescale);
  read_three(fields, "image_mean", how.mean);
  read_three(fields, "image_std", how.std);
  for (const float deviation : how.std) {
    if (!(deviation > 0)) {
      throw Error(ErrorCode::corrupt_file,
                  "field \"image_std\" must be positive (" + where + "); restore the file");
    }
  }
}

namespace {

// A token id, or the first of a list of them.
int32_t read_token(const JsonFields& fields, const char* key, int64_t vocab, int32_t fallback) {
  const Json* value = fields.find(key);
  if (value != nullptr && value->is_array() && !value->empty()) {
    const Json first{{key, value->front()}};
    return static_cast<int32_t>(JsonFields(first, fields.where()).integer(key, 0, vocab - 1));
  }
  return static_cast<int32_t>(fields.integer(key, 0, vocab - 1, fallback));
}

}  // namespace

void read_generation(const Json& json, const std::string& where, ModelConfig& config) {
  const JsonFields fields(json, where);
  if (config.language) {
    LanguageConfig& language = *config.language;
    language.start_token =
        read_token(fields, "decoder_start_token_id", language.vocab, language.start_token);
    language.end_token = read_token(fields, "eos_token_id", language.vocab, language.end_token);
    language.pad_token = read_token(fields, "pad_token_id", language.vocab, language.pad_token);
  }
  GenerationOptions& options = config.generation;
  options.beams = static_cast<int>(fields.integer("num_beams", 1, 1024, 1));
  options.length_penalty = fields.number("length_penalty", -1e6, 1e6, 1.0);
  if (fields.has("max_new_tokens")) {
    options.max_tokens = static_cast<int>(fields.integer("max_new_tokens", 1, 1 << 20));
  }
  if (fields.boolean("do_sample", false)) {
    options.temperature = fields.number("temperature", 0.0, 1e6, 1.0);
    options.top_k = static_cast<int>(fields.integer("top_k", 0, 1 << 30, 50));
    options.top_p = fields.number("top_p", 0.0, 1.0, 1.0);
  }
}

Json preprocessing_json(const Preprocessing& how) {
  const Json square{{"height", how.size}, {"width", how.size}};
  Json json{{"image_processor_type", "SiglipImageProcessor"},
            {"do_resize", true},
            {"do_rescale", true},
            {"do_normalize", true},
            {"size", square},
            {"resample", how.resample == Resample::bilinear ? 2 : 3},
            {"preprocess", pipeline_name(how.pipeline)},
            {"rescale_factor", how.rescale},
            {"image_mean", how.mean},
            {"image_std", how.std}};
  if (how.fit == Fit::crop) {
    json["image_processor_type"] = "CLIPImageProcessor";
    json["size"] = {{"shortest_edge", how.resized}};
    json["do_center_crop"] = true;
    json["crop_size"] = square;
  }
  return json;
}

Json generation_json(const ModelConfig& config) {
  Json json = Json::object();
  if (config.language) {
    json["decoder_start_token_id"] = config.language->start_token;
    json["eos_token_id"] = config.language->end_token;
    json["pad_token_id"] = config.language->pad_token;
  }
  const GenerationOptions& options = config.generation;
  json["num_beams"] = options.beams;
  json["length_penalty"] = options.length_penalty;
  if (options.max_tokens > 0) json["max_new_tokens"] = options.max_tokens;
  if (options.temperature > 0) {
    json["do_sample"] = true;
    json["temperature"] = options.temperature;
    json["top_k"] = options.top_k;
    json["top_p"] = options.top_p;
  }
  return json;
}

}  // namespace pali
