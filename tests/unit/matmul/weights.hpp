// Random weights in every type and layout, and the product in double that all backends must meet.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "matmul/matmul.hpp"

namespace pali::test {

enum class Layout { out_in, in_out };

// A weight with bytes of its own: rows padded by `padding` elements, and the first one `offset`
// bytes beyond a 64-byte border (files promise nothing). Padding is NaN.
class TestWeight {
 public:
  TestWeight(DType type, int64_t out, int64_t in, Layout layout, int64_t padding, int64_t offset,
             uint32_t seed);
  const WeightRef& ref() const { return ref_; }

 private:
  std::vector<std::byte> bytes_;
  WeightRef ref_;
};

// rows x cols of N(0, 1) between NaN padding.
class TestMatrix {
 public:
  TestMatrix(int64_t rows, int64_t cols, int64_t padding, uint32_t seed);
  Mat view() { return {values_.data(), rows_, cols_, stride_}; }
  bool padding_intact() const;

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> values_;
};

struct Expected {
  std::vector<double> value, tolerance;  // [M * N]
};

// The product with its epilogue in double. `rounded`: activations rounded to bf16 first, as the
// bf16 paths do; their products are exact in f32, so the tolerance is the same.
// Tolerance: f32 sums err by about 2^-24 times the sum of |x w| for values of random sign, whatever
// their order; 8 times that is allowed, carried through the epilogue, plus 2^-20 of relative error
// for the activation.
Expected expected_product(const WeightRef& weight, ConstMat x, const Epilogue& epilogue,
                          bool rounded);

// "" where y meets the expectation, else the first place where it does not.
std::string mismatch(const Expected& expected, ConstMat y);

}  // namespace pali::test
