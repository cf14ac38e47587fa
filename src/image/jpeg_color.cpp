// Written here because stb_image 2.27 mixes up the last two pixels of rows with half the chroma and
// rounds otherwise than libjpeg, so that pictures would not be those that models were trained on.
// Ref: libjpeg-turbo, jdsample.c (h2v1, h1v2 and h2v2 fancy upsampling) and jdcolor.c; Pillow,
// Convert.c (cmyk2rgb).
#include "image/jpeg_color.hpp"

#include <algorithm>
#include <vector>

namespace pali {
namespace {

// Turns rows of one plane into rows as wide as the picture.
class Upsampler {
 public:
  Upsampler(const JpegPlane& plane, int width)
      : plane_(plane),
        sums_(static_cast<size_t>(plane.width)),
        row_(static_cast<size_t>(std::max(width, plane.width * plane.across))) {
    const bool wide = plane.width > 2;  // libjpeg repeats samples of narrower planes
    smooth_across_ = plane.across == 2 && wide && plane.down <= 2;
    smooth_down_ = plane.down == 2 && (plane.across == 1 || smooth_across_);
  }

  const uint8_t* row(int y) {
    const int near = std::min(y / plane_.down, plane_.height - 1);
    if (smooth_down_) {
      const int other = y % 2 == 0 ? near - 1 : near + 1;
      blend(samples(near), samples(std::clamp(other, 0, plane_.height - 1)), y % 2 == 0);
    } else if (smooth_across_) {
      widen<2, 1, 2>(samples(near));
    } else {
      repeat(samples(near));
    }
    return row_.data();
  }

 private:
  const uint8_t* samples(int y) const {
    return plane_.data + static_cast<size_t>(y) * plane_.stride;
  }

  void repeat(const uint8_t* in) {
    uint8_t* out = row_.data();
    for (int x = 0; x < plane_.width; ++x) {
      for (int i = 0; i < plane_.across; ++i) *out++ = in[x];
    }
  }

  // Two samples of each of `in`: 3/4 of it and 1/4 of its neighbour to the left, to the right, plus
  // what is to round them, and over 2^kBits. At both ends it is its own neighbour.
  template <int kBits, int kLeft, int kRight, class Sample>
  void widen(const Sample* in) {
    const int last = plane_.width - 1;
    uint8_t* const out = row_.data();
    const auto one = [&](int x, int left, int right) {
      out[2 * x] = static_cast<uint8_t>((3 * in[x] + in[left] + kLeft) >> kBits);
      out[2 * x + 1] = static_cast<uint8_t>((3 * in[x] + in[right] + kRight) >> kBits);
    };
    one(0, 0, std::min(1, last));
    for (int x = 1; x < last; ++x) one(x, x - 1, x + 1);
    one(last, std::max(last - 1, 0), last);
  }

  // 3/4 of the nearer row, 1/4 of the farther one; the same across where that is halved too. The
  // rounding alternates.
  void blend(const uint8_t* near, const uint8_t* far, bool upper) {
    uint8_t* const out = row_.data();
    const int round = upper ? 1 : 2;
    for (int x = 0; x < plane_.width; ++x) {
      const int sum = 3 * near[x] + far[x];
      sums_[static_cast<size_t>(x)] = static_cast<uint16_t>(sum);
      if (plane_.across == 1) out[x] = static_cast<uint8_t>((sum + round) >> 2);
    }
    if (plane_.across == 2) widen<4, 8, 7>(sums_.data());
  }

  JpegPlane plane_;
  bool smooth_across_ = false, smooth_down_ = false;
  std::vector<uint16_t> sums_;
  std::vector<uint8_t> row_;
};

uint8_t clipped(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

// JFIF's YCbCr in 16 fractional bits: what a level of Cb or Cr adds to a colour.
struct Chroma {
  constexpr Chroma() {
    constexpr int kHalf = 1 << 15;
    for (int level = 0; level < 256; ++level) {
      const int c = level - 128;
      red[level] = (91881 * c + kHalf) >> 16;    // 1.402 Cr
      blue[level] = (116130 * c + kHalf) >> 16;  // 1.772 Cb
      green_of_cb[level] = -22554 * c + kHalf;   // 0.34414, before the shift
      green_of_cr[level] = -46802 * c;           // 0.71414
    }
  }
  int red[256] = {}, blue[256] = {}, green_of_cb[256] = {}, green_of_cr[256] = {};
};
constexpr Chroma kChroma;

void ycc_to_rgb(int y, int cb, int cr, uint8_t* rgb) {
  rgb[0] = clipped(y + kChroma.red[cr]);
  rgb[1] = clipped(y + ((kChroma.green_of_cb[cb] + kChroma.green_of_cr[cr]) >> 16));
  rgb[2] = clipped(y + kChroma.blue[cb]);
}

// Ink `ink` of 255 over what the black leaves, rounded as Pillow does.
uint8_t inked(int ink, int light) {
  const int product = ink * light + 128;
  return clipped(light - ((product + (product >> 8)) >> 8));
}

}  // namespace

ImageU8 jpeg_to_rgb(std::span<const JpegPlane> planes, JpegColor color, int width, int height) {
  std::vector<Upsampler> upsamplers;
  for (const JpegPlane& plane : planes) upsamplers.emplace_back(plane, width);
  ImageU8 image{width, height, {}};
  image.rgb.resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
  uint8_t* out = image.rgb.data();
  for (int y = 0; y < height; ++y) {
    const uint8_t* rows[4] = {};
    for (size_t i = 0; i < upsamplers.size(); ++i) rows[i] = upsamplers[i].row(y);
    const auto each = [&](auto pixel) {
      for (int x = 0; x < width; ++x, out += 3) pixel(x);
    };
    switch (color) {
      case JpegColor::gray:
        each([&](int x) { out[0] = out[1] = out[2] = rows[0][x]; });
        break;
      case JpegColor::rgb:
        each([&](int x) {
          for (int c = 0; c < 3; ++c) out[c] = rows[c][x];
        });
        break;
      case JpegColor::ycc:
        each([&](int x) { ycc_to_rgb(rows[0][x], rows[1][x], rows[2][x], out); });
        break;
      case JpegColor::cmyk:
        each([&](int x) {
          for (int c = 0; c < 3; ++c) out[c] = inked(255 - rows[c][x], rows[3][x]);
        });
        break;
      case JpegColor::ycck:
        each([&](int x) {
          ycc_to_rgb(rows[0][x], rows[1][x], rows[2][x], out);
          for (int c = 0; c < 3; ++c) out[c] = inked(out[c], rows[3][x]);
        });
        break;
    }
  }
  return image;
}

}  // namespace pali
