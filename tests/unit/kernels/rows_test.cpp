// Norms, epilogues, reductions and conversions of every tier against f64.
#include <functional>

#include "kernel_testing.hpp"

namespace pali {
namespace {

// As many as the rows of real layers have, too.
std::vector<int64_t> row_lengths() {
  std::vector<int64_t> all = lengths();
  all.insert(all.end(), std::begin(kLongLengths), std::end(kLongLengths));
  return all;
}

class Rows : public EveryTier {
 protected:
  std::mt19937 random{7};
};
PALI_EVERY_TIER(Rows);

// y = (x - m) s w + b. The mean is off by at most e mean|x|, the variance and with it s by a
// relative e and a few roundings more, e being the error of a lane sum.
TEST_P(Rows, LayerNormMatchesF64) {
  for (const int64_t n : row_lengths()) {
    for (const float offset : {0.0f, 30.0f}) {
      Poisoned x(1, n), w(1, n), b(1, n), y(1, n);
      x.fill(random, 3.0f), w.fill(random), b.fill(random);
      for (int64_t i = 0; i < n; ++i) x.at(0, i) += offset;
      double mean = 0, magnitude = 0, variance = 0;
      for (int64_t i = 0; i < n; ++i) mean += x.at(0, i), magnitude += std::abs(x.at(0, i));
      mean /= static_cast<double>(n), magnitude /= static_cast<double>(n);
      for (int64_t i = 0; i < n; ++i) variance += std::pow(x.at(0, i) - mean, 2);
      variance /= static_cast<double>(n);
      const double eps = 1e-6, scale = 1 / std::sqrt(variance + eps);
      table.layer_norm(x.data(), w.data(), b.data(), 1e-6f, n, y.data());
      const double e = lane_sum_error(n);
      // A shift of the mean by d adds d^2 to the variance; relative to variance + eps.
      const double shift = e * magnitude + kEps * std::abs(mean);
      const double scale_error =
          e + 4 * kEps + shift * shift * scale * scale + 2 * kEps * (std::abs(mean) + 1) * scale;
      for (int64_t i = 0; i < n; ++i) {
        const double z = (x.at(0, i) - mean) * scale;
        const double expected = z * w.at(0, i) + b.at(0, i);
        const double bound = std::abs(w.at(0, i)) * (scale * (shift + kEps * std::abs(x.at(0, i))) +
                                                     std::abs(z) * (scale_error + 4 * kEps)) +
                             2 * kEps * std::abs(expected);
        ASSERT_NEAR(y.at(0, i), expected, bound) << "n " << n << " i " << i;
      }
      ASSERT_TRUE(y.untouched());
      // In place, and without a bias.
      Poisoned again = x;
      table.layer_norm(again.data(), w.data(), b.data(), 1e-6f, n, again.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(again.at(0, i), y.at(0, i));
      Poisoned plain(1, n), zero(1, n);
      zero.fill(random, 0.0f);
      table.layer_norm(x.data(), w.data(), nullptr, 1e-6f, n, plain.data());
      table.layer_norm(x.data(), w.data(), zero.data(), 1e-6f, n, y.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(plain.at(0, i), y.at(0, i));
    }
  }
}

TEST_P(Rows, RmsNormMatchesF64) {
  for (const int64_t n : row_lengths()) {
    Poisoned x(1, n), w(1, n), y(1, n);
    x.fill(random, 3.0f), w.fill(random);
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += std::pow(x.at(0, i), 2);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
    table.rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      const double expected = x.at(0, i) * scale * w.at(0, i);
      ASSERT_NEAR(y.at(0, i), expected, std::abs(expected) * (lane_sum_error(n) + 6 * kEps));
    }
    ASSERT_TRUE(y.untouched());
    table.rms_norm(x.data(), w.data(), 1e-6f, n, x.data());
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x.at(0, i), y.at(0, i));
  }
}

TEST_P(Rows, NormsOfAZeroRowStayFinite) {
  for (const int64_t n : {1, 7, 16, 33}) {
    Poisoned x(1, n), w(1, n), b(1, n), y(1, n);
    x.fill(random, 0.0f), w.fill(random), b.fill(random);
    table.rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(y.at(0, i), 0.0f);
    table.layer_norm(x.data(), w.data(), b.data(), 1e-6f, n, y.data());
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(y.at(0, i), b.at(0, i));
  }
}

struct Curve {
  KernelActivation activation;
  std::function<double(double)> exact;
};

std::vector<Curve> curves() {
  using A = KernelActivation;
  return {
      {A::none, [](double x) { return x; }},
      {A::gelu_tanh,
       [](double x) {
         return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }},
      {A::gelu_erf, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }},
      {A::quick_gelu, [](double x) { return x / (1 + std::exp(-1.702 * x)); }},
      {A::silu, [](double x) { return x / (1 + std::exp(-x)); }},
      {A::relu, [](double x) { return x < 0 ? 0 : x; }},
  };
}

// act(x) = x g(x), 0 <= g <= 1. g is built with relative errors of a few roundings where it is
// large, and with absolute ones of the same size below (1 + tanh(y), 1 - erfc(z)/2): 4.5 kEps |x|
// covers the 1.1e-7 = 1.9 kEps of the erfc fit and five roundings of values below 1/2.
TEST_P(Rows, ActivationsMatchF64) {
  std::vector<float> inputs;
  for (int i = -1600; i <= 1600; ++i) inputs.push_back(static_cast<float>(i) * 0.0101f);
  for (const float x : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-8f, 60.0f, -60.0f, 120.0f, -120.0f, 1e4f,
                        -1e4f, 1e12f, -1e12f}) {
    inputs.push_back(x);
  }
  const int64_t n = static_cast<int64_t>(inputs.size());
  for (const Curve& curve : curves()) {
    std::vector<float> y(inputs.size());
    table.epilogue(inputs.data(), nullptr, curve.activation, nullptr, nullptr, n, y.data());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const double x = inputs[i];
      const bool exact =
          curve.activation == KernelActivation::none || curve.activation == KernelActivation::relu;
      const double bound = exact ? 0 : 4.5 * kEps * std::abs(x);
      ASSERT_NEAR(y[i], curve.exact(x), bound)
          << "activation " << static_cast<int>(curve.activation) << " at " << x;
    }
  }
}

