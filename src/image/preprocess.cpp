// Pixels as transformers' SiglipImageProcessor (Pillow backend) gives them to the vision tower.
// Ref: transformers 5.23, image_transforms.py: rescale() multiplies in double and rounds to f32;
// normalize() subtracts and divides in f32.
#include "base/assert.hpp"
#include "image/image.hpp"

namespace pali {

Tensor preprocess(const Image& image, const Preprocessing& how) {
  PALI_ASSERT(how.size >= 1 && how.size <= 1 << 14);
  const int side = static_cast<int>(how.size);
  ImageU8 resized;
  std::span<const uint8_t> rgb = image.rgb();
  if (image.width() != side || image.height() != side) {
    resized = resize(image.width(), image.height(), rgb, side, side, how.resample);
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
