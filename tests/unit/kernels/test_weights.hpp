// Rows of weights of any type in file layout, as the kernels for few rows of activations take them.
#pragma once

#include <algorithm>
#include <cstring>

#include "not_finite.hpp"

namespace pali {

inline bool is_integer(KernelType type) {
  return type == KernelType::int8 || type == KernelType::int4;
}

// What activations become.
struct Integers {
  const char* name;
  IntegerKernels KernelTable::*kernels;
  float most;
};
inline constexpr Integers kIntegers[] = {{"int8", &KernelTable::int8, 127.0f},
                                         {"int16", &KernelTable::int16, 32767.0f}};
inline constexpr KernelType kIntegerWeights[] = {KernelType::int8, KernelType::int4};

// Weights of any type with their scales, at odd addresses, and what they stand for.
struct TestWeights {
  TestWeights(KernelType kind, int64_t n, int64_t k, int64_t padding, std::mt19937& random)
      : type(kind), depth(k) {
    if (!is_integer(type)) {
      floats.emplace_back(type, n, k, k + padding, 1, random);
      data = floats[0].data();
      stride = (k + padding) * (type == KernelType::f32 ? 4 : 2);
      return;
    }
    const bool int8 = type == KernelType::int8;
    stride = (int8 ? k : (k + 1) / 2) + padding;
    bytes.resize(static_cast<size_t>(n * stride + 130), std::byte{0xff});
    std::uniform_int_distribution<int> any(int8 ? -128 : 0, int8 ? 127 : 255);
    for (int64_t b = 0; b < n * stride; ++b)
      bytes[65 + static_cast<size_t>(b)] = std::byte(any(random));
    // Scales of every sign and size; f16 subnormals and zero among them.
    const int64_t groups = int8 ? n : n * ((k + 31) / 32);
    scale_bytes.resize(static_cast<size_t>(groups * (int8 ? 4 : 2) + 3), std::byte{0xff});
    std::normal_distribution<float> normal(0.0f, 0.01f);
    for (int64_t g = 0; g < groups; ++g) {
      const float value = g % 11 == 7 ? 0.0f : normal(random);
      if (int8) {
        std::memcpy(scale_bytes.data() + 1 + g * 4, &value, 4);
      } else {
        const uint16_t half =
            static_cast<uint16_t>((random() & 0x83ffu) | (g % 13 == 5 ? 0u : 0x2000u));
        std::memcpy(scale_bytes.data() + 1 + g * 2, &half, 2);
      }
    }
    data = bytes.data() + 65;
    scales = scale_bytes.data() + 1;
  }
  // All integers' bytes alike.
  void set_bytes(int value) {
    std::fill(bytes.begin() + 65, bytes.end() - 65, static_cast<std::byte>(value));
  }
  // Integers are what a value is before its scale.
  void put(int64_t j, int64_t t, float value) {
    if (!is_integer(type)) return floats[0].put(j, t, value);
    std::byte* row = bytes.data() + 65 + j * stride;
    const auto integer = static_cast<int>(value);
    if (type == KernelType::int8) {
      row[t] = static_cast<std::byte>(integer);
      return;
    }
    const int64_t first = t / 32 * 32, half = (std::min<int64_t>(depth - first, 32) + 1) / 2;
    const bool high = t - first >= half;
    std::byte& byte = row[first / 2 + t - first - (high ? half : 0)];
    const auto nibble = static_cast<std::byte>(integer + 8);
    byte = high ? (byte & std::byte{0x0f}) | nibble << 4 : (byte & std::byte{0xf0}) | nibble;
  }
  // The scale that column t of row j has, with others.
  void put_scale(int64_t j, int64_t t, float value) {
    std::byte* of_row = scale_bytes.data() + 1 + (row_scales(j) - scales);
    if (type == KernelType::int8) {
      std::memcpy(of_row, &value, 4);
      return;
    }
    const uint16_t half = f32_to_f16(value);
    std::memcpy(of_row + t / 32 * 2, &half, 2);
  }
  double at(int64_t j, int64_t t) const {
    if (type == KernelType::int8) {
      return static_cast<double>(static_cast<int8_t>(data[j * stride + t])) *
             load_weight(scales + j * 4, DType::f32, 0);
    }
    if (type == KernelType::int4) {
      return static_cast<double>(int4_value(data + j * stride, depth, t)) *
             load_weight(scales + j * ((depth + 31) / 32) * 2, DType::f16, t / 32);
    }
    return floats[0].at(j, t);
  }
  const std::byte* row_scales(int64_t j) const {
    if (scales == nullptr) return nullptr;
    return scales + j * (type == KernelType::int8 ? 4 : (depth + 31) / 32 * 2);
  }
  KernelType type;
  int64_t depth, stride = 0;
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;
  std::vector<Weights> floats;
  std::vector<std::byte> bytes, scale_bytes;
};

// Scales at the ends of their type, and beyond, for the first five rows of W, in a group of
// several.
inline void put_extreme_scales(TestWeights& w) {
  const bool half = w.type == KernelType::int4;
  const float extremes[] = {kInfinity, -kInfinity, kNaN, half ? 0x1p-24f : 0x1p-149f,
                            half ? 65504.0f : 1e34f};
  for (int64_t j = 0; j < 5; ++j) w.put_scale(j, w.depth / 2, extremes[j]);
}

// m rows of k >= 128 activations whose groups are large, small, zero and subnormal beside each
// other; halves that round to even in the first.
inline Poisoned any_magnitude(int64_t m, int64_t k, std::mt19937& random) {
  Poisoned x(m, k);
  x.fill(random);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t t = 0; t < k; ++t) {
      constexpr float kFactors[] = {1.0f, 0.0f, 0x1p-99f, 0x1p-101f, 1e-42f, 1e30f};
      x.at(i, t) *= kFactors[(i + t / kIntegerGroup) % 6];
    }
  }
  for (int64_t t = 0; t < 128; ++t) x.at(0, t) = static_cast<float>(t) - 0.5f;
  x.at(0, 0) = 127.0f;
  return x;
}

}  // namespace pali
