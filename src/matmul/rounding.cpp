#include "matmul/rounding.hpp"

#include <cmath>

namespace pali {
namespace {

float round_to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

float importance_of(const float* importance, int64_t i) {
  return importance == nullptr ? 1.0f : importance[i];
}

float int4_integer(float w, float scale) {
  return rounded(w, scale, least_integer(DType::i4), most_integer(DType::i4));
}

float int4_error(const float* w, int64_t n, const float* importance, float scale) {
  float error = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float miss = int4_integer(w[i], scale) * scale - w[i];
    error += importance_of(importance, i) * miss * miss;
  }
  return error;
}

// The scale that serves the integers of `scale` best: least squares.
float fitted(const float* w, int64_t n, const float* importance, float scale) {
  float products = 0.0f, squares = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float q = int4_integer(w[i], scale), weighed = importance_of(importance, i) * q;
    products += weighed * w[i], squares += weighed * q;
  }
  return squares > 0.0f ? products / squares : scale;
}

}  // namespace

float int4_scale(const float* w, int64_t n, const float* importance) {
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
    const float error = int4_error(w, n, importance, scale);
    if (error < least) least = error, best = scale;
  }
  // Kept between the outermost candidates, so that no weight is clipped further than by those.
  const float most = std::abs(widest);
  const float fit = std::clamp(std::abs(fitted(w, n, importance, best)), most / 9.0f, most / 7.0f);
  const float refined = round_to_f16(std::copysign(fit, best));
  return int4_error(w, n, importance, refined) < least ? refined : best;
}

void store_integers(const float* integers, int64_t n, DType type, std::byte* out) {
  if (type == DType::i8) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = static_cast<std::byte>(static_cast<int8_t>(integers[i]));
    }
    return;
  }
  for (int64_t first = 0; first < n; first += kInt4Group) {
    const int64_t count = std::min(kInt4Group, n - first), half = (count + 1) / 2;
    const auto nibble = [&](int64_t i) {
      return (i < count ? static_cast<int>(integers[first + i]) : 0) + 8;
    };
    for (int64_t j = 0; j < half; ++j) {
      out[first / 2 + j] = static_cast<std::byte>(nibble(j) | nibble(j + half) << 4);
    }
  }
}

}  // namespace pali
