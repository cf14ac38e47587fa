// BMP: palettes of 1, 4 and 8 bits, 16 and 32 bits with or without bit masks, 24 bits; upright or
// bottom-up. Written here because a picture has to come out as Pillow reads it (BmpImagePlugin.py:
// 5- and 6-bit channels, alpha only where a mask says so) and because a short file has to be found.
#include <bit>
#include <vector>

#include "image/formats.hpp"

namespace pali {
namespace {

struct BmpHeader {
  int64_t width = 0, height = 0;
  bool top_down = false;
  uint32_t bits = 0;
  size_t pixels = 0;                                 // offset
  uint32_t red = 0, green = 0, blue = 0, alpha = 0;  // masks
};

// One channel of a packed pixel, widened to 8 bits.
class Channel {
 public:
  explicit Channel(uint32_t mask)
      : mask_(mask), shift_(mask ? std::countr_zero(mask) : 0), top_(mask >> shift_) {}
  bool valid() const { return mask_ != 0 && std::has_single_bit(static_cast<uint64_t>(top_) + 1); }
  uint8_t operator()(uint32_t pixel) const {
    if (top_ == 0) return 255;
    return static_cast<uint8_t>(static_cast<uint64_t>((pixel & mask_) >> shift_) * 255 / top_);
  }

 private:
  uint32_t mask_;
  int shift_;
  uint32_t top_;
};

constexpr uint32_t kPlain = 0, kBitMasks = 3;

BmpHeader read_header(ByteView bmp, const Reading& reading) {
  if (!bmp.has(0, 26)) fail_truncated("BMP", reading);
  BmpHeader header;
  header.pixels = bmp.le32(10);
  const size_t size = bmp.le32(14);
  if (size == 12) {  // OS/2
    header.width = bmp.le16(18);
    header.height = bmp.le16(20);
    header.bits = bmp.le16(24);
  } else {
    if (size < 40 || size > 124) fail_corrupt("BMP header of unknown size", reading);
    if (!bmp.has(14, size)) fail_truncated("BMP", reading);
    header.width = static_cast<int32_t>(bmp.le32(18));
    const int64_t height = static_cast<int32_t>(bmp.le32(22));
    header.top_down = height < 0;
    header.height = height < 0 ? -height : height;
    header.bits = bmp.le16(28);
    const uint32_t compression = bmp.le32(30);
    if (compression != kPlain && compression != kBitMasks) {
      fail_unsupported("compressed BMP", reading);
    }
    if (compression == kBitMasks) {
      if (!bmp.has(54, 12)) fail_truncated("BMP", reading);
      header.red = bmp.le32(54);
      header.green = bmp.le32(58);
      header.blue = bmp.le32(62);
      if (size >= 56) header.alpha = bmp.le32(66);
      if (header.bits != 16 && header.bits != 32) fail_corrupt("BMP with stray masks", reading);
    }
  }
  const uint32_t bits = header.bits;
  if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    fail_unsupported("BMP of " + std::to_string(bits) + " bits", reading);
  }
  if ((header.red | header.green | header.blue) == 0) {
    header.red = bits == 16 ? 0x7c00 : 0xff0000;
    header.green = bits == 16 ? 0x3e0 : 0xff00;
    header.blue = bits == 16 ? 0x1f : 0xff;
  }
  return header;
}

// 256 colours as blue, green, red; those that the file lacks are gray, as in Pillow.
std::vector<uint8_t> read_palette(ByteView bmp, const BmpHeader& header, const Reading& reading) {
  std::vector<uint8_t> palette(256 * 3);
  for (size_t i = 0; i < palette.size(); ++i) palette[i] = static_cast<uint8_t>(i / 3);
  const size_t header_size = bmp.le32(14), entry = header_size == 12 ? 3 : 4;
  size_t colours = header_size == 12 ? 0 : bmp.le32(46);
  if (colours == 0 || colours > 256) colours = size_t{1} << header.bits;
  const size_t first = 14 + header_size;
  if (header.pixels >= first && (header.pixels - first) / entry < colours) {
    colours = (header.pixels - first) / entry;
  }
  if (!bmp.has(first, colours * entry)) fail_truncated("BMP", reading);
  for (size_t i = 0; i < colours; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      palette[3 * i + c] = static_cast<uint8_t>(bmp.u8(first + i * entry + c));
    }
  }
  return palette;
}

}  // namespace

ImageU8 decode_bmp(ByteView bmp, const Reading& reading) {
  const BmpHeader header = read_header(bmp, reading);
  check_size(header.width, header.height, reading);
  const uint32_t bits = header.bits;
  const size_t stride = static_cast<size_t>(header.width * bits + 31) / 32 * 4;
  // The padding of the last row may be missing, as some writers leave it out.
  const size_t needed = stride * static_cast<size_t>(header.height - 1) +
                        static_cast<size_t>(header.width * bits + 7) / 8;
  if (!bmp.has(header.pixels, needed)) fail_truncated("BMP", reading);
  std::vector<uint8_t> palette;
  if (bits <= 8) palette = read_palette(bmp, header, reading);
  const Channel red(header.red), green(header.green), blue(header.blue), alpha(header.alpha);
  if (bits > 8 && !(red.valid() && green.valid() && blue.valid())) {
    fail_corrupt("BMP with impossible masks", reading);
  }
  const bool blend = reading.options.white_background && alpha.valid();

  ImageU8 image{static_cast<int>(header.width), static_cast<int>(header.height), {}};
  image.rgb.resize(static_cast<size_t>(header.width * header.height) * 3);
  uint8_t* to = image.rgb.data();
  for (int64_t y = 0; y < header.height; ++y) {
    const int64_t row = header.top_down ? y : header.height - 1 - y;
    const size_t from = header.pixels + static_cast<size_t>(row) * stride;
    for (int64_t i = 0; i < header.width; ++i, to += 3) {
      const size_t x = static_cast<size_t>(i);
      if (bits <= 8) {
        const size_t shift = 8 - bits - x * bits % 8;
        const uint32_t index = bmp.u8(from + x * bits / 8) >> shift & ((1u << bits) - 1);
        for (int c = 0; c < 3; ++c) to[c] = palette[3 * index + 2 - c];
      } else if (bits == 24) {
        for (size_t c = 0; c < 3; ++c) to[c] = static_cast<uint8_t>(bmp.u8(from + 3 * x + 2 - c));
      } else {
        const uint32_t pixel = bits == 16 ? bmp.le16(from + 2 * x) : bmp.le32(from + 4 * x);
        to[0] = red(pixel);
        to[1] = green(pixel);
        to[2] = blue(pixel);
        if (blend) {
          for (int c = 0; c < 3; ++c) to[c] = over_white(to[c], alpha(pixel));
        }
      }
    }
  }
  return image;
}

}  // namespace pali
