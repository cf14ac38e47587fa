// What all ways of rounding weights to integers share; quantise.cpp and compensated.cpp only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace pali {

constexpr float least_integer(DType type) { return type == DType::i8 ? -127.0f : -8.0f; }
constexpr float most_integer(DType type) { return type == DType::i8 ? 127.0f : 7.0f; }

// The integer of weight w, as a float. To nearest even by one addition, which the compiler may
// vectorise: good for |x| < 2^22.
inline float rounded(float w, float scale, float least, float most) {
  if (scale == 0.0f) return 0.0f;
  return (std::clamp(w / scale, least, most) + 0x1.8p23f) - 0x1.8p23f;
}

// The scale, an f16 value, of one group of int4 weights: the least sum of squared errors of a few,
// or what least squares make of it. `importance`, where given, weighs each weight's error. Weights
// up to 7 times the largest f16.
float int4_scale(const float* w, int64_t n, const float* importance = nullptr);

// A row of n integers into row_bytes(type, n) bytes, in the layout of models/FORMAT.md.
void store_integers(const float* integers, int64_t n, DType type, std::byte* out);

}  // namespace pali
