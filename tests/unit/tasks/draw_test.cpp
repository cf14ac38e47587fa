// Properties of drawn boxes: what must show, and what must not break.
#include "tasks/draw.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace pali {
namespace {

ImageU8 flat(int width, int height, uint8_t level) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3, level)};
}

using Color = std::array<int, 3>;
Color at(const ImageU8& image, int x, int y) {
  const uint8_t* pixel = &image.rgb[(static_cast<size_t>(y) * image.width + x) * 3];
  return {pixel[0], pixel[1], pixel[2]};
}

Box box(const char* label, double x0, double y0, double x1, double y1) {
  return {label, x0, y0, x1, y1, std::nullopt};
}

TEST(DrawBoxes, FrameLiesOnTheBoxAndLeavesTheRestAlone) {
  ImageU8 image = flat(400, 300, 90);
  const std::vector<Box> boxes = {box("", 100, 80, 300, 220)};
  draw_boxes(image, boxes);
  const Color frame = at(image, 200, 80);
  EXPECT_NE(frame, (Color{90, 90, 90}));
  for (const auto& [x, y] : {std::pair{200, 219}, {100, 150}, {299, 150}}) {
    const Color other = at(image, x, y);
    for (int c = 0; c < 3; ++c) EXPECT_NEAR(other[c], frame[c], 60) << x << "," << y;
  }
  for (const auto& [x, y] : {std::pair{200, 150}, {50, 50}, {200, 60}, {320, 150}, {399, 299}}) {
    EXPECT_EQ(at(image, x, y), (Color{90, 90, 90})) << x << "," << y;
  }
}

// Every pixel of a mask and of its surroundings: outside nothing, the rim strong, the rest tinted.
TEST(DrawBoxes, MasksAreTintedToTheirLastPixel) {
  constexpr int kSide = 60;
  ImageU8 image = flat(kSide, kSide, 100);
  Box mask_only = box("", 0, 0, 60, 60);  // its frame lies on the picture's border
  Mask mask{kSide, kSide, {}};
  // Columns 20 .. 29, rows 25 .. 39.
  mask.counts = {20 * kSide + 25};
  for (int x = 20; x < 30; ++x) {
    mask.counts.push_back(15);
    mask.counts.push_back(x < 29 ? kSide - 15 : kSide - 40 + 30 * kSide);
  }
  mask_only.mask = mask;
  draw_boxes(image, std::vector<Box>{mask_only});
  const Color orange = {230, 159, 0};
  for (int y = 8; y < kSide - 8; ++y) {
    for (int x = 8; x < kSide - 8; ++x) {
      const bool inside = x >= 20 && x < 30 && y >= 25 && y < 40;
      const bool rim = inside && (x == 20 || x == 29 || y == 25 || y == 39);
      const double alpha = rim ? 0.9 : inside ? 0.45 : 0;
      for (size_t c = 0; c < 3; ++c) {
        EXPECT_EQ(at(image, x, y)[c], std::lround(100 + (orange[c] - 100) * alpha))
            << x << "," << y;
      }
    }
  }
  ImageU8 other = flat(kSide, kSide, 100), plain = other;
  mask_only.mask = Mask{7, 7, {0, 49}};  // of another picture
  draw_boxes(other, std::vector<Box>{mask_only});
  mask_only.mask.reset();
  draw_boxes(plain, std::vector<Box>{mask_only});
  EXPECT_EQ(other.rgb, plain.rgb);
}

TEST(DrawBoxes, OneColourALabelAndManyColours) {
  ImageU8 image = flat(1000, 1000, 128);
  std::vector<Box> boxes;
  const char* labels[] = {"a", "b", "c", "a", "d", "b"};
  for (int i = 0; i < 6; ++i)
    boxes.push_back(box(labels[i], 20 + 160 * i, 200, 120 + 160 * i, 900));
  draw_boxes(image, boxes);
  std::vector<Color> colors;
  for (int i = 0; i < 6; ++i) colors.push_back(at(image, 70 + 160 * i, 900));
  EXPECT_EQ(colors[0], colors[3]);
  EXPECT_EQ(colors[1], colors[5]);
  EXPECT_EQ(std::set<Color>(colors.begin(), colors.end()).size(), 4u);
}

