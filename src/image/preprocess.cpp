// Pixels as transformers' SiglipImageProcessor (Pillow backend) or big_vision's preprocessing gives
// them to the vision tower.
// Ref: transformers 5.23, image_transforms.py: rescale() multiplies in double and rounds to f32;
// normalize() subtracts and divides in f32.
#include <utility>

#include "base/assert.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

constexpr std::pair<Pipeline, const char*> kPipelines[] = {
    {Pipeline::hf, "hf"}, {Pipeline::bv, "bv"}, {Pipeline::bv_aa, "bv-aa"}};

ImageU8 resize_by(const Image& image, const Preprocessing& how, int side) {
  if (how.pipeline == Pipeline::hf) {
    return resize(image.width(), image.height(), image.rgb(), side, side, how.resample);
  }
  const Antialias antialias = how.pipeline == Pipeline::bv_aa ? Antialias::yes : Antialias::no;
  return resize_float(image.width(), image.height(), image.rgb(), side, side, antialias);
}

}  // namespace

const char* pipeline_name(Pipeline pipeline) {
  for (const auto& [each, name] : kPipelines) {
    if (each == pipeline) return name;
  }
  return "?";
}

std::optional<Pipeline> parse_pipeline(std::string_view name) {
  for (const auto& [pipeline, each] : kPipelines) {
    if (name == each) return pipeline;
  }
  return std::nullopt;
}

Tensor preprocess(const Image& image, const Preprocessing& how) {
  PALI_ASSERT(how.size >= 1 && how.size <= 1 << 14);
  const int side = static_cast<int>(how.size);
  ImageU8 resized;
  std::span<const uint8_t> rgb = image.rgb();
  if (image.width() != side || image.height() != side) {
    resized = resize_by(image, how, side);
    rgb = resized.rgb;
  }
  Tensor pixels(3, how.size * how.size);
  for (int channel = 0; channel < 3; ++channel) {
    float value_of[256];
    for (int level = 0; level < 256; ++level) {
      const float scaled = static_cast<float>(level * how.rescale);
      value_of[level] = (scaled - how.mean[channel]) / how.std[channel];
    }
    float* plane = pixels.row(channel);
    for (int64_t i = 0; i < how.size * how.size; ++i) plane[i] = value_of[rgb[3 * i + channel]];
  }
  return pixels;
}

}  // namespace pali
