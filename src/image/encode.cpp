// The one file that knows stb_image_write.
#include "image/encode.hpp"

#include <climits>
#include <cstdlib>
#include <memory>

#include "base/assert.hpp"
#include "base/output_file.hpp"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace pali {

void write_png(const std::filesystem::path& path, const ImageU8& image) {
  const int64_t row_bytes = static_cast<int64_t>(image.width) * 3;
  PALI_ASSERT(image.width > 0 && image.height > 0);
  PALI_ASSERT(static_cast<int64_t>(image.rgb.size()) == row_bytes * image.height);
  // stb_image_write counts in int.
  if ((row_bytes + 1) * image.height > INT_MAX / 2) {
    throw Error(ErrorCode::invalid_argument,
                "picture too large to be written as PNG: " + std::to_string(image.width) + "x" +
                    std::to_string(image.height) + " (" + path.string() + "); scale it down");
  }
  OutputFile file(path);
  int size = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> png(
      stbi_write_png_to_mem(image.rgb.data(), static_cast<int>(row_bytes), image.width,
                            image.height, 3, &size),
      std::free);
  if (!png) {
    throw Error(ErrorCode::out_of_memory,
                "not enough memory to write a picture (" + path.string() + "); scale it down");
  }
  file.write(std::span(reinterpret_cast<const std::byte*>(png.get()), static_cast<size_t>(size)));
  file.commit();
}

}  // namespace pali
