// Arithmetic on sizes that come out of files: never wraps around.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace pali {

// a * b of two sizes, or nothing where that is beyond int64 or one is negative.
inline std::optional<int64_t> checked_multiply(int64_t a, int64_t b) {
  int64_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// Elements of a shape times `bytes` each; 1 element for the empty shape. A size of zero anywhere
// gives zero only where the other sizes do not overflow: [2^62, 2^62, 0] is refused.
inline std::optional<int64_t> checked_bytes(std::span<const int64_t> shape, int64_t bytes) {
  std::optional<int64_t> total = bytes;
  bool empty = false;
  for (const int64_t size : shape) {
    if (size == 0) {
      empty = true;
    } else {
      total = checked_multiply(*total, size);
    }
    if (!total) return std::nullopt;
  }
  return empty ? 0 : total;
}

}  // namespace pali