TEST_P(Rows, ActivationsPropagateNaNAndInfinity) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Curve& curve : curves()) {
    std::vector<float> x(19, 0.5f), y(19);
    x[3] = nan, x[17] = nan, x[5] = infinity;
    table.epilogue(x.data(), nullptr, curve.activation, nullptr, nullptr, 19, y.data());
    EXPECT_TRUE(std::isnan(y[3]) && std::isnan(y[17])) << static_cast<int>(curve.activation);
    EXPECT_EQ(y[5], infinity);
    EXPECT_TRUE(std::isfinite(y[4]) && std::isfinite(y[18]));
  }
}

TEST_P(Rows, EpilogueAddsBiasThenGatesThenAddsTheResidual) {
  for (const int64_t n : row_lengths()) {
    for (int given = 0; given < 8; ++given) {
      Poisoned x(1, n), bias(1, n), gate(1, n), residual(1, n);
      x.fill(random), bias.fill(random), gate.fill(random), residual.fill(random);
      const Poisoned before = residual;
      const bool has_bias = given & 1, has_gate = given & 2, has_residual = given & 4;
      // The residual is y itself, as in a transformer block.
      table.epilogue(x.data(), has_bias ? bias.data() : nullptr, KernelActivation::silu,
                     has_gate ? gate.data() : nullptr, has_residual ? residual.data() : nullptr, n,
                     residual.data());
      for (int64_t i = 0; i < n; ++i) {
        const double sum = x.at(0, i) + (has_bias ? double{bias.at(0, i)} : 0.0);
        const double g = has_gate ? gate.at(0, i) : 1.0;
        const double r = has_residual ? before.at(0, i) : 0.0;
        const double product = sum / (1 + std::exp(-sum)) * g;
        const double bound =
            6 * kEps * (std::abs(sum) * std::abs(g) + std::abs(g)) + kEps * std::abs(product + r);
        ASSERT_NEAR(residual.at(0, i), product + r, bound) << "n " << n << " given " << given;
      }
      ASSERT_TRUE(residual.untouched());
    }
  }
}

