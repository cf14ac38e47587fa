// Shared by the kernel tests: every available tier, buffers with poison around what kernels may
// read and canaries around what they may write, and the constants of the error bounds.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "kernels/isa.hpp"
#include "kernels/kernel_table.hpp"

namespace pali {

// Half a unit in the last place of f32 at 1: the relative error of one rounding.
inline constexpr double kEps = 0x1p-24;

// Relative error of a sum of n products in at least eight lanes (every tier has as many), added
// pairwise at the end: each term passes at most this many roundings.
inline double lane_sum_error(int64_t n) { return (static_cast<double>(n) / 8 + 8) * kEps; }

// Tests that run once a tier; tiers that the CPU lacks are skipped aloud.
class EveryTier : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    for (const IsaTier& tier : isa_tiers()) {
      if (tier.isa != GetParam()) continue;
      if (!tier.available) {
        GTEST_SKIP() << "tier " << tier.name << " not run: missing " << tier.missing;
      }
    }
    table = kernel_table(GetParam());
  }
  KernelTable table = {};
};

inline std::string tier_label(const testing::TestParamInfo<Isa>& info) {
  return isa_name(info.param);
}

#define PALI_EVERY_TIER(suite)                                                                 \
  INSTANTIATE_TEST_SUITE_P(, suite,                                                            \
                           testing::Values(Isa::scalar, Isa::avx2, Isa::avx_vnni, Isa::avx512, \
                                           Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx),      \
                           tier_label)

// Lengths around every vector width and unrolled step.
inline std::vector<int64_t> lengths() {
  std::vector<int64_t> all;
  for (int64_t n = 1; n <= 33; ++n) all.push_back(n);
  for (int64_t n : {47, 63, 64, 65, 104, 127, 128, 129, 255, 257, 511, 513, 1152, 1664}) {
    all.push_back(n);
  }
  return all;
}

// Depths of real layers (2048 and 5120 of language models, 4304 and 8192 of vision towers), and
// those beside a power of two. For few rows and columns: references are slow.
inline constexpr int64_t kLongLengths[] = {2047, 2048, 2049, 4304, 5120, 8192};

// A row-major f32 matrix at an odd address, rows `stride` apart, all else NaN with a known payload:
// reading it shows in results, writing it shows in untouched().
class Poisoned {
 public:
  Poisoned(int64_t rows, int64_t cols, int64_t stride)
      : rows_(rows),
        cols_(cols),
        stride_(stride),
        cells_(static_cast<size_t>(2 * kMargin + rows * stride), std::bit_cast<float>(kPoison)) {}
  Poisoned(int64_t rows, int64_t cols) : Poisoned(rows, cols, cols + 3) {}

  float* data() { return cells_.data() + kMargin; }
  const float* data() const { return cells_.data() + kMargin; }
  float* row(int64_t i) { return data() + i * stride_; }
  const float* row(int64_t i) const { return data() + i * stride_; }
  float& at(int64_t i, int64_t j) { return row(i)[j]; }
  float at(int64_t i, int64_t j) const { return row(i)[j]; }
  int64_t stride() const { return stride_; }

  Poisoned& fill(std::mt19937& random, float scale = 1.0f) {
    std::normal_distribution<float> normal(0.0f, scale);
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = 0; j < cols_; ++j) at(i, j) = normal(random);
    }
    return *this;
  }
  // Nothing outside the first `rows` x `cols` values was written.
  bool untouched(int64_t rows, int64_t cols) const {
    for (int64_t c = 0; c < static_cast<int64_t>(cells_.size()); ++c) {
      const int64_t inside = c - kMargin;
      const int64_t i = inside / stride_, j = inside % stride_;
      if (inside >= 0 && i < rows && j < cols) continue;
      if (i < rows_ && j < cols_ && inside >= 0) continue;  // values of our own
      if (std::bit_cast<uint32_t>(cells_[static_cast<size_t>(c)]) != kPoison) return false;
    }
    return true;
  }
  bool untouched() const { return untouched(rows_, cols_); }

 private:
  static constexpr int64_t kMargin = 37;  // odd: no vector alignment by chance
  static constexpr uint32_t kPoison = 0x7fc0beefu;
  int64_t rows_, cols_, stride_;
  std::vector<float> cells_;
};

