// Which way up a picture is: the EXIF orientation of JPEG (APP1) and PNG (eXIf), and turning
// pixels by it. Malformed EXIF is no EXIF: cameras and editors write a lot of it.
#include <cstring>
#include <optional>
#include <utility>

#include "image/bytes.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

constexpr uint32_t kOrientationTag = 0x0112;
constexpr uint32_t kShort = 3, kLong = 4;

// `tiff` begins at the byte order mark; offsets in it count from there.
int orientation_of_tiff(ByteView tiff) {
  const bool little = tiff.starts(0, "II");
  if (!little && !tiff.starts(0, "MM")) return 1;
  const auto u16 = [&](size_t at) { return little ? tiff.le16(at) : tiff.be16(at); };
  const auto u32 = [&](size_t at) { return little ? tiff.le32(at) : tiff.be32(at); };
  if (!tiff.has(0, 8) || u16(2) != 42) return 1;
  const size_t directory = u32(4);
  if (!tiff.has(directory, 2)) return 1;
  const size_t entries = u16(directory);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (!tiff.has(entry, 12)) return 1;
    if (u16(entry) != kOrientationTag) continue;
    const uint32_t type = u16(entry + 2);
    if (u32(entry + 4) != 1 || (type != kShort && type != kLong)) return 1;
    const uint32_t value = type == kShort ? u16(entry + 8) : u32(entry + 8);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

int orientation_of_exif(std::span<const std::byte> exif) {
  const bool prefixed = ByteView(exif).starts(0, std::string_view("Exif\0\0", 6));
  return orientation_of_tiff(ByteView(prefixed ? exif.subspan(6) : exif));
}

int orientation_of_jpeg(std::span<const std::byte> bytes) {
  const ByteView jpeg(bytes);
  size_t at = 2;
  while (jpeg.has(at, 4)) {
    if (jpeg.u8(at) != 0xff) return 1;
    const uint32_t marker = jpeg.u8(at + 1);
    if (marker == 0xff) {  // fill byte
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return 1;
    const size_t length = jpeg.be16(at + 2);
    if (length < 2 || !jpeg.has(at + 2, length)) return 1;
    if (marker == 0xe1 && jpeg.starts(at + 4, std::string_view("Exif\0\0", 6)) && length >= 8) {
      return orientation_of_exif(bytes.subspan(at + 4, length - 2));
    }
    at += 2 + length;
  }
  return 1;
}

int orientation_of_png(std::span<const std::byte> bytes) {
  const ByteView png(bytes);
  size_t at = 8;
  while (png.has(at, 12)) {
    const size_t length = png.be32(at);
    if (!png.has(at + 8, length)) return 1;
    if (png.starts(at + 4, "eXIf")) return orientation_of_exif(bytes.subspan(at + 8, length));
    if (png.starts(at + 4, "IEND")) return 1;
    at += 12 + length;
  }
  return 1;
}

}  // namespace

int exif_orientation(std::span<const std::byte> bytes) {
  const ByteView view(bytes);
  if (view.starts(0, "\xff\xd8")) return orientation_of_jpeg(bytes);
  if (view.starts(0, "\x89PNG\r\n\x1a\n")) return orientation_of_png(bytes);
  return 1;
}

ImageU8 apply_orientation(ImageU8 image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const int64_t w = image.width, h = image.height;
  const bool turned = orientation >= 5;
  ImageU8 out{turned ? image.height : image.width, turned ? image.width : image.height, {}};
  out.rgb.resize(image.rgb.size());
  // Source index = start + x * step_x + y * step_y of output pixel (x, y).
  int64_t start = 0, step_x = 0, step_y = 0;
  switch (orientation) {
    case 2:  // mirrored left to right
      start = w - 1, step_x = -1, step_y = w;
      break;
    case 3:  // upside down
      start = h * w - 1, step_x = -1, step_y = -w;
      break;
    case 4:  // mirrored top to bottom
      start = (h - 1) * w, step_x = 1, step_y = -w;
      break;
    case 5:  // transposed
      start = 0, step_x = w, step_y = 1;
      break;
    case 6:  // to be turned by 90 degrees clockwise
      start = (h - 1) * w, step_x = -w, step_y = 1;
      break;
    case 7:  // transposed over the other diagonal
      start = h * w - 1, step_x = -w, step_y = -1;
      break;
    default:  // 8: to be turned by 90 degrees counter-clockwise
      start = w - 1, step_x = w, step_y = -1;
  }
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < out.height; ++y) {
    const uint8_t* from = image.rgb.data() + (start + y * step_y) * 3;
    for (int x = 0; x < out.width; ++x, to += 3) std::memcpy(to, from + x * step_x * 3, 3);
  }
  return out;
}

}  // namespace pali
