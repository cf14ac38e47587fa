// What the scalar sources share: values of every type, activations as integers.
#pragma once

#include <math.h>  // not <cmath>: its overloads are inline functions, merged across objects
#include <string.h>

#include "kernels/kernel_table.hpp"

namespace pali {
namespace scalar {
namespace {

inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) {  // NaN leaves quiet, as from the conversion instruction
    const uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return from_bits(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return from_bits(sign | to_bits(magnitude));
  }
  return from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

inline float load(const std::byte* data, KernelType type, int64_t index) {
  if (type == KernelType::f32) {
    float value;
    memcpy(&value, data + index * 4, 4);
    return value;
  }
  uint16_t bits;
  memcpy(&bits, data + index * 2, 2);
  return type == KernelType::bf16 ? from_bits(static_cast<uint32_t>(bits) << 16)
                                  : half_to_float(bits);
}

inline const std::byte* row_of(const std::byte* data, KernelType type, int64_t elements) {
  return data + elements * (type == KernelType::f32 ? 4 : 2);
}

constexpr int64_t groups_of(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

inline void quantise_group(const float* x, int64_t count, float* scale, int8_t* q) {
  float most = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && fabsf(x[i]) < INFINITY;
    if (fabsf(x[i]) > most) most = fabsf(x[i]);
  }
  *scale = most / 127.0f;
  if (finite && most >= 0x1p-100f) {
    const float inverse = 127.0f / most;
    for (int64_t i = 0; i < count; ++i) q[i] = static_cast<int8_t>(lrintf(x[i] * inverse));
    return;
  }
  *scale = finite ? 0.0f : NAN;
  memset(q, 0, static_cast<size_t>(count));
}

// packed: the groups' scales, then the integers.
inline float product_int8(const std::byte* packed, const std::byte* weights, int64_t k) {
  const float* scales = reinterpret_cast<const float*>(packed);
  const int8_t* q = reinterpret_cast<const int8_t*>(packed + groups_of(k) * 4);
  const int8_t* w = reinterpret_cast<const int8_t*>(weights);
  float total = 0.0f;
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t end = (g + 1) * kInt8Group < k ? (g + 1) * kInt8Group : k;
    int32_t sum = 0;
    for (int64_t i = g * kInt8Group; i < end; ++i) sum += q[i] * w[i];
    total = fmaf(static_cast<float>(sum), scales[g], total);
  }
  return total;
}

}  // namespace
}  // namespace scalar
}  // namespace pali