// Two products and their sum: a rounding each.
TEST_P(Rows, RopeTurnsTheHalvesOfAHead) {
  for (const int64_t half : row_lengths()) {
    Poisoned head(1, 2 * half), cosines(1, half), sines(1, half);
    head.fill(random), cosines.fill(random), sines.fill(random);
    const Poisoned before = head;
    table.rope(head.data(), cosines.data(), sines.data(), half);
    for (int64_t i = 0; i < half; ++i) {
      const double a = before.at(0, i), b = before.at(0, half + i);
      const double c = cosines.at(0, i), s = sines.at(0, i);
      ASSERT_NEAR(head.at(0, i), a * c - b * s, 2 * kEps * (std::abs(a * c) + std::abs(b * s)));
      ASSERT_NEAR(head.at(0, half + i), b * c + a * s,
                  2 * kEps * (std::abs(b * c) + std::abs(a * s)));
    }
    ASSERT_TRUE(head.untouched());
  }
}

// 1 - 2 / (1 + e^2u): the quotient, at most 2, carries 3 kEps of e^2u at half weight and two
// roundings, the difference and the product a rounding each, 2u two that count |u| / cosh^2 < 1/2.
TEST_P(Rows, SoftCapMatchesF64) {
  for (const float cap : {30.0f, 50.0f, 3.5f}) {
    for (const int64_t n : row_lengths()) {
      Poisoned x(1, n), y(1, n);
      x.fill(random, 40.0f);
      table.soft_cap(x.data(), cap, n, y.data());
      for (int64_t i = 0; i < n; ++i) {
        const double expected = cap * std::tanh(double{x.at(0, i)} / cap);
        ASSERT_NEAR(y.at(0, i), expected, 10 * kEps * cap) << "n " << n << " i " << i;
      }
      ASSERT_TRUE(y.untouched());
      table.soft_cap(x.data(), cap, n, x.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(x.at(0, i), y.at(0, i));
    }
  }
  std::vector<float> ends = {1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN()};
  table.soft_cap(ends.data(), 30.0f, 3, ends.data());
  EXPECT_EQ(ends[0], 30.0f);
  EXPECT_EQ(ends[1], -30.0f);
  EXPECT_TRUE(std::isnan(ends[2]));
}

TEST_P(Rows, DotMatchesF64) {
  for (const int64_t n : row_lengths()) {
    Poisoned a(1, n), b(1, n);
    a.fill(random), b.fill(random);
    double expected = 0, magnitude = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double term = double{a.at(0, i)} * b.at(0, i);
      expected += term, magnitude += std::abs(term);
    }
    ASSERT_NEAR(table.dot(a.data(), b.data(), n), expected, magnitude * lane_sum_error(n)) << n;
  }
}

TEST_P(Rows, MaxIsExactAtEveryPlace) {
  for (const int64_t n : row_lengths()) {
    Poisoned x(1, n);
    x.fill(random);
    const int64_t stride = n > 2000 ? 199 : n > 64 ? 13 : 1;
    for (int64_t i = 0; i < n; i += stride) {
      const float kept = x.at(0, i);
      x.at(0, i) = 100.0f;
      ASSERT_EQ(table.max(x.data(), n), 100.0f) << n << " " << i;
      x.at(0, i) = std::numeric_limits<float>::quiet_NaN();
      ASSERT_TRUE(std::isnan(table.max(x.data(), n))) << n << " " << i;
      x.at(0, i) = kept;
    }
    for (int64_t i = 0; i < n; ++i) x.at(0, i) = -std::numeric_limits<float>::infinity();
    ASSERT_EQ(table.max(x.data(), n), -std::numeric_limits<float>::infinity());
  }
}

