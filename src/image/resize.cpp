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
  Axis(int in, int out, Resample filter)
      : in_(in),
        filter_(filter == Resample::bicubic ? cubic : triangle),
        scale_(static_cast<double>(in) / out),
        widening_(std::max(scale_, 1.0)),
        support_((filter == Resample::bicubic ? 2.0 : 1.0) * widening_) {}

  int first(int i) const { return std::max(static_cast<int>(centre(i) - support_ + 0.5), 0); }
  int last(int i) const { return std::min(static_cast<int>(centre(i) + support_ + 0.5), in_); }

  // Appends the coefficients of inputs first(i) .. last(i) - 1.
  void append(int i, std::vector<int32_t>& coefficients) const {
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
  double centre(int i) const { return (i + 0.5) * scale_; }
  double weight(int i, int tap, int begin) const {
    return filter_((tap + begin - centre(i) + 0.5) * (1.0 / widening_));
  }

  int in_;
  double (*filter_)(double);
  double scale_, widening_, support_;
};

uint8_t to_u8(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

// The coefficients of output positions [first, end), `end` as far as the budget goes.
struct CoefficientBlock {
  int first = 0, end = 0;
  std::vector<int32_t> values;

  void fill(const Axis& axis, int begin, int limit) {
    first = end = begin;
    values.clear();
    do {
      axis.append(end, values);
      ++end;
    } while (end < limit && static_cast<int64_t>(values.size()) < kCoefficientsAtOnce);
  }
};

// Rows [first_row, end_row) of `rgb`, `width` pixels wide, become `new_width` wide.
std::vector<uint8_t> horizontal_pass(std::span<const uint8_t> rgb, int width, int new_width,
                                     int first_row, int end_row, Resample filter) {
  const Axis axis(width, new_width, filter);
  std::vector<uint8_t> out(static_cast<size_t>(end_row - first_row) * new_width * 3);
  CoefficientBlock block;
  for (int begin = 0; begin < new_width; begin = block.end) {
    block.fill(axis, begin, new_width);
    for (int y = first_row; y < end_row; ++y) {
      const uint8_t* row = rgb.data() + static_cast<size_t>(y) * width * 3;
      uint8_t* to = out.data() + (static_cast<size_t>(y - first_row) * new_width + block.first) * 3;
      const int32_t* k = block.values.data();
      for (int x = block.first; x < block.end; ++x, to += 3) {
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

// `rgb` holds the rows from `first_row` on of a picture `height` rows high.
std::vector<uint8_t> vertical_pass(std::span<const uint8_t> rgb, int width, int height,
                                   int new_height, int first_row, Resample filter) {
  const Axis axis(height, new_height, filter);
  const size_t row_bytes = static_cast<size_t>(width) * 3;
  std::vector<uint8_t> out(row_bytes * new_height);
  std::vector<int32_t> sums(row_bytes), coefficients;
  for (int y = 0; y < new_height; ++y) {
    coefficients.clear();
    axis.append(y, coefficients);
    std::fill(sums.begin(), sums.end(), 1 << (kFractionBits - 1));
    const uint8_t* row = rgb.data() + (axis.first(y) - first_row) * row_bytes;
    for (const int32_t k : coefficients) {
      for (size_t i = 0; i < row_bytes; ++i) sums[i] += row[i] * k;
      row += row_bytes;
    }
    uint8_t* to = out.data() + y * row_bytes;
    for (size_t i = 0; i < row_bytes; ++i) to[i] = to_u8(sums[i]);
  }
  return out;
}

// Pillow 13 goes through the columns first where the height shrinks by more than twice what the
// width does (Pillow pull request 9549; the rule was found by comparing 874 sizes with
// Pillow 13.0); older ones always go through the rows first. The two differ by a few levels at hard
// edges.
bool vertical_first(int width, int height, int new_width, int new_height) {
  return new_height < height && int64_t{height} - new_height > 2 * (int64_t{width} - new_width);
}

}  // namespace

ImageU8 resize(int width, int height, std::span<const uint8_t> rgb, int new_width, int new_height,
               Resample filter) {
  PALI_ASSERT(width > 0 && height > 0 && new_width > 0 && new_height > 0);
  PALI_ASSERT(rgb.size() == static_cast<size_t>(width) * height * 3);
  ImageU8 out{new_width, new_height, {}};
  if (new_width != width && vertical_first(width, height, new_width, new_height)) {
    const auto lowered = vertical_pass(rgb, width, height, new_height, 0, filter);
    out.rgb = horizontal_pass(lowered, width, new_width, 0, new_height, filter);
    return out;
  }
  int first_row = 0;
  std::span<const uint8_t> source = rgb;
  std::vector<uint8_t> narrowed;
  if (new_width != width) {
    // Only the rows that the vertical pass will read.
    int end_row = height;
    if (new_height != height) {
      const Axis axis(height, new_height, filter);
      first_row = axis.first(0);
      end_row = axis.last(new_height - 1);
    }
    narrowed = horizontal_pass(rgb, width, new_width, first_row, end_row, filter);
    source = narrowed;
  }
  if (new_height != height) {
    out.rgb = vertical_pass(source, new_width, height, new_height, first_row, filter);
  } else {
    out.rgb.assign(source.begin(), source.end());
  }
  return out;
}

}  // namespace pali
