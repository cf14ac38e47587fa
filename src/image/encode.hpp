// Writing pictures: the one file that knows stb_image_write.
#pragma once

#include <filesystem>

#include "image/image.hpp"

namespace pali {

// 8-bit RGB PNG, written beside and renamed. Throws Error(invalid_argument).
void write_png(const std::filesystem::path& path, const ImageU8& image);

}  // namespace pali