double luminance(const Color& c) {
  const auto linear = [](int v) { return std::pow(v / 255.0, 2.2); };
  return 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
}

// WCAG asks 4.5 : 1 of text. Seven labels take seven colours.
TEST(DrawBoxes, LabelsContrastWithTheirPlatesOnAnyGround) {
  for (const uint8_t ground : {0, 128, 255}) {
    for (int label = 0; label < 7; ++label) {
      ImageU8 image = flat(600, 400, ground);
      std::vector<Box> boxes;
      for (int i = 0; i <= label; ++i) {
        const std::string text =
            i == label ? "MHEMHEMHE" : std::string(1, static_cast<char>('a' + i));
        boxes.push_back(box(text.c_str(), 60, 300, 260, 380));
        if (i == label) boxes.back() = box(text.c_str(), 300, 150, 560, 380);
      }
      draw_boxes(image, boxes);
      double darkest = 1, brightest = 0;
      for (int y = 134; y < 148; ++y) {
        for (int x = 304; x < 340; ++x) {
          const double l = luminance(at(image, x, y));
          darkest = std::min(darkest, l);
          brightest = std::max(brightest, l);
        }
      }
      EXPECT_GT((brightest + 0.05) / (darkest + 0.05), 4.5) << "label " << label;
    }
  }
}

TEST(DrawBoxes, ScoresAreShown) {
  ImageU8 plain = flat(300, 200, 0), scored = plain;
  std::vector<Box> boxes = {box("cat", 50, 50, 250, 150)};
  draw_boxes(plain, boxes);
  boxes[0].score = 0.87;
  draw_boxes(scored, boxes);
  EXPECT_NE(plain.rgb, scored.rgb);
}

TEST(DrawBoxes, NothingToDrawChangesNothing) {
  ImageU8 image = flat(5, 4, 77);
  draw_boxes(image, {});
  EXPECT_EQ(image.rgb, flat(5, 4, 77).rgb);
}

TEST(DrawBoxes, AnyBoxAnyLabelAnySizeIsSafe) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const double values[] = {-inf, -5, 0, 0.5, 7, 1e9, nan};
  const std::string labels[] = {"",
                                "x",
                                "na\xc3\xafve caf\xc3\xa9",
                                "\xe5\x9b\xbe\xf0\x9f\x90\x9d",
                                "\xff\xfe\xc3",
                                std::string("a\0b\n\t\x7f", 6),
                                std::string(5000, 'W')};
  int drawn = 0;
  for (const auto& [w, h] : {std::pair{1, 1}, {1, 50}, {50, 1}, {2, 3}, {64, 48}}) {
    for (const std::string& label : labels) {
      std::vector<Box> boxes;
      for (const double a : values) {
        for (const double b : values) {
          boxes.push_back({label, a, b, b, a, a});
          boxes.push_back({label, a, a, b, b, std::nullopt});
        }
      }
      ImageU8 image = flat(w, h, 100);
      draw_boxes(image, boxes);
      EXPECT_EQ(image.rgb.size(), static_cast<size_t>(w) * h * 3);
      ++drawn;
    }
  }
  EXPECT_EQ(drawn, 35);
}

TEST(DrawBoxes, UnknownCharactersShow) {
  ImageU8 blank = flat(300, 200, 0), strange = blank;
  draw_boxes(blank, std::vector<Box>{box("  ", 50, 50, 250, 150)});
  draw_boxes(strange, std::vector<Box>{box("\xe5\x9b\xbe\xe5\x9b\xbe", 50, 50, 250, 150)});
  EXPECT_NE(blank.rgb, strange.rgb);
}

}  // namespace
}  // namespace pali
