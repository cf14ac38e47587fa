// Row kernels on values that are not finite, in every place of a row, and on subnormals.
#include <algorithm>
#include <cmath>
#include <functional>

#include "not_finite.hpp"

namespace pali {
namespace {

using Table = const KernelTable&;
using Kernel = std::function<void(Table of, const float* x, int64_t n, float* y)>;

class RowValues : public EveryTier {
 protected:
  // Where one value of x is not finite, each result has the kind of the scalar tier's.
  void expect_scalar_kinds(const Kernel& run) {
    const KernelTable scalar = kernel_table(Isa::scalar);
    for (const int64_t n : {1, 7, 8, 9, 16, 17, 31, 33, 70}) {
      for (const float value : {kNaN, kInfinity, -kInfinity}) {
        for (int64_t i = 0; i < n; i += 1 + n / 24) {
          Poisoned x(1, n), y(1, n), expected(1, n);
          x.fill(random);
          x.at(0, i) = value;
          run(scalar, x.data(), n, expected.data());
          run(table, x.data(), n, y.data());
          for (int64_t t = 0; t < n; ++t) {
            ASSERT_EQ(kind_of(y.at(0, t)), kind_of(expected.at(0, t)))
                << value << " at " << i << " of " << n << ", result " << t;
          }
          ASSERT_TRUE(y.untouched());
        }
      }
    }
  }
  std::mt19937 random{9};
};
PALI_EVERY_TIER(RowValues);

TEST_P(RowValues, NormsOfWhatIsNotFinite) {
  const std::vector<float> ones(70, 1.0f);
  expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
    of.layer_norm(x, ones.data(), ones.data(), 1e-6f, n, y);
  });
  expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
    of.rms_norm(x, ones.data(), 1e-6f, n, y);
  });
  // As weights, which touch no other column.
  expect_scalar_kinds([&](Table of, const float* w, int64_t n, float* y) {
    of.layer_norm(ones.data(), w, w, 1e-6f, n, y);
  });
  expect_scalar_kinds([&](Table of, const float* w, int64_t n, float* y) {
    of.rms_norm(ones.data(), w, 1e-6f, n, y);
  });
}

TEST_P(RowValues, EpiloguesOfWhatIsNotFinite) {
  const std::vector<float> ones(70, 1.0f);
  using A = KernelActivation;
  for (const A activation : {A::none, A::gelu_tanh, A::gelu_erf, A::quick_gelu, A::silu, A::relu}) {
    const auto run = [&](const KernelTable& of, const float* x, const float* bias,
                         const float* gate, const float* residual, int64_t n,
                         float* y) { of.epilogue(x, bias, activation, gate, residual, n, y); };
    const float* one = ones.data();
    SCOPED_TRACE(static_cast<int>(activation));
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      run(of, x, nullptr, nullptr, nullptr, n, y);
    });
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      run(of, one, x, nullptr, nullptr, n, y);
    });
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      run(of, one, nullptr, x, nullptr, n, y);
    });
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      run(of, one, nullptr, nullptr, x, n, y);
    });
    // Against each other: inf - inf, 0 inf.
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      std::vector<float> zeros(static_cast<size_t>(n), 0.0f), minus(x, x + n);
      for (float& value : minus) value = -value;
      run(of, x, minus.data(), zeros.data(), minus.data(), n, y);
    });
  }
}

TEST_P(RowValues, TurnsAndCapsOfWhatIsNotFinite) {
  const std::vector<float> some(70, 0.6f), zeros(70, 0.0f);
  for (const float* sines : {some.data(), zeros.data()}) {
    expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
      std::copy(x, x + n, y);
      of.rope(y, some.data(), sines, n / 2);
    });
  }
  expect_scalar_kinds(
      [](Table of, const float* x, int64_t n, float* y) { of.soft_cap(x, 30.0f, n, y); });
}

TEST_P(RowValues, SumsOfWhatIsNotFinite) {
  const std::vector<float> minus_one(70, -1.0f), zeros(70, 0.0f);
  const auto fill = [](float sum, int64_t n, float* y) { std::fill_n(y, n, sum); };
  for (const float* other : {minus_one.data(), zeros.data()}) {
    expect_scalar_kinds(
        [&](Table of, const float* x, int64_t n, float* y) { fill(of.dot(x, other, n), n, y); });
  }
  // Two infinities of different signs.
  expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
    std::vector<float> twice(x, x + n);
    twice.insert(twice.end(), minus_one.data(), minus_one.data() + n);
    for (int64_t i = 0; i < n; ++i) twice.push_back(-x[i]);
    const std::vector<float> plus(twice.size(), 1.0f);
    fill(of.dot(twice.data(), plus.data(), 3 * n), n, y);
  });
  expect_scalar_kinds(
      [&](Table of, const float* x, int64_t n, float* y) { fill(of.max(x, n), n, y); });
  expect_scalar_kinds(
      [&](Table of, const float* x, int64_t n, float* y) { fill(of.sum_exp(x, 0.5f, n), n, y); });
  // A shift that is not finite: every term.
  expect_scalar_kinds([&](Table of, const float* x, int64_t n, float* y) {
    fill(of.sum_exp(minus_one.data(), x[n / 2], n), n, y);
  });
}

