#include "unit/matmul/weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

namespace pali::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

uint16_t to_f16(float value) {  // exact for the multiples of 2^-10 below 1 that we store
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) == 0) return static_cast<uint16_t>(bits >> 16);
  const int exponent = static_cast<int>((bits >> 23) & 0xff) - 127 + 15;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (static_cast<uint32_t>(exponent) << 10) |
                               ((bits >> 13) & 0x3ffu));
}

void store(std::byte* at, DType type, float value, bool nan) {
  if (type == DType::f32) {
    if (nan) value = kNan;
    std::memcpy(at, &value, 4);
    return;
  }
  uint16_t bits = nan ? 0x7fff : type == DType::bf16 ? f32_to_bf16(value) : to_f16(value);
  std::memcpy(at, &bits, 2);
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::gelu_tanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::none:
      break;
  }
  return x;
}

}  // namespace

TestWeight::TestWeight(DType type, int64_t out, int64_t in, Layout layout, int64_t padding,
                       int64_t offset, uint32_t seed) {
  const bool by_out = layout == Layout::out_in;
  const int64_t rows = by_out ? out : in, stride = (by_out ? in : out) + padding;
  const int64_t size = dtype_bytes(type);
  bytes_.resize(static_cast<size_t>(rows * stride * size + offset + 64));
  std::byte* first = bytes_.data();
  while (reinterpret_cast<uintptr_t>(first) % 64 != 0) ++first;
  first += offset;
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> steps(-1023, 1023);
  for (int64_t i = 0; i < rows * stride; ++i) {
    store(first + i * size, type, static_cast<float>(steps(random)) / 1024.0f,
          i % stride >= stride - padding);
  }
  ref_ = {.name = "test.weight",
          .dtype = type,
          .out = out,
          .in = in,
          .out_stride = by_out ? stride : 1,
          .in_stride = by_out ? 1 : stride,
          .data = first};
}

TestMatrix::TestMatrix(int64_t rows, int64_t cols, int64_t padding, uint32_t seed)
    : rows_(rows), cols_(cols), stride_(cols + padding) {
  values_.assign(static_cast<size_t>(rows * stride_), kNan);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) view().row(i)[j] = normal(random);
  }
}

bool TestMatrix::padding_intact() const {
  for (int64_t i = 0; i < rows_; ++i) {
    for (int64_t j = cols_; j < stride_; ++j) {
      if (!std::isnan(values_[static_cast<size_t>(i * stride_ + j)])) return false;
    }
  }
  return true;
}

Expected expected_product(const WeightRef& weight, ConstMat x, const Epilogue& epilogue,
                          bool rounded) {
  Expected expected;
  std::vector<double> w(static_cast<size_t>(weight.in));
  expected.value.resize(static_cast<size_t>(x.rows * weight.out));
  expected.tolerance = expected.value;
  std::vector<double> rows(static_cast<size_t>(x.rows * weight.in));
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t k = 0; k < weight.in; ++k) {
      const float value = x.row(m)[k];
      rows[static_cast<size_t>(m * weight.in + k)] =
          rounded ? bf16_to_f32(f32_to_bf16(value)) : value;
    }
  }
  for (int64_t n = 0; n < weight.out; ++n) {
    for (int64_t k = 0; k < weight.in; ++k) w[static_cast<size_t>(k)] = weight.at(n, k);
    for (int64_t m = 0; m < x.rows; ++m) {
      const double* row = rows.data() + m * weight.in;
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < weight.in; ++k) {
        const double product = row[k] * w[static_cast<size_t>(k)];
        sum += product;
        magnitude += std::abs(product);
      }
      double tolerance = 8 * 0x1p-24 * magnitude;
      if (epilogue.bias != nullptr) {
        sum += epilogue.bias[n];
        tolerance += 0x1p-23 * (std::abs(sum) + std::abs(epilogue.bias[n]));
      }
      if (epilogue.activation != Activation::none) {
        // Slopes are at most 1.13 (gelu); far to the left the value is tiny, its terms are not.
        const double before = std::abs(sum);
        sum = activate(epilogue.activation, sum);
        tolerance = 1.2 * tolerance + 0x1p-20 * std::min(1.0, before) + 0x1p-20 * std::abs(sum);
      }
      if (!epilogue.gate.empty()) {
        sum *= epilogue.gate.row(m)[n];
        tolerance = tolerance * std::abs(epilogue.gate.row(m)[n]) + 0x1p-23 * std::abs(sum);
      }
      if (!epilogue.residual.empty()) {
        sum += epilogue.residual.row(m)[n];
        tolerance += 0x1p-23 * (std::abs(sum) + std::abs(epilogue.residual.row(m)[n]));
      }
      expected.value[static_cast<size_t>(m * weight.out + n)] = sum;
      expected.tolerance[static_cast<size_t>(m * weight.out + n)] = tolerance + 1e-30;
    }
  }
  return expected;
}

std::string mismatch(const Expected& expected, ConstMat y) {
  for (int64_t m = 0; m < y.rows; ++m) {
    for (int64_t n = 0; n < y.cols; ++n) {
      const auto at = static_cast<size_t>(m * y.cols + n);
      const double error = std::abs(y.row(m)[n] - expected.value[at]);
      if (error <= expected.tolerance[at]) continue;  // NaN is not
      return "y(" + std::to_string(m) + ", " + std::to_string(n) +
             ") = " + std::to_string(y.row(m)[n]) + ", expected " +
             std::to_string(expected.value[at]) + " +- " + std::to_string(expected.tolerance[at]);
    }
  }
  return "";
}

}  // namespace pali::test
