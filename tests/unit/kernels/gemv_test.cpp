// Few rows times a weight matrix in file layout, of every type, every tier against f64.
#include <algorithm>

#include "test_weights.hpp"

namespace pali {
namespace {

constexpr KernelType kTypes[] = {KernelType::f32, KernelType::bf16, KernelType::f16,
                                 KernelType::int8, KernelType::int4};

class Gemv : public EveryTier {
 protected:
  // Rows of x from `first` on with rows of w from `column` on.
  void multiply(const TestWeights& w, const Poisoned& x, int64_t first, int64_t m, int64_t column,
                int64_t n, float* y, int64_t y_stride) const {
    // NaN between and behind what is packed: nothing may depend on it.
    const int64_t stride = gemv_packed_floats(w.depth) + 16;
    packed.assign(static_cast<size_t>(m * stride) + 16, std::numeric_limits<float>::quiet_NaN());
    float* aligned = packed.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 64 != 0) ++aligned;
    for (int64_t i = 0; i < m; ++i) {
      table.gemv.pack(x.row(first + i), w.type, w.depth, aligned + i * stride);
    }
    table.gemv.multiply({aligned, stride, m, w.data + column * w.stride, w.stride,
                         w.row_scales(column), w.type, n, w.depth, y, y_stride});
  }

  void check(KernelType type, int64_t m, int64_t n, int64_t k) {
    std::mt19937 random(static_cast<unsigned>(m * 7 + n * 11 + k));
    const TestWeights w(type, n, k, 5, random);
    Poisoned x(m, k);
    x.fill(random);
    expect_near(w, x, m, n);
  }

  // Runs m rows and checks every value: lane sums' bound on the sum of the terms' magnitudes, one
  // rounding each for a scaled weight and a scaled sum, and the smallest unit at every step.
  void expect_near(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n) {
    const int64_t k = w.depth;
    Poisoned y(m, n);
    multiply(w, x, 0, m, 0, n, y.data(), y.stride());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < k; ++t) {
          const double term = double{x.at(i, t)} * w.at(j, t);
          expected += term, magnitude += std::abs(term);
        }
        const double bound =
            magnitude * (lane_sum_error(k) + 2 * kEps) + 0x1p-149 * static_cast<double>(k / 8 + 8);
        ASSERT_NEAR(y.at(i, j), expected, bound)
            << "type " << static_cast<int>(w.type) << " m " << m << " n " << n << " k " << k
            << " at " << i << "," << j;
      }
    }
    ASSERT_TRUE(y.untouched());
    // A row's result does not depend on its company.
    for (int64_t i = 0; i < m; ++i) {
      Poisoned alone(1, n);
      multiply(w, x, i, 1, 0, n, alone.data(), alone.stride());
      for (int64_t j = 0; j < n; ++j) ASSERT_EQ(alone.at(0, j), y.at(i, j)) << i << "," << j;
    }
  }
  mutable std::vector<float> packed;
};
PALI_EVERY_TIER(Gemv);

TEST_P(Gemv, MatchesF64AtEveryDepth) {
  for (const KernelType type : kTypes) {
    for (const int64_t k : lengths()) check(type, 1 + k % 8, 5, k);
  }
}

TEST_P(Gemv, MatchesF64AtEveryRowAndColumnCount) {
  for (const KernelType type : kTypes) {
    for (int64_t m = 1; m <= 8; ++m) {
      for (int64_t n = 1; n <= 9; ++n) check(type, m, n, 37);
    }
  }
}

TEST_P(Gemv, MatchesF64AtRealShapes) {
  for (const KernelType type : kTypes) {
    check(type, 1, 12, 5120);
    check(type, 4, 6, 2048);
    check(type, 2, 18, 1664);
    for (const int64_t k : kLongLengths) check(type, 3, 5, k);
  }
}

// How the columns are divided among threads must not show.
TEST_P(Gemv, ColumnsDoNotDependOnTheCut) {
  for (const KernelType type : kTypes) {
    std::mt19937 random(3);
    const int64_t n = 23, k = 101;
    const TestWeights w(type, n, k, 0, random);
    Poisoned x(3, k), whole(3, n), parts(3, n);
    x.fill(random);
    multiply(w, x, 0, 3, 0, n, whole.data(), whole.stride());
    for (int64_t j = 0; j < n; j += 5) {
      multiply(w, x, 0, 3, j, std::min<int64_t>(5, n - j), parts.data() + j, parts.stride());
    }
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t j = 0; j < n; ++j) EXPECT_EQ(whole.at(i, j), parts.at(i, j));
    }
  }
}