// Nothing of an activation is so small as to be slow: its exponential ends above.
TEST_P(RowValues, ActivationsHaveNoSubnormals) {
  if (GetParam() == Isa::scalar) return;  // expf's
  using A = KernelActivation;
  for (int i = -10000; i <= 10000; ++i) {
    const std::vector<float> x(16, static_cast<float>(i) * 0.01f);
    std::vector<float> y(16);
    for (const A activation : {A::gelu_tanh, A::gelu_erf, A::quick_gelu, A::silu}) {
      table.epilogue(x.data(), nullptr, activation, nullptr, nullptr, 16, y.data());
      ASSERT_NE(std::fpclassify(y[3]), FP_SUBNORMAL) << x[3] << " " << static_cast<int>(activation);
    }
  }
}

// A step whose result is subnormal rounds to multiples of 2^-149.
constexpr double kHalfUnit = 0x1p-150;

TEST_P(RowValues, NormsOfSubnormals) {
  for (const int64_t n : lengths()) {
    Poisoned x(1, n), w(1, n), b(1, n), y(1, n);
    x.fill(random, 1e-41f), w.fill(random), b.fill(random, 1e-40f);
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += x.at(0, i) / static_cast<double>(n);
    // Squares vanish beside eps: the scale is 1000. Sums of subnormals are exact.
    const double scale = 1 / std::sqrt(double{1e-6f});
    table.layer_norm(x.data(), w.data(), b.data(), 1e-6f, n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      const double unit = (x.at(0, i) - mean) * scale, weight = w.at(0, i);
      ASSERT_NEAR(y.at(0, i), unit * weight + b.at(0, i),
                  6 * kEps * std::abs(unit * weight) +
                      kHalfUnit * (std::abs(weight) * (scale * 1.001 + 1) + 2))
          << n << " " << i;
    }
    table.rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
    for (int64_t i = 0; i < n; ++i) {
      const double expected = x.at(0, i) * scale * w.at(0, i);
      ASSERT_NEAR(y.at(0, i), expected,
                  6 * kEps * std::abs(expected) + kHalfUnit * (std::abs(w.at(0, i)) + 1))
          << n << " " << i;
    }
  }
}

TEST_P(RowValues, EpiloguesOfSubnormals) {
  using A = KernelActivation;
  for (const A activation : {A::none, A::gelu_tanh, A::gelu_erf, A::quick_gelu, A::silu, A::relu}) {
    for (const int64_t n : {1, 7, 8, 17, 33, 70}) {
      Poisoned x(1, n), bias(1, n), gate(1, n), residual(1, n), y(1, n);
      x.fill(random, 1e-40f), bias.fill(random, 1e-41f);
      gate.fill(random), residual.fill(random, 1e-40f);
      table.epilogue(x.data(), bias.data(), activation, gate.data(), residual.data(), n, y.data());
      for (int64_t i = 0; i < n; ++i) {
        const double sum = double{x.at(0, i)} + bias.at(0, i);
        // x g(x) is x / 2 here, or x itself, or max(x, 0).
        const double value = activation == A::none   ? sum
                             : activation == A::relu ? std::max(sum, 0.0)
                                                     : sum / 2;
        const double g = gate.at(0, i);
        ASSERT_NEAR(y.at(0, i), value * g + residual.at(0, i),
                    5 * kEps * std::abs(value * g) + kHalfUnit * (2 * std::abs(g) + 2))
            << static_cast<int>(activation) << " " << n << " " << i;
      }
    }
  }
}

TEST_P(RowValues, TurnsSumsAndMaximaOfSubnormals) {
  for (const int64_t n : lengths()) {
    Poisoned head(1, 2 * n), cosines(1, n), sines(1, n);
    head.fill(random, 1e-40f), cosines.fill(random), sines.fill(random);
    const Poisoned before = head;
    float highest = -kInfinity;
    double product = 0;
    for (int64_t i = 0; i < n; ++i) {
      highest = std::max(highest, before.at(0, i));
      product += double{before.at(0, i)} * cosines.at(0, i);
    }
    ASSERT_EQ(table.max(before.data(), n), highest) << n;
    // Products round, their sums do not.
    ASSERT_NEAR(table.dot(before.data(), cosines.data(), n), product,
                kHalfUnit * static_cast<double>(n))
        << n;
    table.rope(head.data(), cosines.data(), sines.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double a = before.at(0, i), b = before.at(0, n + i);
      const double c = cosines.at(0, i), s = sines.at(0, i);
      ASSERT_NEAR(head.at(0, i), a * c - b * s, 2 * kHalfUnit) << n << " " << i;
      ASSERT_NEAR(head.at(0, n + i), b * c + a * s, 2 * kHalfUnit) << n << " " << i;
    }
  }
}

}  // namespace
}  // namespace pali
