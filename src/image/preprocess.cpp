// Pixels as transformers' image processors of SigLIP, ViT and CLIP (Pillow backend) or big_vision's
// preprocessing give them to the vision tower.
// Ref: transformers 5.23, image_transforms.py: rescale() multiplies in double and rounds to f32;
// normalize() subtracts and divides in f32; get_resize_output_image_size(), center_crop().
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/assert.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

constexpr std::pair<Pipeline, const char*> kPipelines[] = {
    {Pipeline::hf, "hf"}, {Pipeline::bv, "bv"}, {Pipeline::bv_aa, "bv-aa"}};

bool crops(const Preprocessing& how) {
  return how.pipeline == Pipeline::hf && how.fit == Fit::crop;
}

// An axis of an image whose shorter side becomes how.resized: its length then, and where the square
// begins on it (before its beginning where it is too short).
struct CroppedAxis {
  int64_t length = 0, begin = 0;
};
CroppedAxis cropped_axis(const Preprocessing& how, int side, int other) {
  CroppedAxis axis{how.resized, 0};
  if (side > other) {
    const auto scaled = static_cast<double>(how.resized * side);
    axis.length = static_cast<int64_t>(scaled / other);
  }
  const int64_t over = axis.length - how.size;
  axis.begin = over >= 0 ? over / 2 : -((1 - over) / 2);  // rounded down
  return axis;
}

// The square out of the middle of the resized image; black where that is too small.
ImageU8 crop(const Image& image, const Preprocessing& how) {
  const CroppedAxis across = cropped_axis(how, image.width(), image.height());
  const CroppedAxis down = cropped_axis(how, image.height(), image.width());
  ResizedPart part{across.length, down.length};
  part.x = std::max<int64_t>(across.begin, 0);
  part.y = std::max<int64_t>(down.begin, 0);
  part.width = static_cast<int>(std::min(how.size, across.length - part.x));
  part.height = static_cast<int>(std::min(how.size, down.length - part.y));
  ImageU8 seen = resize_part(image.width(), image.height(), image.rgb(), part, how.resample);
  if (part.width == how.size && part.height == how.size) return seen;
  const int side = static_cast<int>(how.size);
  ImageU8 square{side, side, std::vector<uint8_t>(static_cast<size_t>(side) * side * 3)};
  const int64_t left = part.x - across.begin, top = part.y - down.begin;
  for (int64_t y = 0; y < part.height; ++y) {
    std::copy_n(seen.rgb.begin() + y * part.width * 3, part.width * 3,
                square.rgb.begin() + ((top + y) * side + left) * 3);
  }
  return square;
}

ImageU8 resize_by(const Image& image, const Preprocessing& how, int side) {
  if (crops(how)) return crop(image, how);
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

Preprocessing Preprocessing::at(int64_t new_size) const {
  Preprocessing other = *this;
  other.size = new_size;
  other.resized = std::max<int64_t>(resized * new_size / size, 1);
  return other;
}

VisiblePart visible_part(const Preprocessing& how, int width, int height) {
  if (!crops(how)) return {0, 0, static_cast<double>(width), static_cast<double>(height)};
  const CroppedAxis across = cropped_axis(how, width, height);
  const CroppedAxis down = cropped_axis(how, height, width);
  const double x_scale = static_cast<double>(width) / static_cast<double>(across.length);
  const double y_scale = static_cast<double>(height) / static_cast<double>(down.length);
  const auto side = static_cast<double>(how.size);
  return {static_cast<double>(across.begin) * x_scale, static_cast<double>(down.begin) * y_scale,
          side * x_scale, side * y_scale};
}

Tensor preprocess(const Image& image, const Preprocessing& how) {
  PALI_ASSERT(how.size >= 1 && how.size <= 1 << 14 && how.resized >= 1);
  const int side = static_cast<int>(how.size);
  ImageU8 resized;
  std::span<const uint8_t> rgb = image.rgb();
  if (image.width() != side || image.height() != side || crops(how)) {
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