// The largest integers of either sign against activations of one sign: nothing saturates or wraps.
TEST_P(Gemv, ExtremeIntegersAreExact) {
  for (const int value : {-128, 127}) {
    const int64_t k = 4096;
    std::mt19937 random(1);
    TestWeights w(KernelType::int8, 5, k, 0, random);
    std::fill_n(w.bytes.begin() + 65, 5 * k, std::byte(value));
    for (int64_t j = 0; j < 5; ++j) {
      const float one = 1.0f;
      std::memcpy(w.scale_bytes.data() + 1 + j * 4, &one, 4);
    }
    Poisoned x(2, k), y(2, 5);
    for (int64_t t = 0; t < k; ++t) x.at(0, t) = 1.0f, x.at(1, t) = -2.0f;
    multiply(w, x, 0, 2, 0, 5, y.data(), y.stride());
    for (int64_t j = 0; j < 5; ++j) {
      EXPECT_EQ(y.at(0, j), static_cast<float>(value) * 4096.0f);
      EXPECT_EQ(y.at(1, j), static_cast<float>(value) * -8192.0f);
    }
  }
}

TEST_P(Gemv, SubnormalsCount) {
  for (const KernelType type : kTypes) {
    std::mt19937 random(5);
    const int64_t m = 3, n = 7, k = 301;
    TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k);
    x.fill(random, 0x1p-138f);
    expect_near(w, x, m, n);
    // Weights, or their scales, that large activations bring back.
    x.fill(random, 0x1p80f);
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t t = 0; t < k; t += 1 + j % 3) {
        if (is_integer(type)) {
          w.put_scale(j, t, type == KernelType::int4 ? 0x1p-23f : 0x1.4p-130f);
        } else {
          w.put(j, t, type == KernelType::f16 ? 0x1p-22f : 0x1.4p-130f);
        }
      }
    }
    expect_near(w, x, m, n);
  }
}

TEST_P(Gemv, InfinitiesAndNaNStayInTheirSums) {
  for (const KernelType type : kTypes) {
    std::mt19937 random(6);
    const int64_t m = kSpoiltRows, n = 9, k = 301;
    TestWeights w(type, n, k, 0, random);
    for (const int64_t t : spoilt_columns(k)) w.put(5, t, 0.0f);
    Poisoned x(m, k), before(m, n), y(m, n);
    x.fill(random);
    x.at(0, 33) = x.at(5, 300) = 0.0f;  // to meet infinities of W
    multiply(w, x, 0, m, 0, n, before.data(), before.stride());
    spoil_rows(x, k);
    if (!is_integer(type)) {
      w.put(1, 300, kInfinity), w.put(2, 33, -kInfinity);
      w.put(4, 0, kInfinity), w.put(4, 1, -kInfinity);
      w.put(8, 12, kNaN);
    }
    multiply(w, x, 0, m, 0, n, y.data(), y.stride());
    expect_kinds(y, before, m, n, k,
                 [&](int64_t i, int64_t j, int64_t t) { return double{x.at(i, t)} * w.at(j, t); });
  }
}

// A scale may multiply a sum, which is of one sign or zero where its terms are of both.
TEST_P(Gemv, AScaleThatIsNotFiniteStaysInItsColumn) {
  for (const KernelType type : kTypes) {
    if (!is_integer(type)) continue;
    for (const float scale : {kInfinity, -kInfinity, kNaN}) {
      std::mt19937 random(7);
      const int64_t m = 3, n = 9, k = 301;
      TestWeights w(type, n, k, 0, random);
      Poisoned x(m, k), before(m, n), y(m, n);
      x.fill(random);
      multiply(w, x, 0, m, 0, n, before.data(), before.stride());
      w.put_scale(6, 290, scale);
      multiply(w, x, 0, m, 0, n, y.data(), y.stride());
      expect_not_finite_in(y, before, m, n, 6, scale);
    }
  }
}

}  // namespace
}  // namespace pali
