// Upsampling and colours of JPEG planes, by hand from the definitions of libjpeg's fancy filters.
#include "image/jpeg_color.hpp"

#include <gtest/gtest.h>

namespace pali {
namespace {

using Samples = std::vector<uint8_t>;

// One plane shown as gray.
Samples shown(const Samples& samples, int width, int across, int down) {
  JpegPlane plane;
  plane.data = samples.data();
  plane.stride = static_cast<size_t>(width);
  plane.width = width;
  plane.height = static_cast<int>(samples.size()) / width;
  plane.across = across;
  plane.down = down;
  const ImageU8 image =
      jpeg_to_rgb({&plane, 1}, JpegColor::gray, width * across, plane.height * down);
  Samples gray;
  for (size_t i = 0; i < image.rgb.size(); i += 3) gray.push_back(image.rgb[i]);
  return gray;
}

TEST(JpegColor, HalfTheColumns) {
  EXPECT_EQ(shown({0, 100, 200}, 3, 2, 1), (Samples{0, 25, 75, 125, 175, 200}));
  EXPECT_EQ(shown({1, 2, 4}, 3, 2, 1), (Samples{1, 1, 2, 3, 3, 4}));  // the rounding alternates
  EXPECT_EQ(shown({0, 100}, 2, 2, 1), (Samples{0, 0, 100, 100}));     // too narrow: repeated
}

TEST(JpegColor, HalfTheRows) {
  EXPECT_EQ(shown({0, 100, 200}, 1, 1, 2), (Samples{0, 25, 75, 125, 175, 200}));
  EXPECT_EQ(shown({1, 2, 4}, 1, 1, 2), (Samples{1, 1, 2, 3, 3, 4}));
}

TEST(JpegColor, HalfOfBoth) {
  const Samples flat = shown(Samples(9, 77), 3, 2, 2);
  EXPECT_EQ(flat, Samples(36, 77));
  const Samples out = shown({0, 0, 0, 160, 160, 160}, 3, 2, 2);
  for (int x = 0; x < 6; ++x) {
    EXPECT_EQ(out[static_cast<size_t>(x)], 0);
    EXPECT_EQ(out[static_cast<size_t>(6 + x)], 40);
    EXPECT_EQ(out[static_cast<size_t>(12 + x)], 120);
    EXPECT_EQ(out[static_cast<size_t>(18 + x)], 160);
  }
}

TEST(JpegColor, OtherRatiosRepeat) {
  EXPECT_EQ(shown({5, 9, 1}, 3, 4, 1), (Samples{5, 5, 5, 5, 9, 9, 9, 9, 1, 1, 1, 1}));
  EXPECT_EQ(shown({5, 9}, 1, 1, 4), (Samples{5, 5, 5, 5, 9, 9, 9, 9}));
}

Samples pixel(JpegColor color, const Samples& samples) {
  std::vector<JpegPlane> planes;
  for (const uint8_t& sample : samples) planes.push_back({&sample, 1, 1, 1, 1, 1});
  return jpeg_to_rgb(planes, color, 1, 1).rgb;
}

TEST(JpegColor, Colours) {
  EXPECT_EQ(pixel(JpegColor::rgb, {1, 2, 3}), (Samples{1, 2, 3}));
  EXPECT_EQ(pixel(JpegColor::ycc, {90, 128, 128}), (Samples{90, 90, 90}));
  EXPECT_EQ(pixel(JpegColor::ycc, {76, 85, 255}), (Samples{254, 0, 0}));
  EXPECT_EQ(pixel(JpegColor::ycc, {149, 43, 21}), (Samples{0, 255, 0}));
  // Stored inverted: 255 is no ink.
  EXPECT_EQ(pixel(JpegColor::cmyk, {255, 255, 255, 255}), (Samples{255, 255, 255}));
  EXPECT_EQ(pixel(JpegColor::cmyk, {0, 255, 255, 255}), (Samples{0, 255, 255}));
  EXPECT_EQ(pixel(JpegColor::cmyk, {255, 128, 0, 100}), (Samples{100, 50, 0}));
  EXPECT_EQ(pixel(JpegColor::ycck, {255, 128, 128, 200}), (Samples{0, 0, 0}));
  EXPECT_EQ(pixel(JpegColor::ycck, {0, 128, 128, 200}), (Samples{200, 200, 200}));
}

}  // namespace
}  // namespace pali
