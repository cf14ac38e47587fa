// The file formats, one function each, and what they share: limits, errors, transparency.
// `bytes` is the whole file; its magic has been recognised.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "image/bytes.hpp"
#include "image/image.hpp"
#include "pali/error.hpp"

namespace pali {

// What the caller said about the picture being read.
struct Reading {
  const ImageOptions& options;
  const std::string& name;
};

// Throws Error(corrupt_file): "WHAT (NAME); ...".
[[noreturn]] void fail_corrupt(std::string_view what, const Reading& reading);
[[noreturn]] void fail_truncated(std::string_view format, const Reading& reading);
// Throws Error(unsupported), naming the command that converts the file.
[[noreturn]] void fail_unsupported(std::string_view what, const Reading& reading);
// Throws where a side is 0 or the pixels are more than the limit. Call before allocating.
void check_size(int64_t width, int64_t height, const Reading& reading);

// 8-bit sample `value` with `alpha` over white, rounded as Pillow's paste() does.
inline uint8_t over_white(uint32_t value, uint32_t alpha) {
  const uint32_t sum = value * alpha + 255 * (255 - alpha) + 128;
  return static_cast<uint8_t>((sum + (sum >> 8)) >> 8);
}

// What the structure of a file says, markers or chunks walked to its end. Throws Error where the
// walk does not arrive: stb_image would fill the missing part with gray.
struct JpegStructure {
  int64_t width = 0, height = 0;
  int components = 0;
};
JpegStructure check_jpeg(ByteView bytes, const Reading& reading);

struct PngStructure {
  int64_t width = 0, height = 0;
  size_t palette_offset = 0;  // of the PLTE chunk; 0: none
  size_t palette_entries = 0;
};
PngStructure check_png(ByteView bytes, const Reading& reading);

ImageU8 decode_bmp(ByteView bytes, const Reading& reading);
ImageU8 decode_gif(ByteView bytes, const Reading& reading);
ImageU8 decode_pnm(ByteView bytes, const Reading& reading);

}  // namespace pali
