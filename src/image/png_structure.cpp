// Walks the chunks of a PNG to the end before a decoder sees them: sizes are checked before
// anything is allocated, checksums are compared, and a file that was cut short is found out.
#include <array>

#include "image/formats.hpp"

namespace pali {
namespace {

// Deflate never expands by more than this.
constexpr int64_t kMaxDeflateRatio = 1032;

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t n = 0; n < 256; ++n) {
    uint32_t c = n;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[n] = c;
  }
  return table;
}

// CRC-32 of ISO 3309, as PNG (RFC 2083) wants it.
uint32_t crc32(const uint8_t* data, size_t size) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; ++i) crc = kTable[(crc ^ data[i]) & 0xff] ^ (crc >> 8);
  return ~crc;
}

}  // namespace

PngStructure check_png(ByteView png, const Reading& reading) {
  PngStructure found;
  int64_t bits_per_pixel = 0, data_bytes = 0;
  bool has_header = false;
  size_t at = 8;
  while (true) {
    if (!png.has(at, 12)) fail_truncated("PNG", reading);
    const size_t length = png.be32(at);
    if (!png.has(at + 12, length)) fail_truncated("PNG", reading);
    const bool critical = (png.u8(at + 4) & 0x20) == 0;
    if (critical && crc32(png.data() + at + 4, length + 4) != png.be32(at + 8 + length)) {
      fail_corrupt("PNG chunk with a wrong checksum", reading);
    }
    if (png.starts(at + 4, "CgBI")) fail_unsupported("Apple's PNG variant CgBI", reading);
    if (!has_header) {
      if (!png.starts(at + 4, "IHDR") || length != 13) fail_corrupt("PNG without IHDR", reading);
      has_header = true;
      found.width = png.be32(at + 8);
      found.height = png.be32(at + 12);
      check_size(found.width, found.height, reading);
      constexpr int kChannels[8] = {1, 0, 3, 1, 2, 0, 4, 0};
      bits_per_pixel = static_cast<int64_t>(png.u8(at + 16)) * kChannels[png.u8(at + 17) & 7];
    } else if (png.starts(at + 4, "PLTE")) {
      found.palette_offset = at;
      found.palette_entries = length / 3;
    } else if (png.starts(at + 4, "IDAT")) {
      data_bytes += static_cast<int64_t>(length);
    } else if (png.starts(at + 4, "IEND")) {
      break;
    }
    at += 12 + length;
  }
  if (data_bytes == 0) fail_corrupt("PNG without a picture", reading);
  if (found.width * found.height / 8 * bits_per_pixel > data_bytes * kMaxDeflateRatio) {
    fail_truncated("PNG", reading);
  }
  return found;
}

}  // namespace pali
