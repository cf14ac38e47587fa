// TensorFlow's bilinear resizing in f32, as big_vision's "resize" uses it: the result is cut to
// 8 bits, not rounded. The order of every addition is the reference's, since a flat 173 that comes
// out as 172.99998 becomes 172.
// Ref: tensorflow/core/kernels/image/resize_bilinear_op.cc (half_pixel_centers) and
// scale_and_translate_op.cc (ComputeSpansCore, GatherSpans, the triangle kernel); tf.image.resize;
// big_vision/pp/ops_image.py, get_resize.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/assert.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

// Of each output position the two inputs about it, and how far it lies from the first.
struct Neighbours {
  std::vector<int> lower, upper;
  std::vector<float> fraction;

  Neighbours(int in, int out) {
    const float scale = static_cast<float>(in) / static_cast<float>(out);
    for (int i = 0; i < out; ++i) {
      const float at = (static_cast<float>(i) + 0.5f) * scale - 0.5f;
      const float floor = std::floor(at);
      lower.push_back(std::max(static_cast<int>(floor), 0));
      upper.push_back(std::min(static_cast<int>(std::ceil(at)), in - 1));
      fraction.push_back(at - floor);
    }
  }
};

// Of each output position a run of inputs and their weights; the kernel is a triangle, widened by
// the scale where the picture shrinks.
class Spans {
 public:
  Spans(int in, int out) {
    // tf.image.resize divides in f32, and the op inverts that again.
    const float scale = static_cast<float>(out) / static_cast<float>(in);
    const float inverse = static_cast<float>(1.0 / scale);
    const float widening = std::max(inverse, 1.0f), narrowing = 1.0f / widening;
    for (int i = 0; i < out; ++i) {
      const float sample = (static_cast<float>(i) + 0.5f) * inverse;
      first_.push_back(0);
      begin_.push_back(weights_.size());
      if (sample < 0 || sample > static_cast<float>(in)) continue;
      const auto clamped = [&](float at) {
        return static_cast<int>(std::clamp(at, 0.0f, static_cast<float>(in - 1)));
      };
      const int first = clamped(std::ceil(sample - widening - 0.5f));
      const int last = clamped(std::floor(sample + widening - 0.5f));
      first_.back() = first;
      float sum = 0;
      for (int source = first; source <= last; ++source) {
        const float distance = (static_cast<float>(source) + 0.5f - sample) * narrowing;
        const float weight = std::max(0.0f, 1.0f - std::abs(distance));
        sum += weight;
        weights_.push_back(weight);
      }
      const float over =
          std::abs(sum) >= 1000.0f * std::numeric_limits<float>::min() ? 1.0f / sum : 0.0f;
      for (size_t w = begin_.back(); w < weights_.size(); ++w) weights_[w] *= over;
    }
    begin_.push_back(weights_.size());
  }
  int first(int i) const { return first_[static_cast<size_t>(i)]; }
  std::span<const float> weights(int i) const {
    const size_t begin = begin_[static_cast<size_t>(i)], end = begin_[static_cast<size_t>(i) + 1];
    return std::span(weights_).subspan(begin, end - begin);
  }

 private:
  std::vector<int> first_;
  std::vector<size_t> begin_;
  std::vector<float> weights_;
};

// Towards zero. Nothing here leaves 0 to 255 by more than the rounding of a sum.
uint8_t cut(float value) { return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f)); }

ImageU8 resize_point(int width, int height, const uint8_t* rgb, int new_width, int new_height) {
  const Neighbours columns(width, new_width), rows(height, new_height);
  ImageU8 out{new_width, new_height,
              std::vector<uint8_t>(static_cast<size_t>(new_width) * new_height * 3)};
  const size_t row_bytes = static_cast<size_t>(width) * 3;
  uint8_t* to = out.rgb.data();
  for (size_t y = 0; y < static_cast<size_t>(new_height); ++y) {
    const uint8_t* top = rgb + static_cast<size_t>(rows.lower[y]) * row_bytes;
    const uint8_t* bottom = rgb + static_cast<size_t>(rows.upper[y]) * row_bytes;
    for (size_t x = 0; x < static_cast<size_t>(new_width); ++x) {
      const size_t left = static_cast<size_t>(columns.lower[x]) * 3;
      const size_t right = static_cast<size_t>(columns.upper[x]) * 3;
      for (size_t c = 0; c < 3; ++c) {
        const auto mix = [](float a, float b, float t) { return a + (b - a) * t; };
        const float above = mix(top[left + c], top[right + c], columns.fraction[x]);
        const float below = mix(bottom[left + c], bottom[right + c], columns.fraction[x]);
        *to++ = cut(mix(above, below, rows.fraction[y]));
      }
    }
  }
  return out;
}

// Rows first, then columns.
ImageU8 resize_triangle(int width, int height, const uint8_t* rgb, int new_width, int new_height) {
  const Spans columns(width, new_width), rows(height, new_height);
  ImageU8 out{new_width, new_height,
              std::vector<uint8_t>(static_cast<size_t>(new_width) * new_height * 3)};
  const size_t row_bytes = static_cast<size_t>(width) * 3;
  std::vector<float> row(row_bytes);
  uint8_t* to = out.rgb.data();
  for (int y = 0; y < new_height; ++y) {
    std::fill(row.begin(), row.end(), 0.0f);
    const uint8_t* from = rgb + static_cast<size_t>(rows.first(y)) * row_bytes;
    for (const float weight : rows.weights(y)) {
      for (size_t i = 0; i < row_bytes; ++i) row[i] += static_cast<float>(from[i]) * weight;
      from += row_bytes;
    }
    for (int x = 0; x < new_width; ++x) {
      float sum[3] = {0, 0, 0};
      const float* pixel = row.data() + static_cast<size_t>(columns.first(x)) * 3;
      for (const float weight : columns.weights(x)) {
        for (int c = 0; c < 3; ++c) sum[c] += pixel[c] * weight;
        pixel += 3;
      }
      for (const float value : sum) *to++ = cut(value);
    }
  }
  return out;
}

}  // namespace

ImageU8 resize_float(int width, int height, std::span<const uint8_t> rgb, int new_width,
                     int new_height, Antialias antialias) {
  PALI_ASSERT(width > 0 && height > 0 && new_width > 0 && new_height > 0);
  PALI_ASSERT(rgb.size() == static_cast<size_t>(width) * height * 3);
  return antialias == Antialias::yes
             ? resize_triangle(width, height, rgb.data(), new_width, new_height)
             : resize_point(width, height, rgb.data(), new_width, new_height);
}

}  // namespace pali
