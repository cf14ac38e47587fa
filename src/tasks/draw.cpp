#include "tasks/draw.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tasks/mask.hpp"
#include "tasks/text_raster.hpp"

namespace pali {
namespace {

using Color = std::array<uint8_t, 3>;

// Okabe and Ito, "Color Universal Design" (2008), without black; neighbours far apart.
constexpr Color kColors[] = {{230, 159, 0}, {86, 180, 233}, {0, 158, 115}, {204, 121, 167},
                             {213, 94, 0},  {0, 114, 178},  {240, 228, 66}};
constexpr Color kBlack = {0, 0, 0}, kWhite = {255, 255, 255};

// Sizes that look alike on small and large pictures.
struct Style {
  double line = 2;    // thickness of a frame
  double radius = 3;  // of its corners
  double text = 14;   // height of a line of text
  int padding = 3;    // of the plate around the text

  explicit Style(const ImageU8& image) {
    const double side = std::min(image.width, image.height);
    line = std::max(1.5, side / 180);
    radius = 1.5 * line;
    text = std::clamp(9 + side * 0.018, 11.0, 96.0);
    padding = std::max(2, static_cast<int>(std::lround(text * 0.2)));
  }
};

// Rectangle of pixels; x1, y1 exclusive.
struct Plate {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  bool overlaps(const Plate& other) const {
    return x0 < other.x1 && other.x0 < x1 && y0 < other.y1 && other.y0 < y1;
  }
};

// A box within the picture.
struct Frame {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

class Canvas {
 public:
  explicit Canvas(ImageU8& image) : image_(image) {}
  int width() const { return image_.width; }
  int height() const { return image_.height; }

  void blend(int x, int y, const Color& color, double alpha) {
    if (x < 0 || y < 0 || x >= image_.width || y >= image_.height || alpha <= 0) return;
    alpha = std::min(alpha, 1.0);
    uint8_t* pixel = &image_.rgb[(static_cast<size_t>(y) * image_.width + x) * 3];
    for (size_t c = 0; c < 3; ++c) {
      pixel[c] = static_cast<uint8_t>(std::lround(pixel[c] + (color[c] - pixel[c]) * alpha));
    }
  }

  // The outline of a rounded rectangle: `line` thick, centred on its edge. Coverage is the distance
  // to the outline, clipped to one pixel.
  void outline(const Frame& frame, double radius, double line, const Color& color, double alpha) {
    const double cx = (frame.x0 + frame.x1) / 2, cy = (frame.y0 + frame.y1) / 2;
    const double half_w = (frame.x1 - frame.x0) / 2, half_h = (frame.y1 - frame.y0) / 2;
    const double r = std::min({radius, half_w, half_h});
    const double reach = line / 2 + r + 2;
    const auto paint = [&](int x, int y) {
      const double dx = std::abs(x + 0.5 - cx) - half_w + r,
                   dy = std::abs(y + 0.5 - cy) - half_h + r;
      const double outside = std::hypot(std::max(dx, 0.0), std::max(dy, 0.0));
      const double distance = std::abs(outside + std::min(std::max(dx, dy), 0.0) - r);
      blend(x, y, color, alpha * std::clamp(line / 2 + 0.5 - distance, 0.0, 1.0));
    };
    const auto low = [](double v) { return std::max(static_cast<int>(std::floor(v)), 0); };
    const auto high = [](double v, int side) {
      return std::min(static_cast<int>(std::ceil(v)), side);
    };
    const int x_begin = low(frame.x0 - reach), x_end = high(frame.x1 + reach, width());
    for (int y = low(frame.y0 - reach); y < high(frame.y1 + reach, height()); ++y) {
      const bool edge_row = y < frame.y0 + reach || y > frame.y1 - reach;
      const int left_end = edge_row ? x_end : std::min(high(frame.x0 + reach, width()), x_end);
      for (int x = x_begin; x < left_end; ++x) paint(x, y);
      for (int x = std::max(low(frame.x1 - reach), left_end); x < x_end; ++x) paint(x, y);
    }
  }

  void plate(const Plate& plate, const Color& color) {
    for (int y = plate.y0; y < plate.y1; ++y) {
      for (int x = plate.x0; x < plate.x1; ++x) {
        const bool corner =
            (x == plate.x0 || x == plate.x1 - 1) && (y == plate.y0 || y == plate.y1 - 1);
        blend(x, y, color, corner ? 0.45 : 1.0);
      }
    }
  }

  void text(const TextMask& mask, int left, int top, const Color& color) {
    for (int y = 0; y < mask.height; ++y) {
      for (int x = 0; x < mask.width; ++x) {
        const uint8_t coverage = mask.coverage[static_cast<size_t>(y) * mask.width + x];
        blend(left + x, top + y, color, coverage / 255.0);
      }
    }
  }

