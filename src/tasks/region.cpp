#include "tasks/region.hpp"

#include "base/assert.hpp"

namespace pali {

void frame_region(Tensor& pixels, const Preprocessing& how, int width, int height,
                  const Region& region) {
  const int64_t side = how.size;
  PALI_ASSERT(pixels.rows() == 3 && pixels.cols() == side * side);
  // The reference truncates the fraction of the side, in float, times the last index.
  const auto place = [&](double value, int size) {
    const auto fraction = static_cast<float>(value / size);
    return static_cast<int64_t>(fraction * static_cast<float>(side - 1));
  };
  const int64_t x0 = place(region.x0, width), x1 = place(region.x1, width);
  const int64_t y0 = place(region.y0, height), y1 = place(region.y1, height);
  const auto paint = [&](int64_t x, int64_t y) {
    for (int channel = 0; channel < 3; ++channel) {
      const double level = channel == 0 ? 255 : 0;
      pixels.view().row(channel)[y * side + x] =
          (static_cast<float>(level * how.rescale) - how.mean[channel]) / how.std[channel];
    }
  };
  for (int64_t x = x0; x <= x1; ++x) {
    paint(x, y0);
    paint(x, y1);
  }
  for (int64_t y = y0; y <= y1; ++y) {
    paint(x0, y);
    paint(x1, y);
  }
}

}  // namespace pali
