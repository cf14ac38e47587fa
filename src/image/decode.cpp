// From the bytes of a file to upright RGB. The one file that knows stb_image, which decodes JPEG
// and PNG here, behind a walk over their structure and a bound on every allocation.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "image/formats.hpp"
#include "image/image.hpp"

namespace {

// stb_image grows its buffers as the data ask for it. This holds it to what the picture can need.
struct AllocationBound {
  size_t largest = 0;
  bool out_of_memory = false;
};
thread_local AllocationBound* current_bound = nullptr;

bool allowed(size_t size) { return current_bound == nullptr || size <= current_bound->largest; }

void* noted(void* memory) {
  if (memory == nullptr && current_bound != nullptr) current_bound->out_of_memory = true;
  return memory;
}
// Zeros, so that what a damaged file leaves unset is at least the same every time.
void* bounded_malloc(size_t size) { return allowed(size) ? noted(std::calloc(size, 1)) : nullptr; }
void* bounded_realloc(void* memory, size_t size) {
  return allowed(size) ? noted(std::realloc(memory, size)) : nullptr;
}

}  // namespace

#define STBI_MALLOC(size) bounded_malloc(size)
#define STBI_REALLOC(memory, size) bounded_realloc(memory, size)
#define STBI_FREE(memory) std::free(memory)
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace pali {

void fail_corrupt(std::string_view what, const Reading& reading) {
  throw Error(ErrorCode::corrupt_file, std::string(what) + " (" + reading.name +
                                           "); the file is damaged: fetch or export it again");
}

void fail_truncated(std::string_view format, const Reading& reading) {
  throw Error(ErrorCode::corrupt_file, std::string(format) + " image cut short (" + reading.name +
                                           "); the file is not complete: fetch or export it again");
}

void fail_unsupported(std::string_view what, const Reading& reading) {
  throw Error(ErrorCode::unsupported, std::string(what) + " is not supported (" + reading.name +
                                          "); convert it, for instance: magick '" + reading.name +
                                          "' picture.png");
}

void check_size(int64_t width, int64_t height, const Reading& reading) {
  const std::string size = std::to_string(width) + "x" + std::to_string(height);
  if (width < 1 || height < 1) fail_corrupt("image of " + size + " pixels", reading);
  if (width > INT_MAX || height > INT_MAX || width > reading.options.max_pixels / height) {
    throw Error(ErrorCode::invalid_argument,
                "image of " + size + " pixels, more than the limit of " +
                    std::to_string(reading.options.max_pixels) + " (" + reading.name +
                    "); scale it down, or raise the limit (--max-pixels)");
  }
  if (width > STBI_MAX_DIMENSIONS || height > STBI_MAX_DIMENSIONS) {
    fail_unsupported("image side of more than 16777216 pixels", reading);
  }
}

namespace {

// stb_image's 1 (gray), 2 (gray, alpha), 3 or 4 channels become RGB.
void to_rgb(const uint8_t* from, int channels, bool white_background, std::vector<uint8_t>& rgb) {
  const bool gray = channels <= 2, blend = white_background && channels % 2 == 0;
  for (size_t i = 0; i < rgb.size(); i += 3, from += channels) {
    for (int c = 0; c < 3; ++c) {
      const uint8_t value = from[gray ? 0 : c];
      rgb[i + static_cast<size_t>(c)] = blend ? over_white(value, from[channels - 1]) : value;
    }
  }
}

ImageU8 decode_with_stb(ByteView file, int64_t width, int64_t height, const char* format,
                        const Reading& reading) {
  if (file.size() > INT_MAX) fail_unsupported("image file of more than 2 GB", reading);
  const int bytes = static_cast<int>(file.size());
  int w = 0, h = 0, channels = 0;
  if (!stbi_info_from_memory(file.data(), bytes, &w, &h, &channels)) {
    fail_corrupt(std::string(format) + " image: " + stbi_failure_reason(), reading);
  }
  if (w != width || h != height) fail_corrupt("image header that contradicts itself", reading);
  // 16-bit RGBA is the widest pixel; JPEG rounds planes up to whole blocks of up to 32 pixels; the
  // compressed bytes are gathered in a buffer that doubles.
  const size_t padded = static_cast<size_t>(width + 64) * static_cast<size_t>(height + 64);
  AllocationBound bound{std::max(padded * 8, 2 * file.size()) + (1 << 20), false};
  current_bound = &bound;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(file.data(), bytes, &w, &h, &channels, 0), stbi_image_free);
  current_bound = nullptr;
  if (!pixels) {
    if (bound.out_of_memory) {
      throw Error(ErrorCode::out_of_memory,
                  "not enough memory for an image of " + std::to_string(width) + "x" +
                      std::to_string(height) + " (" + reading.name + "); scale it down");
    }
    fail_corrupt(std::string(format) + " image: " + stbi_failure_reason(), reading);
  }
  ImageU8 image{w, h, {}};
  image.rgb.resize(static_cast<size_t>(w) * static_cast<size_t>(h) * 3);
  to_rgb(pixels.get(), channels, reading.options.white_background, image.rgb);
  return image;
}

// stb_image knows the colours of a four-channel JPEG only where an Adobe segment names them;
// libjpeg, and so PIL, takes CMYK without one and YCCK for every transform but 0.
ImageU8 decode_jpeg(ByteView file, const Reading& reading) {
  const JpegStructure jpeg = check_jpeg(file, reading);
  const bool clear = jpeg.adobe && (jpeg.adobe_transform == 0 || jpeg.adobe_transform == 2);
  if (jpeg.components != 4 || clear) {
    return decode_with_stb(file, jpeg.width, jpeg.height, "JPEG", reading);
  }
  std::vector<std::byte> told(file.size());
  std::memcpy(told.data(), file.data(), file.size());
  if (jpeg.adobe) {
    told[jpeg.adobe_transform_offset] = std::byte{2};
  } else {
    constexpr uint8_t kAdobe[16] = {0xff, 0xee, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100};
    const auto* first = reinterpret_cast<const std::byte*>(kAdobe);
    told.insert(told.begin() + 2, first, first + sizeof kAdobe);
  }
  return decode_with_stb(ByteView(told), jpeg.width, jpeg.height, "JPEG", reading);
}

// stb_image leaves the colours that a short palette lacks undefined; here they are gray, as in
// Pillow.
ImageU8 decode_png(ByteView file, const Reading& reading) {
  const PngStructure png = check_png(file, reading);
  if (png.palette_offset == 0 || png.palette_entries >= 256) {
    return decode_with_stb(file, png.width, png.height, "PNG", reading);
  }
  const size_t entries_end = png.palette_offset + 8 + 3 * png.palette_entries;
  std::vector<std::byte> padded(file.size() + 3 * (256 - png.palette_entries));
  std::byte* to = padded.data();
  std::memcpy(to, file.data(), entries_end);
  to[png.palette_offset + 2] = std::byte{3};  // 768 bytes
  to[png.palette_offset + 3] = std::byte{0};
  to += entries_end;
  for (size_t i = png.palette_entries; i < 256; ++i) {
    for (int c = 0; c < 3; ++c) *to++ = static_cast<std::byte>(i);
  }
  std::memcpy(to, file.data() + entries_end, file.size() - entries_end);
  return decode_with_stb(ByteView(padded), png.width, png.height, "PNG", reading);
}

// The name of a format that is known but not read; empty where nothing is recognised.
std::string_view foreign_format(ByteView file) {
  struct Magic {
    size_t offset;
    std::string_view bytes, name;
  };
  static constexpr Magic kMagics[] = {
      {8, "WEBP", "WebP"},
      {4, "ftypavi", "AVIF"},
      {4, "ftyphei", "HEIC"},
      {4, "ftyphev", "HEIC"},
      {4, "ftypmif", "HEIF"},
      {4, "ftypmsf", "HEIF"},
      {0, std::string_view("II*\0", 4), "TIFF"},
      {0, std::string_view("MM\0*", 4), "TIFF"},
      {0, "\xff\x0a", "JPEG XL"},
      {4, "JXL \r\n", "JPEG XL"},
      {4, "jP  \r\n", "JPEG 2000"},
      {0, "\xff\x4f\xff\x51", "JPEG 2000"},
      {0, "%PDF", "PDF"},
      {0, "8BPS", "Photoshop"},
      {0, std::string_view("\0\0\1\0", 4), "ICO"},
      {0, "qoif", "QOI"},
      {0, "#?RADIANCE", "Radiance HDR"},
      {0, "v/1\x01", "OpenEXR"},
      {0, "DDS ", "DDS"},
      {0, "<svg", "SVG"},
      {0, "<?xml", "SVG"},
  };
  for (const Magic& magic : kMagics) {
    if (file.starts(magic.offset, magic.bytes)) return magic.name;
  }
  return {};
}

ImageU8 decode_by_magic(ByteView file, const Reading& reading) {
  if (file.starts(0, "\xff\xd8\xff")) return decode_jpeg(file, reading);
  if (file.starts(0, "\x89PNG\r\n\x1a\n")) return decode_png(file, reading);
  if (file.starts(0, "GIF87a") || file.starts(0, "GIF89a")) return decode_gif(file, reading);
  if (file.starts(0, "BM")) return decode_bmp(file, reading);
  const bool pnm = file.starts(0, "P") && file.has(0, 3) && file.u8(1) >= '1' &&
                   file.u8(1) <= '7' && file.u8(2) <= ' ';
  if (pnm) return decode_pnm(file, reading);
  if (const std::string_view format = foreign_format(file); !format.empty()) {
    fail_unsupported(std::string(format), reading);
  }
  throw Error(ErrorCode::unsupported, "not an image in a known format (" + reading.name +
                                          "); give a JPEG, PNG, BMP, GIF or PNM file");
}

}  // namespace

ImageU8 decode_image(std::span<const std::byte> bytes, const ImageOptions& options,
                     const std::string& name) {
  const Reading reading{options, name};
  if (bytes.empty()) fail_corrupt("empty image", reading);
  return apply_orientation(decode_by_magic(ByteView(bytes), reading), exif_orientation(bytes));
}

}  // namespace pali
