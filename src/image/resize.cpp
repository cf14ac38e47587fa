// Pillow's 8-bit convolution resampling, to the last bit. Ref: ImagingResample in Pillow's
// src/libImaging/Resample.c: kernels widened by the scale when shrinking, coefficients in double,
// rounded to 22 fractional bits; two passes, 8 bits between them, in the order of Pillow 13.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/assert.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

// 32 bits less 8 of the sample, less 2: negative lobes, and sums above 1.
constexpr int kFractionBits = 32 - 8 - 2;
// Coefficients held at once. Only pictures far wider than any model's input need several rounds.
constexpr int64_t kCoefficientsAtOnce = 1 << 20;

double triangle(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys' cubic, a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// How each output position of one axis is made of input positions.
class Axis {
 public:
  Axis(int in, int64_t out, Resample filter)
      : in_(in),
        filter_(filter == Resample::bicubic ? cubic : triangle),
        scale_(static_cast<double>(in) / static_cast<double>(out)),
        widening_(std::max(scale_, 1.0)),
        support_((filter == Resample::bicubic ? 2.0 : 1.0) * widening_) {}

  int first(int64_t i) const { return std::max(static_cast<int>(centre(i) - support_ + 0.5), 0); }
  int last(int64_t i) const { return std::min(static_cast<int>(centre(i) + support_ + 0.5), in_); }

  // Appends the coefficients of inputs first(i) .. last(i) - 1.
  void append(int64_t i, std::vector<int32_t>& coefficients) const {
    const int begin = first(i), end = last(i);
    double sum = 0;
    for (int x = begin; x < end; ++x) sum += weight(i, x - begin, begin);
    for (int x = begin; x < end; ++x) {
      double w = weight(i, x - begin, begin);
      if (sum != 0.0) w /= sum;
      w *= 1 << kFractionBits;
      coefficients.push_back(static_cast<int32_t>(w < 0 ? w - 0.5 : w + 0.5));
    }
  }

 private:
  double centre(int64_t i) const { return (static_cast<double>(i) + 0.5) * scale_; }
  double weight(int64_t i, int tap, int begin) const {
    return filter_((tap + begin - centre(i) + 0.5) * (1.0 / widening_));
  }

  int in_;
  double (*filter_)(double);
  double scale_, widening_, support_;
};

uint8_t to_u8(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

// Output positions [begin, begin + count) of an axis.
struct Span {
  int64_t begin = 0;
  int count = 0;
};

// The coefficients of output positions [first, end), `end` as far as the budget goes.
struct CoefficientBlock {
  int64_t first = 0, end = 0;
  std::vector<int32_t> values;

  void fill(const Axis& axis, int64_t begin, int64_t limit) {
    first = end = begin;
    values.clear();
    do {
      axis.append(end, values);
      ++end;
    } while (end < limit && static_cast<int64_t>(values.size()) < kCoefficientsAtOnce);
  }
};

// Rows [first_row, end_row) of `rgb`, `width` pixels wide: the columns `part` of the new width.
std::vector<uint8_t> horizontal_pass(std::span<const uint8_t> rgb, int width, const Axis& axis,
                                     Span part, int first_row, int end_row) {
  const size_t row_bytes = static_cast<size_t>(part.count) * 3;
  std::vector<uint8_t> out(static_cast<size_t>(end_row - first_row) * row_bytes);
  const int64_t limit = part.begin + part.count;
  CoefficientBlock block;
  for (int64_t begin = part.begin; begin < limit; begin = block.end) {
    block.fill(axis, begin, limit);
    for (int y = first_row; y < end_row; ++y) {
      const uint8_t* row = rgb.data() + static_cast<size_t>(y) * width * 3;
      uint8_t* to = out.data() + static_cast<size_t>(y - first_row) * row_bytes +
                    static_cast<size_t>(block.first - part.begin) * 3;
      const int32_t* k = block.values.data();
      for (int64_t x = block.first; x < block.end; ++x, to += 3) {
        const int from = axis.first(x), count = axis.last(x) - from;
        const uint8_t* pixel = row + static_cast<size_t>(from) * 3;
        int32_t r = 1 << (kFractionBits - 1), g = r, b = r;
        for (int i = 0; i < count; ++i, pixel += 3) {
          r += pixel[0] * k[i];
          g += pixel[1] * k[i];
          b += pixel[2] * k[i];
        }
        k += count;
        to[0] = to_u8(r);
        to[1] = to_u8(g);
        to[2] = to_u8(b);
      }
    }
  }
  return out;
}

// The rows `part` of the new height; `rgb` holds the old rows from `first_row` on.
std::vector<uint8_t> vertical_pass(std::span<const uint8_t> rgb, int width, const Axis& axis,
                                   Span part, int first_row) {
  const size_t row_bytes = static_cast<size_t>(width) * 3;
  std::vector<uint8_t> out(row_bytes * static_cast<size_t>(part.count));
  std::vector<int32_t> sums(row_bytes), coefficients;
  uint8_t* to = out.data();
  for (int64_t y = part.begin; y < part.begin + part.count; ++y, to += row_bytes) {
    coefficients.clear();
    axis.append(y, coefficients);
    std::fill(sums.begin(), sums.end(), 1 << (kFractionBits - 1));
    const uint8_t* row = rgb.data() + static_cast<size_t>(axis.first(y) - first_row) * row_bytes;
    for (const int32_t k : coefficients) {
      for (size_t i = 0; i < row_bytes; ++i) sums[i] += row[i] * k;
      row += row_bytes;
    }
    for (size_t i = 0; i < row_bytes; ++i) to[i] = to_u8(sums[i]);
  }
  return out;
}

// Columns and rows as they are.
std::vector<uint8_t> cut(std::span<const uint8_t> rgb, int width, Span columns, Span rows) {
  const size_t row_bytes = static_cast<size_t>(columns.count) * 3;
  std::vector<uint8_t> out(row_bytes * static_cast<size_t>(rows.count));
  for (int y = 0; y < rows.count; ++y) {
    const auto at = static_cast<size_t>((rows.begin + y) * width + columns.begin) * 3;
    std::copy_n(rgb.data() + at, row_bytes, out.data() + static_cast<size_t>(y) * row_bytes);
  }
  return out;
}

// Pillow 13 goes through the columns first where the height shrinks by more than twice what the
// width does (Pillow pull request 9549; the rule was found by comparing 874 sizes with
// Pillow 13.0); older ones always go through the rows first. The two differ by a few levels at hard
// edges.
bool vertical_first(int width, int height, int64_t new_width, int64_t new_height) {
  return new_height < height && height - new_height > 2 * (width - new_width);
}

}  // namespace

ImageU8 resize(int width, int height, std::span<const uint8_t> rgb, int new_width, int new_height,
               Resample filter) {
  return resize_part(width, height, rgb, {new_width, new_height, 0, 0, new_width, new_height},
                     filter);
}

ImageU8 resize_part(int width, int height, std::span<const uint8_t> rgb, const ResizedPart& part,
                    Resample filter) {
  PALI_ASSERT(width > 0 && height > 0 && part.width > 0 && part.height > 0);
  PALI_ASSERT(part.x >= 0 && part.x + part.width <= part.whole_width);
  PALI_ASSERT(part.y >= 0 && part.y + part.height <= part.whole_height);
  PALI_ASSERT(rgb.size() == static_cast<size_t>(width) * height * 3);
  const Axis across(width, part.whole_width, filter), down(height, part.whole_height, filter);
  const Span columns{part.x, part.width}, rows{part.y, part.height};
  const bool narrows = part.whole_width != width, lowers = part.whole_height != height;
  ImageU8 out{part.width, part.height, {}};
  if (narrows && vertical_first(width, height, part.whole_width, part.whole_height)) {
    const auto lowered = vertical_pass(rgb, width, down, rows, 0);
    out.rgb = horizontal_pass(lowered, width, across, columns, 0, part.height);
    return out;
  }
  // Only the rows that the vertical pass will read.
  const int first_row = lowers ? down.first(part.y) : static_cast<int>(part.y);
  const int end_row = lowers ? down.last(part.y + part.height - 1) : first_row + part.height;
  out.rgb = narrows ? horizontal_pass(rgb, width, across, columns, first_row, end_row)
                    : cut(rgb, width, columns, {first_row, end_row - first_row});
  if (lowers) out.rgb = vertical_pass(out.rgb, part.width, down, rows, first_row);
  return out;
}

}  // namespace pali
