// PNM: binary gray (P5) and colour (P6), 8 and 16 bits. The other kinds are rare: an error that
// names the conversion.
#include <algorithm>
#include <cmath>
#include <vector>

#include "image/formats.hpp"

namespace pali {
namespace {

bool is_space(uint32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The next number of the header; comments run from # to the end of the line.
int64_t header_number(ByteView pnm, size_t& at, const Reading& reading) {
  while (pnm.has(at, 1) && (is_space(pnm.u8(at)) || pnm.u8(at) == '#')) {
    if (pnm.u8(at) == '#') {
      while (pnm.has(at, 1) && pnm.u8(at) != '\n' && pnm.u8(at) != '\r') ++at;
    } else {
      ++at;
    }
  }
  if (!pnm.has(at, 1)) fail_truncated("PNM", reading);
  int64_t value = 0;
  const size_t first = at;
  while (pnm.has(at, 1) && pnm.u8(at) >= '0' && pnm.u8(at) <= '9') {
    value = value * 10 + (pnm.u8(at++) - '0');
    if (at - first > 9) fail_corrupt("PNM header with a number too large", reading);
  }
  if (at == first) fail_corrupt("PNM header without the number expected", reading);
  return value;
}

// 65535 means full 16 bits: the high byte. Else value / largest * 255, rounded as Pillow does.
std::vector<uint8_t> levels(int64_t largest) {
  const int64_t codes = largest < 256 ? 256 : 65536;
  std::vector<uint8_t> level(static_cast<size_t>(codes));
  for (int64_t v = 0; v < codes; ++v) {
    const double scaled =
        std::nearbyint(static_cast<double>(v) / static_cast<double>(largest) * 255);
    level[static_cast<size_t>(v)] =
        static_cast<uint8_t>(largest == 65535 ? v >> 8 : std::min(scaled, 255.0));
  }
  return level;
}

}  // namespace

ImageU8 decode_pnm(ByteView pnm, const Reading& reading) {
  const uint32_t kind = pnm.u8(1);
  if (kind != '5' && kind != '6') {
    fail_unsupported(std::string("PNM of kind P") + static_cast<char>(kind), reading);
  }
  const int channels = kind == '6' ? 3 : 1;
  size_t at = 2;
  const int64_t width = header_number(pnm, at, reading);
  const int64_t height = header_number(pnm, at, reading);
  const int64_t largest = header_number(pnm, at, reading);
  if (largest < 1 || largest > 65535) fail_corrupt("PNM with an impossible maximum", reading);
  if (!pnm.has(at, 1)) fail_truncated("PNM", reading);
  if (!is_space(pnm.u8(at++))) fail_corrupt("PNM header without its end", reading);
  check_size(width, height, reading);
  const size_t sample_bytes = largest < 256 ? 1 : 2;
  const size_t samples = static_cast<size_t>(width * height * channels);
  if (!pnm.has(at, samples * sample_bytes)) fail_truncated("PNM", reading);

  const std::vector<uint8_t> level = levels(largest);
  ImageU8 image{static_cast<int>(width), static_cast<int>(height), {}};
  image.rgb.resize(static_cast<size_t>(width * height) * 3);
  uint8_t* to = image.rgb.data();
  for (size_t i = 0; i < samples; ++i, at += sample_bytes) {
    const uint8_t value = level[sample_bytes == 1 ? pnm.u8(at) : pnm.be16(at)];
    for (int copy = 0; copy < 3 / channels; ++copy) *to++ = value;
  }
  return image;
}

}  // namespace pali