// e^x has a relative error of 3 kEps of its own, and one rounding of x - shift, which counts |x|
// times.
TEST_P(Rows, SumExpMatchesF64) {
  for (const int64_t n : row_lengths()) {
    Poisoned x(1, n);
    x.fill(random, 5.0f);
    double expected = 0, spread = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double term = std::exp(double{x.at(0, i)} - 3.5);
      expected += term, spread += term * (3 + std::abs(x.at(0, i) - 3.5));
    }
    const double bound = expected * lane_sum_error(n) + spread * kEps;
    ASSERT_NEAR(table.sum_exp(x.data(), 3.5f, n), expected, bound) << n;
  }
}

// The exponential alone, through a sum of one term: relative error over the whole range,
// subnormal results to half their unit.
TEST_P(Rows, ExponentialIsAccurateToTheEndsOfItsRange) {
  for (int i = -10700; i <= 8872; ++i) {
    const float x = static_cast<float>(i) * 0.01f;
    const double expected = std::exp(double{x});
    ASSERT_NEAR(table.sum_exp(&x, 0.0f, 1), expected, expected * 3 * kEps + 0x1p-149) << x;
  }
  const float infinity = std::numeric_limits<float>::infinity();
  const float extremes[] = {-infinity, -1e30f, -200.0f, 0.0f, 100.0f, infinity, std::nanf("")};
  EXPECT_EQ(table.sum_exp(&extremes[0], 0.0f, 1), 0.0f);
  EXPECT_EQ(table.sum_exp(&extremes[1], 0.0f, 1), 0.0f);
  EXPECT_EQ(table.sum_exp(&extremes[2], 0.0f, 1), 0.0f);
  EXPECT_EQ(table.sum_exp(&extremes[3], 0.0f, 1), 1.0f);
  EXPECT_EQ(table.sum_exp(&extremes[4], 0.0f, 1), infinity);
  EXPECT_EQ(table.sum_exp(&extremes[5], 0.0f, 1), infinity);
  EXPECT_TRUE(std::isnan(table.sum_exp(&extremes[6], 0.0f, 1)));
}

// All 65536 bit patterns, from an odd address.
TEST_P(Rows, WidenIsExactForEvery16BitPattern) {
  std::vector<std::byte> bytes(2 * 65536 + 1);
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    std::memcpy(bytes.data() + 1 + 2 * bits, &half, 2);
  }
  for (const KernelType type : {KernelType::bf16, KernelType::f16}) {
    std::vector<float> y(65536);
    table.widen(bytes.data() + 1, type, 65536, y.data());
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const uint16_t half = static_cast<uint16_t>(bits);
      const float expected = type == KernelType::bf16 ? bf16_to_f32(half) : f16_to_f32(half);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(y[bits])) << bits;
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(y[bits]), std::bit_cast<uint32_t>(expected)) << bits;
      }
    }
  }
}

TEST_P(Rows, WidenStaysInsideItsRow) {
  for (const KernelType type : {KernelType::f32, KernelType::bf16, KernelType::f16}) {
    for (const int64_t n : row_lengths()) {
      const Weights w(type, 1, n, n, 1, random);
      Poisoned y(1, n);
      table.widen(w.data(), type, n, y.data());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y.at(0, i), w.at(0, i)) << n << " " << i;
      ASSERT_TRUE(y.untouched());
    }
  }
}

TEST_P(Rows, ToBf16RoundsToNearestEven) {
  std::vector<uint32_t> patterns;
  for (uint32_t high = 0; high < 65536; high += 7) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      patterns.push_back(high << 16 | low);
    }
  }
  std::vector<float> x;
  for (const uint32_t bits : patterns) x.push_back(std::bit_cast<float>(bits));
  std::vector<uint16_t> y(x.size());
  table.to_bf16(x.data(), static_cast<int64_t>(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], f32_to_bf16(x[i])) << patterns[i];
  for (const int64_t n : row_lengths()) {
    std::vector<uint16_t> part(static_cast<size_t>(n) + 2, 0xabcdu);
    table.to_bf16(x.data() + 5, n, part.data() + 1);
    ASSERT_EQ(part.front(), 0xabcdu);
    ASSERT_EQ(part.back(), 0xabcdu);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(part[static_cast<size_t>(i) + 1], y[static_cast<size_t>(i) + 5]);
    }
  }
}

}  // namespace
}  // namespace pali
