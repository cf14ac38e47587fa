#include "tasks/mask.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/assert.hpp"
#include "tasks/mask_decoder.hpp"

namespace pali {
namespace {

constexpr int kSide = kMaskSide;

// The inputs of one output position, and their weights. Pillow's triangle, widened where it
// shrinks. Ref: precompute_coeffs in Pillow's src/libImaging/Resample.c.
struct Taps {
  int first = 0, count = 0;
  std::array<double, kSide> weights;

  Taps(int index, int out) {
    const double scale = static_cast<double>(kSide) / out, widening = std::max(scale, 1.0);
    const double centre = (index + 0.5) * scale;
    first = std::max(static_cast<int>(centre - widening + 0.5), 0);
    count = std::min(static_cast<int>(centre + widening + 0.5), kSide) - first;
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      const double distance = std::abs((i + first - centre + 0.5) * (1.0 / widening));
      weight(i) = distance < 1.0 ? 1.0 - distance : 0.0;
      sum += weight(i);
    }
    for (int i = 0; i < count && sum != 0.0; ++i) weight(i) /= sum;
  }
  double& weight(int i) { return weights[static_cast<size_t>(i)]; }

  // Sums are double, what lies between the two passes is float, as in Pillow's mode "F".
  float apply(const float* values, int stride) const {
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      sum += values[(first + i) * stride] * weights[static_cast<size_t>(i)];
    }
    return static_cast<float>(sum);
  }
};

// The resized mask, a few columns at a time: memory stays below the picture's own.
class Resized {
 public:
  static constexpr int kColumns = 64;

  Resized(std::span<const float> values, int width, int height)
      : values_(values), width_(width), height_(height) {
    // Pillow 13 goes through the columns first where the height shrinks by more than twice what the
    // width does (image/resize.cpp).
    if (height >= kSide || kSide - height <= 2 * (kSide - width)) return;
    lowered_.resize(static_cast<size_t>(height) * kSide);
    for (int y = 0; y < height; ++y) {
      const Taps row(y, height);
      for (int x = 0; x < kSide; ++x) {
        lowered_[static_cast<size_t>(y) * kSide + x] = row.apply(values.data() + x, kSide);
      }
    }
  }

  // inside[column * height + y] of columns [first, first + count).
  void columns(int first, int count, std::vector<uint8_t>& inside) const {
    inside.resize(static_cast<size_t>(count) * height_);
    const auto rows = static_cast<size_t>(lowered_.empty() ? kSide : height_);
    const float* source = lowered_.empty() ? values_.data() : lowered_.data();
    std::vector<float> narrowed(rows * count);
    for (int column = 0; column < count; ++column) {
      const Taps taps(first + column, width_);
      for (size_t y = 0; y < rows; ++y) {
        const float* row = source + y * kSide;
        narrowed[y * count + column] = width_ == kSide ? row[first + column] : taps.apply(row, 1);
      }
    }
    const bool as_it_is = !lowered_.empty() || height_ == kSide;
    for (int y = 0; y < height_; ++y) {
      const Taps taps(y, height_);
      for (int column = 0; column < count; ++column) {
        const float value = as_it_is ? narrowed[static_cast<size_t>(y) * count + column]
                                     : taps.apply(narrowed.data() + column, count);
        inside[static_cast<size_t>(column) * height_ + y] = value > 0.0f ? 1 : 0;
      }
    }
  }

 private:
  std::span<const float> values_;
  int width_, height_;
  std::vector<float> lowered_;  // [height][64], where the height goes first
};

// Run lengths, column by column, beginning with outside.
class Runs {
 public:
  void add(bool inside, int64_t count) {
    if (inside == inside_) {
      length_ += count;
    } else if (count > 0) {
      counts_.push_back(static_cast<uint32_t>(length_));
      inside_ = inside;
      length_ = count;
    }
  }
  std::vector<uint32_t> finish() {
    counts_.push_back(static_cast<uint32_t>(length_));
    return std::move(counts_);
  }

 private:
  std::vector<uint32_t> counts_;
  bool inside_ = false;
  int64_t length_ = 0;
};

}  // namespace

Mask paste_mask(std::span<const float> values, const Box& box, int width, int height) {
  PALI_ASSERT(values.size() == static_cast<size_t>(kSide) * kSide);
  const int x0 = std::clamp(static_cast<int>(box.x0), 0, width);
  const int x1 = std::clamp(static_cast<int>(box.x1), x0, width);
  const int y0 = std::clamp(static_cast<int>(box.y0), 0, height);
  const int y1 = std::clamp(static_cast<int>(box.y1), y0, height);
  Mask mask{width, height, {}};
  Runs runs;
  runs.add(false, int64_t{x0} * height);
  if (x1 > x0 && y1 > y0) {
    const Resized resized(values, x1 - x0, y1 - y0);
    std::vector<uint8_t> inside;
    for (int first = 0; first < x1 - x0; first += Resized::kColumns) {
      const int count = std::min(Resized::kColumns, x1 - x0 - first);
      resized.columns(first, count, inside);
      for (int column = 0; column < count; ++column) {
        runs.add(false, y0);
        const uint8_t* values_of_column =
            inside.data() + static_cast<size_t>(column) * static_cast<size_t>(y1 - y0);
        for (int y = 0; y < y1 - y0; ++y) runs.add(values_of_column[y] != 0, 1);
        runs.add(false, height - y1);
      }
    }
  } else {
    runs.add(false, int64_t{x1 - x0} * height);
  }
  runs.add(false, int64_t{width - x1} * height);
  mask.counts = runs.finish();
  return mask;
}

std::string coco_counts(const Mask& mask) {
  std::string text;
  for (size_t i = 0; i < mask.counts.size(); ++i) {
    int64_t value = mask.counts[i];
    if (i > 2) value -= mask.counts[i - 2];
    for (bool more = true; more;) {
      int64_t bits = value & 0x1f;
      value >>= 5;
      more = (bits & 0x10) != 0 ? value != -1 : value != 0;
      if (more) bits |= 0x20;
      text += static_cast<char>(bits + 48);
    }
  }
  return text;
}

}  // namespace pali
