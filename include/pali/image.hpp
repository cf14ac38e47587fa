// A decoded picture, as the engine sees it: 8-bit RGB, upright (EXIF orientation applied).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pali/export.hpp"

namespace pali {

struct ImageOptions {
  // Pictures with more pixels than this are refused before anything is allocated (Pillow's limit).
  int64_t max_pixels = 178'956'970;
  // Transparent pictures: false drops alpha (as PIL's convert("RGB")), true composites on white.
  bool white_background = false;
};

// Immutable and cheap to copy: copies share the pixels. Safe to use from several threads.
class PALI_API Image {
 public:
  // JPEG, PNG, BMP, GIF (first frame), PNM. Throws Error: not_found, corrupt_file, unsupported,
  // invalid_argument (too many pixels).
  static Image from_file(const std::filesystem::path& path, const ImageOptions& options = {});
  // The same from bytes in memory; `name` stands in error messages and results.
  static Image from_memory(std::span<const std::byte> bytes, const ImageOptions& options = {},
                           std::string name = "image");
  // rgb: width * height * 3 bytes, row-major, interleaved; copied.
  static Image from_rgb(int width, int height, std::span<const uint8_t> rgb,
                        std::string name = "image");

  int width() const { return width_; }
  int height() const { return height_; }
  const std::string& name() const { return name_; }
  // height * width * 3 bytes.
  std::span<const uint8_t> rgb() const { return {pixels_->data(), pixels_->size()}; }

 private:
  Image(int width, int height, std::shared_ptr<const std::vector<uint8_t>> pixels,
        std::string name);

  int width_ = 0;
  int height_ = 0;
  std::shared_ptr<const std::vector<uint8_t>> pixels_;
  std::string name_;
};

}  // namespace pali
