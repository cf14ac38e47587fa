// pali::Image: where pictures come from.
#include "image/image.hpp"

#include <utility>

#include "base/mapped_file.hpp"
#include "pali/error.hpp"

namespace pali {

Image::Image(int width, int height, std::shared_ptr<const std::vector<uint8_t>> pixels,
             std::string name)
    : width_(width), height_(height), pixels_(std::move(pixels)), name_(std::move(name)) {}

Image Image::from_file(const std::filesystem::path& path, const ImageOptions& options) {
  const MappedFile file = MappedFile::open(path);
  return from_memory(file.bytes(), options, path.string());
}

Image Image::from_memory(std::span<const std::byte> bytes, const ImageOptions& options,
                         std::string name) {
  ImageU8 image = decode_image(bytes, options, name);
  const int width = image.width, height = image.height;
  return Image(width, height, std::make_shared<const std::vector<uint8_t>>(std::move(image.rgb)),
               std::move(name));
}

Image Image::from_rgb(int width, int height, std::span<const uint8_t> rgb, std::string name) {
  if (width < 1 || height < 1 ||
      rgb.size() / 3 / static_cast<size_t>(width) != static_cast<size_t>(height) ||
      rgb.size() != static_cast<size_t>(width) * static_cast<size_t>(height) * 3) {
    throw Error(ErrorCode::invalid_argument,
                "expected width * height * 3 bytes of RGB, found " + std::to_string(rgb.size()) +
                    " for " + std::to_string(width) + "x" + std::to_string(height) + " (" + name +
                    "); give the whole picture, rows without padding");
  }
  return Image(width, height, std::make_shared<const std::vector<uint8_t>>(rgb.begin(), rgb.end()),
               std::move(name));
}

}  // namespace pali