 private:
  ImageU8& image_;
};

// Black or white, whichever contrasts more (WCAG's relative luminance).
Color readable_on(const Color& plate) {
  const auto linear = [](uint8_t v) { return std::pow(v / 255.0, 2.2); };
  const double luminance =
      0.2126 * linear(plate[0]) + 0.7152 * linear(plate[1]) + 0.0722 * linear(plate[2]);
  return luminance > 0.179 ? kBlack : kWhite;
}

constexpr double kTint = 0.45, kRim = 0.9;  // how much a mask covers: inside, and its last pixels

// A pixel is of the rim where one of its four neighbours in the picture is outside.
void tint(Canvas& canvas, const Mask& mask, const Color& color) {
  const int width = canvas.width(), height = canvas.height();
  if (mask.width != width || mask.height != height) return;  // of another picture
  std::vector<uint8_t> inside(static_cast<size_t>(width) * static_cast<size_t>(height));
  const auto at = [&](int x, int y) -> uint8_t& {
    return inside[static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)];
  };
  for_each_run(mask, [&](int x, int y, int count) {
    for (int i = 0; i < count; ++i) at(x, y + i) = 1;
  });
  const auto outside = [&](int x, int y) {
    return x >= 0 && y >= 0 && x < width && y < height && at(x, y) == 0;
  };
  for_each_run(mask, [&](int x, int first, int count) {
    for (int y = first; y < first + count; ++y) {
      const bool rim =
          outside(x - 1, y) || outside(x + 1, y) || outside(x, y - 1) || outside(x, y + 1);
      canvas.blend(x, y, color, rim ? kRim : kTint);
    }
  });
}

// NaN and infinities come to lie on the border.
double within(double value, double limit) { return value >= 0 ? std::min(value, limit) : 0.0; }

Frame clipped(const Box& box, const Canvas& canvas, double line) {
  const double w = canvas.width(), h = canvas.height(), inset = line / 2;
  const auto span = [&](double a, double b, double limit, double& first, double& last) {
    const double low = inset, high = std::max(limit - inset, inset);
    first = std::clamp(within(std::min(a, b), limit), low, high);
    last = std::clamp(within(std::max(a, b), limit), low, high);
  };
  Frame frame;
  span(box.x0, box.x1, w, frame.x0, frame.x1);
  span(box.y0, box.y1, h, frame.y0, frame.y1);
  return frame;
}

// Above the frame, else inside it, else below it: the first place that is in the picture and free.
Plate place(const Frame& frame, int width, int height, double line, const Canvas& canvas,
            const std::vector<Plate>& taken) {
  const int left = std::clamp(static_cast<int>(std::lround(frame.x0 - line / 2)), 0,
                              std::max(canvas.width() - width, 0));
  const auto at = [&](double top) {
    const int y = static_cast<int>(std::lround(top));
    return Plate{left, y, left + width, y + height};
  };
  const Plate above = at(frame.y0 - line / 2 - height), inside = at(frame.y0 - line / 2),
              below = at(frame.y1 + line / 2), bottom = at(frame.y1 + line / 2 - height);
  for (const Plate& plate : {above, inside, below, bottom}) {
    const bool fits = plate.y0 >= 0 && plate.y1 <= canvas.height();
    const bool free = std::none_of(taken.begin(), taken.end(),
                                   [&](const Plate& other) { return plate.overlaps(other); });
    if (fits && free) return plate;
  }
  return above.y0 >= 0 ? above : at(0);
}

}  // namespace

void draw_boxes(ImageU8& image, std::span<const Box> boxes) {
  if (boxes.empty() || image.width < 1 || image.height < 1) return;
  const Style style(image);
  Canvas canvas(image);
  std::map<std::string, Color> color_of;
  for (const Box& box : boxes) {
    color_of.try_emplace(box.label, kColors[color_of.size() % std::size(kColors)]);
  }
  for (const Box& box : boxes) {
    if (box.mask) tint(canvas, *box.mask, color_of[box.label]);
  }
  std::vector<Frame> frames;
  for (const Box& box : boxes) {
    const Frame frame = clipped(box, canvas, style.line);
    frames.push_back(frame);
    // A dark seam first, so that the frame stands out on a ground of its own colour.
    canvas.outline(frame, style.radius, style.line + 2, kBlack, 0.4);
    canvas.outline(frame, style.radius, style.line, color_of[box.label], 1.0);
  }
  const TextRaster raster(style.text);
  std::vector<Plate> taken;
  for (size_t i = 0; i < boxes.size(); ++i) {
    std::string text = boxes[i].label;
    if (boxes[i].score) {
      const double percent = std::clamp(*boxes[i].score, 0.0, 1.0) * 100;
      text += (text.empty() ? "" : " ") + std::to_string(std::lround(percent)) + "%";
    }
    if (text.empty()) continue;
    const TextMask mask = raster.draw(text, image.width - 2 * style.padding);
    const int width = mask.width + 2 * style.padding, height = mask.height + style.padding;
    const Plate plate = place(frames[i], width, height, style.line, canvas, taken);
    taken.push_back(plate);
    const Color& color = color_of[boxes[i].label];
    canvas.plate(plate, color);
    canvas.text(mask, plate.x0 + style.padding, plate.y0 + style.padding / 2, readable_on(color));
  }
}

}  // namespace pali
