// GIF: the first frame on its screen. Written here because transparent pixels have to keep their
// palette colour, as PIL's convert("RGB") lets them, and because a short file has to be found.
#include <algorithm>
#include <array>
#include <vector>

#include "image/formats.hpp"

namespace pali {
namespace {

using Palette = std::array<uint8_t, 256 * 3>;

// Colours that the file lacks are gray, as in Pillow.
Palette read_palette(ByteView gif, size_t at, size_t colours) {
  Palette palette;
  for (size_t i = 0; i < palette.size(); ++i) palette[i] = static_cast<uint8_t>(i / 3);
  for (size_t i = 0; i < colours * 3; ++i) palette[i] = static_cast<uint8_t>(gif.u8(at + i));
  return palette;
}

// The offset behind a chain of data sub-blocks; their bytes go to `data` where it is given.
size_t read_blocks(ByteView gif, size_t at, std::vector<uint8_t>* data, const Reading& reading) {
  while (true) {
    if (!gif.has(at, 1)) fail_truncated("GIF", reading);
    const size_t count = gif.u8(at++);
    if (count == 0) return at;
    if (!gif.has(at, count)) fail_truncated("GIF", reading);
    if (data) data->insert(data->end(), gif.data() + at, gif.data() + at + count);
    at += count;
  }
}

// Variable-length LZW, codes packed from the low bit on. Returns `count` palette indices.
std::vector<uint8_t> lzw(const std::vector<uint8_t>& data, uint32_t code_bits, size_t count,
                         const Reading& reading) {
  constexpr uint32_t kCodes = 4096;
  std::array<uint16_t, kCodes> prefix;
  std::array<uint8_t, kCodes> last, first;
  std::array<uint16_t, kCodes> length;
  const uint32_t clear = 1u << code_bits, end = clear + 1;
  for (uint32_t i = 0; i < clear; ++i) {
    prefix[i] = 0;
    first[i] = last[i] = static_cast<uint8_t>(i);
    length[i] = 1;
  }
  std::vector<uint8_t> out;
  out.reserve(count);
  uint32_t next = end + 1, width = code_bits + 1, buffer = 0, held = 0;
  uint32_t previous = kCodes;  // none
  for (size_t at = 0; out.size() < count;) {
    while (held < width) {
      if (at == data.size()) fail_truncated("GIF", reading);
      buffer |= static_cast<uint32_t>(data[at++]) << held;
      held += 8;
    }
    const uint32_t code = buffer & ((1u << width) - 1);
    buffer >>= width;
    held -= width;
    if (code == end) fail_truncated("GIF", reading);
    if (code == clear) {
      next = end + 1;
      width = code_bits + 1;
      previous = kCodes;
      continue;
    }
    if (code > next || (code == next && previous == kCodes) || (code >= next && next == kCodes)) {
      fail_corrupt("GIF with an impossible code", reading);
    }
    if (previous != kCodes && next < kCodes) {
      prefix[next] = static_cast<uint16_t>(previous);
      first[next] = first[previous];
      last[next] = first[code == next ? previous : code];
      length[next] = static_cast<uint16_t>(length[previous] + 1);
      ++next;
      if (next == 1u << width && width < 12) ++width;
    }
    const size_t from = out.size();
    out.resize(from + length[code]);
    uint32_t walk = code;
    for (size_t i = out.size(); i > from; walk = prefix[walk]) out[--i] = last[walk];
    previous = code;
  }
  out.resize(count);
  return out;
}

// The row that row `i` of interlaced data belongs to.
std::vector<int64_t> row_order(int64_t height, bool interlaced) {
  std::vector<int64_t> rows;
  rows.reserve(static_cast<size_t>(height));
  constexpr int kStart[] = {0, 4, 2, 1}, kStep[] = {8, 8, 4, 2};
  for (int pass = 0; pass < 4; ++pass) {
    for (int64_t y = kStart[pass]; interlaced && y < height; y += kStep[pass]) rows.push_back(y);
  }
  for (int64_t y = 0; !interlaced && y < height; ++y) rows.push_back(y);
  return rows;
}

}  // namespace

ImageU8 decode_gif(ByteView gif, const Reading& reading) {
  if (!gif.has(0, 13)) fail_truncated("GIF", reading);
  int64_t width = gif.le16(6), height = gif.le16(8);
  size_t at = 13;
  Palette palette = read_palette(gif, 0, 0);
  const auto take_palette = [&](uint32_t flags) {
    if ((flags & 0x80) == 0) return;
    const size_t colours = size_t{2} << (flags & 7);
    if (!gif.has(at, colours * 3)) fail_truncated("GIF", reading);
    palette = read_palette(gif, at, colours);
    at += colours * 3;
  };
  take_palette(gif.u8(10));

  int transparent = -1;
  ImageU8 image;
  while (true) {
    if (!gif.has(at, 1)) fail_truncated("GIF", reading);
    const uint32_t kind = gif.u8(at++);
    if (kind == 0x3b) break;
    if (kind == 0x21) {  // extension
      if (!gif.has(at, 6)) fail_truncated("GIF", reading);
      const bool control = gif.u8(at) == 0xf9 && gif.u8(at + 1) == 4;
      if (control && image.rgb.empty() && (gif.u8(at + 2) & 1)) {
        transparent = static_cast<int>(gif.u8(at + 5));
      }
      at = read_blocks(gif, at + 1, nullptr, reading);
      continue;
    }
    if (kind != 0x2c) fail_corrupt("GIF with an unknown block", reading);
    if (!gif.has(at, 9)) fail_truncated("GIF", reading);
    const int64_t left = gif.le16(at), top = gif.le16(at + 2);
    const int64_t frame_width = gif.le16(at + 4), frame_height = gif.le16(at + 6);
    const uint32_t flags = gif.u8(at + 8);
    at += 9;
    if (!image.rgb.empty()) {  // a later frame: only walked over
      if (flags & 0x80) at += 3 * (size_t{2} << (flags & 7));
      if (!gif.has(at, 1)) fail_truncated("GIF", reading);
      at = read_blocks(gif, at + 1, nullptr, reading);
      continue;
    }
    take_palette(flags);
    // A frame that stands out widens the screen, as in Pillow.
    width = std::max(width, left + frame_width);
    height = std::max(height, top + frame_height);
    check_size(width, height, reading);
    check_size(frame_width, frame_height, reading);
    if (!gif.has(at, 1)) fail_truncated("GIF", reading);
    const uint32_t code_bits = gif.u8(at++);
    if (code_bits < 1 || code_bits > 8) fail_corrupt("GIF with an impossible code size", reading);
    std::vector<uint8_t> data;
    at = read_blocks(gif, at, &data, reading);
    const std::vector<uint8_t> indices =
        lzw(data, code_bits, static_cast<size_t>(frame_width * frame_height), reading);

    image = {static_cast<int>(width), static_cast<int>(height), {}};
    image.rgb.resize(static_cast<size_t>(width * height) * 3);
    const auto put = [&](uint8_t* to, int index) {
      const bool white = index == transparent && reading.options.white_background;
      for (int c = 0; c < 3; ++c) to[c] = white ? 255 : palette[static_cast<size_t>(3 * index + c)];
    };
    const int outside = std::max(transparent, 0);
    for (size_t i = 0; i < image.rgb.size(); i += 3) put(&image.rgb[i], outside);
    const std::vector<int64_t> rows = row_order(frame_height, (flags & 0x40) != 0);
    size_t index = 0;
    for (const int64_t row : rows) {
      uint8_t* to = &image.rgb[static_cast<size_t>((top + row) * width + left) * 3];
      for (int64_t x = 0; x < frame_width; ++x, to += 3) put(to, indices[index++]);
    }
  }
  if (image.rgb.empty()) fail_corrupt("GIF without a picture", reading);
  return image;
}

}  // namespace pali
