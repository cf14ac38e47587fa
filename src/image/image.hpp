// From bytes to the pixels a vision tower eats. Knows nothing of models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "pali/image.hpp"

namespace pali {

// 8-bit RGB, row-major, interleaved.
struct ImageU8 {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

// decode.cpp: the one file that knows stb_image. Throws Error. EXIF orientation is applied.
ImageU8 decode_image(std::span<const std::byte> bytes, const ImageOptions& options,
                     const std::string& name);

// exif.cpp: orientation 1..8 of a JPEG's (or PNG's eXIf) header; 1 where absent or malformed.
int exif_orientation(std::span<const std::byte> bytes);
ImageU8 apply_orientation(ImageU8 image, int orientation);

// resize.cpp: Pillow's 8-bit convolution resampling, pixel-exact. Sizes >= 1.
enum class Resample { bilinear, bicubic };
ImageU8 resize(int width, int height, std::span<const uint8_t> rgb, int new_width, int new_height,
               Resample filter);

// preprocess.cpp: what preprocessor_config.json says.
struct Preprocessing {
  int64_t size = 224;  // side of the square
  Resample resample = Resample::bicubic;
  double rescale = 1.0 / 255.0;
  float mean[3] = {0.5f, 0.5f, 0.5f};
  float std[3] = {0.5f, 0.5f, 0.5f};
};
// Pixels[S, S, 3] as planes: [3, S*S], channel-major as the reference's NCHW tensors.
// value = (u8 * rescale - mean) / std, computed as SiglipImageProcessor does.
Tensor preprocess(const Image& image, const Preprocessing& how);

}  // namespace pali
