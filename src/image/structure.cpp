// Walks the markers of a JPEG and the chunks of a PNG to the end before a decoder sees them: sizes
// are checked before anything is allocated, and a file that was cut short is found out.
#include <array>
#include <cstring>

#include "image/formats.hpp"

namespace pali {
namespace {

// Progressive encoders write about ten; every scan costs a pass over the whole picture.
constexpr int kMaxScans = 100;
// Deflate never expands by more than this.
constexpr int64_t kMaxDeflateRatio = 1032;

bool is_frame_header(uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// The offset of the first marker at or behind `at` that ends entropy-coded data.
size_t end_of_scan(ByteView jpeg, size_t at) {
  while (at < jpeg.size()) {
    const void* found = std::memchr(jpeg.data() + at, 0xff, jpeg.size() - at);
    if (found == nullptr) return jpeg.size();
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - jpeg.data());
    if (!jpeg.has(at, 2)) return jpeg.size();
    const uint32_t next = jpeg.u8(at + 1);
    const bool stuffed_or_restart = next == 0 || (next >= 0xd0 && next <= 0xd7);
    if (next == 0xff) {
      ++at;
    } else if (stuffed_or_restart) {
      at += 2;
    } else {
      return at;
    }
  }
  return at;
}

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

JpegStructure check_jpeg(ByteView jpeg, const Reading& reading) {
  JpegStructure found;
  int64_t entropy_bytes = 0;
  int scans = 0;
  size_t at = 2;
  while (true) {
    while (jpeg.has(at, 1) && jpeg.u8(at) != 0xff) ++at;  // padding, which some cameras leave
    while (jpeg.has(at, 1) && jpeg.u8(at) == 0xff) ++at;
    if (!jpeg.has(at, 1)) fail_truncated("JPEG", reading);
    const uint32_t marker = jpeg.u8(at++);
    if (marker == 0xd9) break;
    if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    if (!jpeg.has(at, 2)) fail_truncated("JPEG", reading);
    const size_t length = jpeg.be16(at);
    if (length < 2) fail_corrupt("JPEG segment of impossible length", reading);
    if (!jpeg.has(at, length)) fail_truncated("JPEG", reading);
    if (is_frame_header(marker)) {
      if (found.components != 0) fail_corrupt("JPEG with two frame headers", reading);
      if (length < 8) fail_corrupt("JPEG frame header too short", reading);
      if (marker > 0xc2) {
        fail_unsupported("lossless, hierarchical or arithmetic-coded JPEG", reading);
      }
      if (jpeg.u8(at + 2) != 8) fail_unsupported("JPEG of other than 8 bits", reading);
      found.height = jpeg.be16(at + 3);
      found.width = jpeg.be16(at + 5);
      found.components = static_cast<int>(jpeg.u8(at + 7));
      if (found.components != 1 && found.components != 3 && found.components != 4) {
        fail_unsupported("JPEG of " + std::to_string(found.components) + " components", reading);
      }
      check_size(found.width, found.height, reading);
    } else if (marker == 0xee && length >= 14 && jpeg.starts(at + 2, "Adobe")) {
      found.adobe = true;
      found.adobe_transform_offset = at + 13;
      found.adobe_transform = jpeg.u8(at + 13);
    }
    at += length;
    if (marker == 0xda) {
      if (found.components == 0) fail_corrupt("JPEG scan before its frame header", reading);
      if (++scans > kMaxScans) fail_corrupt("JPEG with more than 100 scans", reading);
      const size_t end = end_of_scan(jpeg, at);
      entropy_bytes += static_cast<int64_t>(end - at);
      at = end;
    }
  }
  if (scans == 0) fail_corrupt("JPEG without a picture", reading);
  // A block of 8x8 pixels costs a bit at the very least: less was cut out of the middle.
  const int64_t blocks = ((found.width + 7) / 8) * ((found.height + 7) / 8);
  if (entropy_bytes * 8 < blocks) fail_truncated("JPEG", reading);
  return found;
}

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
