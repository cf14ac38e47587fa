// Few rows times a weight matrix in file layout, every tier against f64.
#include "kernel_testing.hpp"

namespace pali {
namespace {

class Gemv : public EveryTier {
 protected:
  // Runs m rows and checks every value: lane sums' bound on the sum of the terms' magnitudes.
  void check(KernelType type, int64_t m, int64_t n, int64_t k) {
    std::mt19937 random(static_cast<unsigned>(m * 7 + n * 11 + k));
    const Weights w(type, n, k, k + 5, 1, random);
    Poisoned x(m, k), y(m, n);
    x.fill(random);
    table.gemv(
        {x.data(), x.stride(), m, w.data(), w.out_stride(), type, n, k, y.data(), y.stride()});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < k; ++t) {
          const double term = double{x.at(i, t)} * w.at(j, t);
          expected += term, magnitude += std::abs(term);
        }
        ASSERT_NEAR(y.at(i, j), expected, magnitude * lane_sum_error(k))
            << "m " << m << " n " << n << " k " << k << " at " << i << "," << j;
      }
    }
    ASSERT_TRUE(y.untouched());
    // A row's result does not depend on its company.
    for (int64_t i = 0; i < m; ++i) {
      Poisoned alone(1, n);
      table.gemv({x.row(i), x.stride(), 1, w.data(), w.out_stride(), type, n, k, alone.data(),
                  alone.stride()});
      for (int64_t j = 0; j < n; ++j) ASSERT_EQ(alone.at(0, j), y.at(i, j)) << i << "," << j;
    }
  }
};
PALI_EVERY_TIER(Gemv);

TEST_P(Gemv, MatchesF64AtEveryDepth) {
  for (const KernelType type : {KernelType::f32, KernelType::bf16, KernelType::f16}) {
    for (const int64_t k : lengths()) check(type, 1 + k % 8, 5, k);
  }
}

TEST_P(Gemv, MatchesF64AtEveryRowAndColumnCount) {
  for (const KernelType type : {KernelType::f32, KernelType::bf16, KernelType::f16}) {
    for (int64_t m = 1; m <= 8; ++m) {
      for (int64_t n = 1; n <= 9; ++n) check(type, m, n, 37);
    }
  }
}

TEST_P(Gemv, MatchesF64AtARealShape) {
  check(KernelType::bf16, 1, 12, 5120);
  check(KernelType::bf16, 4, 6, 2048);
}

// How the columns are divided among threads must not show.
TEST_P(Gemv, ColumnsDoNotDependOnTheCut) {
  std::mt19937 random(3);
  const int64_t n = 23, k = 101;
  const Weights w(KernelType::bf16, n, k, k, 1, random);
  Poisoned x(3, k), whole(3, n), parts(3, n);
  x.fill(random);
  table.gemv(
      {x.data(), x.stride(), 3, w.data(), k, KernelType::bf16, n, k, whole.data(), whole.stride()});
  for (int64_t j = 0; j < n; j += 5) {
    table.gemv({x.data(), x.stride(), 3, w.data() + 2 * j * k, k, KernelType::bf16,
                std::min<int64_t>(5, n - j), k, parts.data() + j, parts.stride()});
  }
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < n; ++j) EXPECT_EQ(whole.at(i, j), parts.at(i, j));
  }
}

}  // namespace
}  // namespace pali
