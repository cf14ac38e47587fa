#include "images.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "pali/error.hpp"
#include "usage.hpp"

namespace pali::cli {
namespace {

// More than any picture under the limit of pixels; a stream without an end must not fill memory.
constexpr size_t kLargestStdin = size_t{1} << 30;

Image image_from_stdin(const ImageOptions& options) {
  static bool taken = false;
  if (taken) throw UsageError("'-' (stdin) can be one image only");
  taken = true;
  std::vector<std::byte> bytes;
  std::array<std::byte, 65536> part;
  for (size_t n = 0; (n = std::fread(part.data(), 1, part.size(), stdin)) > 0;) {
    bytes.insert(bytes.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(n));
    if (bytes.size() > kLargestStdin) {
      throw Error(ErrorCode::invalid_argument,
                  "more than 1 GiB without an end (stdin); give an image file");
    }
  }
  if (bytes.empty()) {
    throw Error(ErrorCode::corrupt_file, "no bytes (stdin); pipe an image file in");
  }
  return Image::from_memory(bytes, options, "stdin");
}

}  // namespace

Image load_image(const std::string& path, const ImageOptions& options) {
  return path == "-" ? image_from_stdin(options) : Image::from_file(path, options);
}

std::vector<Image> load_images(const std::vector<std::string>& paths, const ImageOptions& options) {
  std::vector<Image> images;
  for (const std::string& path : paths) images.push_back(load_image(path, options));
  return images;
}

bool names_an_image(const std::string& argument) {
  if (argument == "-") return true;
  std::string extension = std::filesystem::path(argument).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const char* known :
       {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".webp"}) {
    if (extension == known) return true;
  }
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(argument, ignored)) return false;
  char start[4] = {};
  std::ifstream(argument, std::ios::binary).read(start, sizeof start);
  const std::string_view magic(start, sizeof start);
  return magic.starts_with("\xff\xd8\xff") || magic.starts_with("\x89PNG") ||
         magic.starts_with("GIF8") || magic.starts_with("BM") || magic.starts_with("P5") ||
         magic.starts_with("P6");
}

}  // namespace pali::cli
