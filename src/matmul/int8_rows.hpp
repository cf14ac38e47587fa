// Activations in int8 as IntegerKernels rounds them (kernels/kernel_table.hpp), in plain rows for a
// backend that is none of our kernels.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/kernel_table.hpp"

namespace pali {

// `count` <= kIntegerGroup activations as integers, zeros behind them up to a whole group; returns
// their scale.
inline float int8_group(const float* x, int64_t count, int8_t* out) {
  int32_t bits = 0;  // of the largest |x|: in the order of the floats, NaN and infinity last
  for (int64_t i = 0; i < count; ++i) {
    bits = std::max(bits, std::bit_cast<int32_t>(x[i]) & 0x7fffffff);
  }
  std::fill(out, out + kIntegerGroup, int8_t{0});
  if (bits >= 0x7f800000) return std::numeric_limits<float>::quiet_NaN();
  const float highest = std::bit_cast<float>(bits);
  if (highest < 0x1p-100f) return 0;
  const float inverse = 127.0f / highest;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<int8_t>((x[i] * inverse + 0x1.8p23f) - 0x1.8p23f);  // nearest even
  }
  return highest / 127.0f;
}

}  // namespace pali
