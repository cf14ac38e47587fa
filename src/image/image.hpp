// From bytes to the pixels a vision tower eats. Knows nothing of models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
// The same, but of a picture resized to whole_width x whole_height only the part at (x, y): what is
// around it is never made, and may be larger than any memory.
struct ResizedPart {
  int64_t whole_width = 0, whole_height = 0;
  int64_t x = 0, y = 0;
  int width = 0, height = 0;
};
ImageU8 resize_part(int width, int height, std::span<const uint8_t> rgb, const ResizedPart& part,
                    Resample filter);

// resize_float.cpp: TensorFlow's bilinear resizing in f32, cut to 8 bits. Sizes >= 1.
enum class Antialias { no, yes };
ImageU8 resize_float(int width, int height, std::span<const uint8_t> rgb, int new_width,
                     int new_height, Antialias antialias);

// Whose processing: Hugging Face's (Pillow), or big_vision's (TensorFlow) without and with
// antialias.
enum class Pipeline { hf, bv, bv_aa };
const char* pipeline_name(Pipeline pipeline);  // "hf", "bv", "bv-aa"
std::optional<Pipeline> parse_pipeline(std::string_view name);

// What of an image becomes the square: resized alone, or with the square cut out of its middle.
enum class Fit {
  stretch,  // the whole, made square
  crop,     // the shorter side becomes `resized`, the longer follows
};

// preprocess.cpp: what preprocessor_config.json says.
struct Preprocessing {
  int64_t size = 224;  // side of the square that the model sees
  Pipeline pipeline = Pipeline::hf;
  Resample resample = Resample::bicubic;  // of hf
  Fit fit = Fit::stretch;                 // of hf; big_vision's always stretches
  int64_t resized = 224;                  // Fit::crop
  double rescale = 1.0 / 255.0;
  float mean[3] = {0.5f, 0.5f, 0.5f};
  float std[3] = {0.5f, 0.5f, 0.5f};

  // The same for a square of another size.
  Preprocessing at(int64_t new_size) const;
};
// Pixels[S, S, 3] as planes: [3, S*S], channel-major as the reference's NCHW tensors.
// value = (u8 * rescale - mean) / std, computed as SiglipImageProcessor does. With its own numbers
// that is, bit for bit, big_vision's value_range(-1, 1): -1 + u8 / 255 * 2.
Tensor preprocess(const Image& image, const Preprocessing& how);

// The part of an image of width x height px that preprocess() shows, in its pixels; beyond it where
// the square is larger than what is left of the image.
struct VisiblePart {
  double x = 0, y = 0, width = 0, height = 0;
};
VisiblePart visible_part(const Preprocessing& how, int width, int height);

}  // namespace pali
