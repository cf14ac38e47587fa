#include "tasks/region.hpp"

#include <gtest/gtest.h>

namespace pali {
namespace {

// tf.image.draw_bounding_boxes truncates fraction * (side - 1): in a picture of 40 x 20, resized to
// 11 x 11, x 10 .. 30 is 0.25 .. 0.75, so columns 2 .. 7; y 0 .. 20 is rows 0 .. 10.
TEST(Region, OneRedPixelOnTheEdges) {
  Preprocessing how;
  how.size = 11;
  Tensor pixels(3, 121);
  for (int channel = 0; channel < 3; ++channel) {
    for (int i = 0; i < 121; ++i) pixels.view().row(channel)[i] = 0.5f;
  }
  frame_region(pixels, how, 40, 20, {10, 0, 30, 20});
  for (int y = 0; y < 11; ++y) {
    for (int x = 0; x < 11; ++x) {
      const bool within = x >= 2 && x <= 7;
      const bool edge = within && (x == 2 || x == 7 || y == 0 || y == 10);
      EXPECT_EQ(pixels.row(0)[y * 11 + x], edge ? 1.0f : 0.5f) << x << "," << y;
      EXPECT_EQ(pixels.row(1)[y * 11 + x], edge ? -1.0f : 0.5f) << x << "," << y;
      EXPECT_EQ(pixels.row(2)[y * 11 + x], edge ? -1.0f : 0.5f) << x << "," << y;
    }
  }
}

}  // namespace
}  // namespace pali