// A weight matrix in file layout at an odd byte address, of any type and strides, poisoned (NaN in
// every type) outside its values.
class Weights {
 public:
  Weights(KernelType type, int64_t out, int64_t in, int64_t out_stride, int64_t in_stride,
          std::mt19937& random)
      : type_(type),
        out_stride_(out_stride),
        in_stride_(in_stride),
        bytes_(static_cast<size_t>(kMargin * 2 +
                                   width() * (1 + (out - 1) * out_stride + (in - 1) * in_stride)),
               std::byte{0xff}) {
    std::normal_distribution<float> normal(0.0f, 1.0f);
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i < in; ++i) set(o, i, normal(random));
    }
  }
  const std::byte* data() const { return bytes_.data() + kMargin; }
  KernelType type() const { return type_; }
  int64_t out_stride() const { return out_stride_; }
  int64_t in_stride() const { return in_stride_; }
  // Rounds to the type.
  void put(int64_t o, int64_t i, float value) {
    if (type_ == KernelType::f32) {
      std::memcpy(place(o, i), &value, 4);
      return;
    }
    const uint16_t bits = type_ == KernelType::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
    std::memcpy(place(o, i), &bits, 2);
  }
  float at(int64_t o, int64_t i) const {
    constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};
    return load_weight(data(), kTypes[static_cast<int>(type_)], o * out_stride_ + i * in_stride_);
  }

 private:
  static constexpr int64_t kMargin = 65;  // odd: files promise no alignment
  int64_t width() const { return type_ == KernelType::f32 ? 4 : 2; }
  std::byte* place(int64_t o, int64_t i) {
    return bytes_.data() + kMargin + (o * out_stride_ + i * in_stride_) * width();
  }
  void set(int64_t o, int64_t i, float value) {
    if (type_ != KernelType::f16) return put(o, i, value);
    // Any finite bits will do for f16: a random mantissa, exponents around 1, subnormals now and
    // then.
    const uint32_t raw = std::bit_cast<uint32_t>(value);
    const uint32_t exponent = raw % 61 == 0 ? 0u : 12u + raw % 5;
    const auto bits =
        static_cast<uint16_t>((raw >> 16 & 0x8000u) | exponent << 10 | (raw >> 7 & 0x3ffu));
    std::memcpy(place(o, i), &bits, 2);
  }
  KernelType type_;
  int64_t out_stride_, in_stride_;
  std::vector<std::byte> bytes_;
};

// multiply(y, epilogue) stores [m, n] as the row kernel does after a product without an epilogue:
// for every activation, with and without bias, gate and residual.
template <class Multiply>
void expect_row_epilogue(const KernelTable& table, int64_t m, int64_t n, std::mt19937& random,
                         const Multiply& multiply) {
  Poisoned plain(m, n), bias(1, n), gate(m, n, n + 1), residual(m, n, n + 9);
  bias.fill(random), gate.fill(random), residual.fill(random);
  multiply(plain, KernelEpilogue{});
  using A = KernelActivation;
  for (const A activation : {A::none, A::gelu_tanh, A::gelu_erf, A::quick_gelu, A::silu, A::relu}) {
    for (int mask = 0; mask < 8; ++mask) {
      const auto given = [&](int bit, const float* p) { return (mask & bit) != 0 ? p : nullptr; };
      Poisoned y(m, n), expected(m, n);
      KernelEpilogue epilogue;
      epilogue.bias = given(1, bias.data()), epilogue.activation = activation;
      epilogue.gate = given(2, gate.data()), epilogue.gate_stride = gate.stride();
      epilogue.residual = given(4, residual.data()), epilogue.residual_stride = residual.stride();
      multiply(y, epilogue);
      for (int64_t i = 0; i < m; ++i) {
        table.epilogue(plain.row(i), given(1, bias.data()), activation, given(2, gate.row(i)),
                       given(4, residual.row(i)), n, expected.row(i));
        ASSERT_EQ(0, std::memcmp(y.row(i), expected.row(i), static_cast<size_t>(n) * 4))
            << static_cast<int>(activation) << " mask " << mask << " row " << i;
      }
      ASSERT_TRUE(y.untouched());
    }
  }
}

}  // namespace pali
