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

constexpr int64_t kInt4Group = 32;  // columns with one scale
constexpr int64_t groups_of(int64_t k) { return (k + kIntegerGroup - 1) / kIntegerGroup; }

// Q: int8_t or int16_t, the integers that activations become.
template <class Q>
void quantise_group(const float* x, int64_t count, float* scale, Q* q) {
  constexpr float kMost = sizeof(Q) == 1 ? 127.0f : 32767.0f;
  float most = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && fabsf(x[i]) < INFINITY;
    if (fabsf(x[i]) > most) most = fabsf(x[i]);
  }
  *scale = most / kMost;
  if (finite && most >= 0x1p-100f) {
    const float inverse = kMost / most;
    for (int64_t i = 0; i < count; ++i) q[i] = static_cast<Q>(lrintf(x[i] * inverse));
    return;
  }
  *scale = finite ? 0.0f : NAN;
  memset(q, 0, static_cast<size_t>(count) * sizeof(Q));
}

// packed: the groups' scales, then the integers.
template <class Q>
float product_int8(const std::byte* packed, const std::byte* weights, int64_t k) {
  const float* scales = reinterpret_cast<const float*>(packed);
  const Q* q = reinterpret_cast<const Q*>(packed + groups_of(k) * 4);
  const int8_t* w = reinterpret_cast<const int8_t*>(weights);
  float total = 0.0f;
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t end = (g + 1) * kIntegerGroup < k ? (g + 1) * kIntegerGroup : k;
    int32_t sum = 0;
    for (int64_t i = g * kIntegerGroup; i < end; ++i) sum += q[i] * w[i];
    total = fmaf(static_cast<float>(sum), scales[g], total);
  }
  return total;
}

// Of one group of a row of int4 weights, `count` of them.
template <class Q>
int32_t sum_of_group(const Q* q, const std::byte* w, int64_t count) {
  const int64_t half = (count + 1) / 2;
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int byte = static_cast<int>(w[i < half ? i : i - half]);
    sum += q[i] * ((i < half ? byte & 15 : byte >> 4) - 8);
  }
  return sum;
}

template <class Q>
float product_int4(const std::byte* packed, const std::byte* w, const std::byte* scales,
                   int64_t k) {
  const float* x_scales = reinterpret_cast<const float*>(packed);
  const Q* q = reinterpret_cast<const Q*>(packed + groups_of(k) * 4);
  float total = 0.0f;
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t end = (g + 1) * kIntegerGroup < k ? (g + 1) * kIntegerGroup : k;
    float part = 0.0f;
    for (int64_t i = g * kIntegerGroup; i < end; i += kInt4Group) {
      const int64_t count = end - i < kInt4Group ? end - i : kInt4Group;
      part = fmaf(static_cast<float>(sum_of_group(q + i, w + i / 2, count)),
                  load(scales, KernelType::f16, i / kInt4Group), part);
    }
    total = fmaf(part, x_scales[g], total);
  }
  return total;
}

// A packed row of x times row j of int8 or int4 weights, whose bytes begin at w.
template <class Q>
float product(const std::byte* x, const std::byte* w, const std::byte* scales, KernelType type,
              int64_t j, int64_t k) {
  if (type == KernelType::int8) {
    return product_int8<Q>(x, w, k) * load(scales, KernelType::f32, j);
  }
  return product_int4<Q>(x, w, scales + j * ((k + kInt4Group - 1) / kInt4Group) * 2, k);
}

}  // namespace
}  // namespace scalar
}  // namespace pali
