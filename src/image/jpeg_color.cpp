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
      widen(samples(near));
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

  // 3/4 of the nearer sample, 1/4 of the farther one; the rounding alternates.
  void widen(const uint8_t* in) {
    const int last = plane_.width - 1;
    uint8_t* out = row_.data();
    for (int x = 0; x <= last; ++x) {
      const int left = in[std::max(x - 1, 0)], right = in[std::min(x + 1, last)];
      *out++ = static_cast<uint8_t>(x == 0 ? in[x] : (3 * in[x] + left + 1) >> 2);
      *out++ = static_cast<uint8_t>(x == last ? in[x] : (3 * in[x] + right + 2) >> 2);
    }
  }

  // The same between rows, and across where that is halved too.
  void blend(const uint8_t* near, const uint8_t* far, bool upper) {
    const int last = plane_.width - 1;
    uint8_t* out = row_.data();
    for (int x = 0; x <= last; ++x) sums_[static_cast<size_t>(x)] = 3 * near[x] + far[x];
    const int* sums = sums_.data();
    if (plane_.across == 1) {
      for (int x = 0; x <= last; ++x)
        out[x] = static_cast<uint8_t>((sums[x] + (upper ? 1 : 2)) >> 2);
      return;
    }
    for (int x = 0; x <= last; ++x) {
      const int left = sums[std::max(x - 1, 0)], right = sums[std::min(x + 1, last)];
      *out++ = static_cast<uint8_t>((3 * sums[x] + left + 8) >> 4);
      *out++ = static_cast<uint8_t>((3 * sums[x] + right + 7) >> 4);
    }
  }

  JpegPlane plane_;
  bool smooth_across_ = false, smooth_down_ = false;
  std::vector<int> sums_;
  std::vector<uint8_t> row_;
};

uint8_t clipped(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

// JFIF's YCbCr in 16 fractional bits.
void ycc_to_rgb(int y, int cb, int cr, uint8_t* rgb) {
  constexpr int kHalf = 1 << 15;
  cb -= 128;
  cr -= 128;
  rgb[0] = clipped(y + ((91881 * cr + kHalf) >> 16));                // 1.402
  rgb[1] = clipped(y + ((-22554 * cb - 46802 * cr + kHalf) >> 16));  // 0.34414, 0.71414
  rgb[2] = clipped(y + ((116130 * cb + kHalf) >> 16));               // 1.772
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
    for (int x = 0; x < width; ++x, out += 3) {
      switch (color) {
        case JpegColor::gray:
          out[0] = out[1] = out[2] = rows[0][x];
          break;
        case JpegColor::rgb:
          for (int c = 0; c < 3; ++c) out[c] = rows[c][x];
          break;
        case JpegColor::ycc:
          ycc_to_rgb(rows[0][x], rows[1][x], rows[2][x], out);
          break;
        case JpegColor::cmyk:
          for (int c = 0; c < 3; ++c) out[c] = inked(255 - rows[c][x], rows[3][x]);
          break;
        case JpegColor::ycck:
          ycc_to_rgb(rows[0][x], rows[1][x], rows[2][x], out);
          for (int c = 0; c < 3; ++c) out[c] = inked(out[c], rows[3][x]);
          break;
      }
    }
  }
  return image;
}

}  // namespace pali
