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
#include "image/jpeg_color.hpp"

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
  // The name stands in the sentence as it is; a shell may want it quoted.
  const std::string input = reading.name == "stdin" ? "-" : "IMAGE";
  throw Error(ErrorCode::unsupported, std::string(what) + " is not supported (" + reading.name +
                                          "); convert it to PNG first: magick " + input +
                                          " picture.png");
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

// stb_image counts in int.
int int_size(ByteView file, const Reading& reading) {
  if (file.size() > INT_MAX) fail_unsupported("image file of more than 2 GB", reading);
  return static_cast<int>(file.size());
}

// 16-bit RGBA is the widest pixel; JPEG rounds planes up to whole blocks of up to 32 pixels; the
// compressed bytes are gathered in a buffer that doubles.
AllocationBound bound_of(int64_t width, int64_t height, ByteView file) {
  const size_t padded = static_cast<size_t>(width + 64) * static_cast<size_t>(height + 64);
  return {std::max(padded * 8, 2 * file.size()) + (1 << 20), false};
}

[[noreturn]] void fail_decoding(const char* format, const AllocationBound& bound,
                                const Reading& reading) {
  if (bound.out_of_memory) {
    throw Error(ErrorCode::out_of_memory, "not enough memory for the " + std::string(format) +
                                              " image (" + reading.name + "); scale it down");
  }
  fail_corrupt(std::string(format) + " image: " + stbi_failure_reason(), reading);
}

ImageU8 decode_checked_png(ByteView file, const PngStructure& png, const Reading& reading) {
  const int bytes = int_size(file, reading);
  int width = 0, height = 0, channels = 0;
  AllocationBound bound = bound_of(png.width, png.height, file);
  current_bound = &bound;
  const bool header = stbi_info_from_memory(file.data(), bytes, &width, &height, &channels) != 0;
  const bool agrees = header && width == png.width && height == png.height;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      agrees ? stbi_load_from_memory(file.data(), bytes, &width, &height, &channels, 0) : nullptr,
      stbi_image_free);
  current_bound = nullptr;
  if (header && !agrees) fail_corrupt("PNG header that contradicts itself", reading);
  if (!pixels) fail_decoding("PNG", bound, reading);
  ImageU8 image{width, height, {}};
  image.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  to_rgb(pixels.get(), channels, reading.options.white_background, image.rgb);
  return image;
}

// As libjpeg guesses it.
JpegColor color_of(const stbi__jpeg& jpeg) {
  const int adobe = jpeg.app14_color_transform;  // -1: no Adobe segment
  switch (jpeg.s->img_n) {
    case 1:
      return JpegColor::gray;
    case 4:
      return adobe <= 0 ? JpegColor::cmyk : JpegColor::ycck;
    default:
      if (jpeg.jfif) return JpegColor::ycc;
      return adobe == 0 || (adobe < 0 && jpeg.rgb == 3) ? JpegColor::rgb : JpegColor::ycc;
  }
}

ImageU8 decode_jpeg(ByteView file, const Reading& reading) {
  const JpegStructure structure = check_jpeg(file, reading);
  const int width = static_cast<int>(structure.width), height = static_cast<int>(structure.height);
  const int bytes = int_size(file, reading);
  stbi__context source = {};
  stbi__start_mem(&source, file.data(), bytes);
  const auto jpeg = std::make_unique<stbi__jpeg>();  // zeros
  jpeg->s = &source;
  stbi__setup_jpeg(jpeg.get());
  AllocationBound bound = bound_of(width, height, file);
  current_bound = &bound;
  const bool decoded = stbi__decode_jpeg_image(jpeg.get()) != 0;
  current_bound = nullptr;
  const std::unique_ptr<stbi__jpeg, void (*)(stbi__jpeg*)> planes_owner(jpeg.get(),
                                                                        stbi__cleanup_jpeg);
  if (!decoded) fail_decoding("JPEG", bound, reading);
  if (source.img_x != static_cast<stbi__uint32>(width) ||
      source.img_y != static_cast<stbi__uint32>(height) || source.img_n != structure.components) {
    fail_corrupt("JPEG header that contradicts itself", reading);
  }
  std::vector<JpegPlane> planes;
  for (int i = 0; i < source.img_n; ++i) {
    const auto& component = jpeg->img_comp[i];
    planes.push_back({component.data, static_cast<size_t>(component.w2), component.x, component.y,
                      jpeg->img_h_max / component.h, jpeg->img_v_max / component.v});
  }
  return jpeg_to_rgb(planes, color_of(*jpeg), width, height);
}

// stb_image leaves the colours that a short palette lacks undefined; here they are gray, as in
// Pillow.
ImageU8 decode_png(ByteView file, const Reading& reading) {
  const PngStructure png = check_png(file, reading);
  if (png.palette_offset == 0 || png.palette_entries >= 256) {
    return decode_checked_png(file, png, reading);
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
  return decode_checked_png(ByteView(padded), png, reading);
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
