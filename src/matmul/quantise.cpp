#include "matmul/quantise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// Round to nearest even for |x| < 2^22: one addition, which the compiler may vectorise.
float round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

float rounded(float w, float scale, float least, float most) {
  if (scale == 0.0f) return 0.0f;
  return round_even(std::clamp(w / scale, least, most));
}

float round_to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

void read_row(const WeightRef& weight, int64_t o, std::vector<float>& row) {
  for (int64_t i = 0; i < weight.in; ++i) row[static_cast<size_t>(i)] = weight.at(o, i);
}

float int4_error(const float* w, int64_t n, float scale) {
  float error = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float miss = rounded(w[i], scale, -8.0f, 7.0f) * scale - w[i];
    error += miss * miss;
  }
  return error;
}

// The scale that serves the integers of `scale` best: least squares.
float fitted(const float* w, int64_t n, float scale) {
  float products = 0.0f, squares = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float q = rounded(w[i], scale, -8.0f, 7.0f);
    products += q * w[i], squares += q * q;
  }
  return squares > 0.0f ? products / squares : scale;
}

float int4_scale(const float* w, int64_t n) {
  float widest = 0.0f;  // with its sign
  for (int64_t i = 0; i < n; ++i) {
    if (std::abs(w[i]) > std::abs(widest)) widest = w[i];
  }
  if (widest == 0.0f) return 0.0f;
  // -8 reaches one step further than 7, so the widest weight may take that side; and to clip it a
  // little may serve the others.
  constexpr float kSteps[] = {-8.0f, -7.5f, -8.5f, -7.0f, -9.0f, 7.0f, 7.5f, 8.0f};
  float best = 0.0f, least = INFINITY;
  for (const float steps : kSteps) {
    const float scale = round_to_f16(widest / steps);
    const float error = int4_error(w, n, scale);
    if (error < least) least = error, best = scale;
  }
  // Kept between the outermost candidates, so that no weight is clipped further than by those.
  const float most = std::abs(widest);
  const float fit = std::clamp(std::abs(fitted(w, n, best)), most / 9.0f, most / 7.0f);
  const float refined = round_to_f16(std::copysign(fit, best));
  return int4_error(w, n, refined) < least ? refined : best;
}

}  // namespace

AlignedBuffer<std::byte> quantisation_scales(const WeightRef& weight, DType type,
                                             QuantisationError* error) {
  PALI_ASSERT(is_quantised(type));
  const bool int8 = type == DType::i8;
  const int64_t group = int8 ? weight.in : kInt4Group;
  const int64_t groups = int8 ? 1 : int4_groups(weight.in);
  AlignedBuffer<std::byte> scales(weight.out * groups * (int8 ? 4 : 2));
  std::vector<float> row(static_cast<size_t>(weight.in));
  double squares = 0, missed = 0;
  float widest = 0.0f, widest_miss = 0.0f;
  for (int64_t o = 0; o < weight.out; ++o) {
    read_row(weight, o, row);
    for (int64_t g = 0; g < groups; ++g) {
      const float* w = row.data() + g * group;
      const int64_t n = std::min(group, weight.in - g * group);
      float most = 0.0f;
      bool finite = true;
      for (int64_t i = 0; i < n; ++i) {
        most = std::max(most, std::abs(w[i]));
        finite &= std::abs(w[i]) <= 3.402823466e38f;
      }
      if (!finite) {
        throw Error(ErrorCode::corrupt_file, "tensor " + quote(weight.name) +
                                                 ": expected finite weights, found others in row " +
                                                 std::to_string(o) + "; fetch the model again");
      }
      if (!int8 && most > 7.0f * 65504.0f) {
        throw Error(ErrorCode::unsupported, "tensor " + quote(weight.name) + ": weights of row " +
                                                std::to_string(o) +
                                                " are too large for int4; use int8");
      }
      const float scale = int8 ? most / 127.0f : int4_scale(w, n);
      const uint16_t half = f32_to_f16(scale);
      std::byte* to = scales.data() + (o * groups + g) * (int8 ? 4 : 2);
      int8 ? std::memcpy(to, &scale, 4) : std::memcpy(to, &half, 2);
      for (int64_t i = 0; error != nullptr && i < n; ++i) {
        const float value = rounded(w[i], scale, int8 ? -127.0f : -8.0f, int8 ? 127.0f : 7.0f);
        const float miss = std::abs(value * scale - w[i]);
        squares += double{w[i]} * w[i];
        missed += double{miss} * miss;
        widest_miss = std::max(widest_miss, miss);
      }
      widest = std::max(widest, most);
    }
  }
  if (error != nullptr) {
    *error = {};
    if (squares > 0) *error = {std::sqrt(missed / squares), double{widest_miss} / widest};
  }
  return scales;
}

void quantise(const WeightRef& weight, DType type, const std::byte* scales, std::byte* out) {
  PALI_ASSERT(is_quantised(type));
  std::vector<float> row(static_cast<size_t>(weight.in));
  for (int64_t o = 0; o < weight.out; ++o, out += row_bytes(type, weight.in)) {
    read_row(weight, o, row);
    if (type == DType::i8) {
      const float scale = load_weight(scales, DType::f32, o);
      for (int64_t i = 0; i < weight.in; ++i) {
        const float value = rounded(row[static_cast<size_t>(i)], scale, -127.0f, 127.0f);
        out[i] = static_cast<std::byte>(static_cast<int8_t>(value));
      }
      continue;
    }
    for (int64_t first = 0; first < weight.in; first += kInt4Group) {
      const int64_t group = o * int4_groups(weight.in) + first / kInt4Group;
      const float scale = load_weight(scales, DType::f16, group);
      const int64_t n = std::min(kInt4Group, weight.in - first), half = (n + 1) / 2;
      const auto nibble = [&](int64_t i) {
        const float w = i < n ? row[static_cast<size_t>(first + i)] : 0.0f;
        return static_cast<int>(rounded(w, scale, -8.0f, 7.0f)) + 8;
      };
      for (int64_t j = 0; j < half; ++j) {
        out[first / 2 + j] = static_cast<std::byte>(nibble(j) | nibble(j + half) << 4);
      }
    }
  }
}

}  // namespace pali
