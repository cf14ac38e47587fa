// From the planes of a decoded JPEG to RGB: chroma upsampling and colour conversion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "image/image.hpp"

namespace pali {

// One component; borrows. A sample stands for `across` x `down` pixels of the picture.
struct JpegPlane {
  const uint8_t* data = nullptr;
  size_t stride = 0;
  int width = 0, height = 0;  // samples that belong to the picture, without padding
  int across = 1, down = 1;
};

// As the samples are stored; CMYK and YCCK inverted, as Adobe does and Pillow assumes.
enum class JpegColor { gray, rgb, ycc, cmyk, ycck };

// 1, 3 or 4 planes, as `color` asks. Equals libjpeg-turbo with its default ("fancy") upsampling and
// Pillow's convert("RGB") to the last bit.
ImageU8 jpeg_to_rgb(std::span<const JpegPlane> planes, JpegColor color, int width, int height);

}  // namespace pali
