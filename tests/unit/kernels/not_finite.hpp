// Infinities and NaN among the operands of a product: what comes of them is what comes of them in
// f64, and the sums that do not meet them have the bits that they have without.
#pragma once

#include <array>

#include "kernel_testing.hpp"

namespace pali {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// What takes the place of a value that no tolerance goes with.
inline std::string kind_of(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return "finite";
}

// Rows of x, of at least kSpoiltRows: 1 and 2 meet an infinity of either sign, 3 two of them, whose
// terms have one sign or two, 4 a NaN; 0 and 5 meet none.
inline constexpr int64_t kSpoiltRows = 6;
inline void spoil_rows(Poisoned& x, int64_t k) {
  x.at(1, k - 1) = kInfinity;
  x.at(2, 0) = -kInfinity;
  x.at(3, k / 2) = kInfinity, x.at(3, k / 3) = kInfinity;
  x.at(4, k / 2) = kNaN;
}

// Where a weight of zero meets each of those infinities.
inline std::array<int64_t, 3> spoilt_columns(int64_t k) { return {k - 1, 0, k / 2}; }

// y[i][j] has the kind of the sum of term(i, j, t) over t in f64; the finite ones are `before`'s.
template <class Term>
void expect_kinds(const Poisoned& y, const Poisoned& before, int64_t m, int64_t n, int64_t k,
                  const Term& term) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < k; ++t) sum += term(i, j, t);
      ASSERT_EQ(kind_of(y.at(i, j)), kind_of(sum)) << i << "," << j;
      if (std::isfinite(sum)) {
        ASSERT_EQ(y.at(i, j), before.at(i, j)) << i << "," << j;
      }
    }
  }
  ASSERT_TRUE(y.untouched());
}

// Column `bad` was multiplied by `factor`, which is not finite: nor are the column's values, and
// they are NaN where it is; an infinity may meet sums of zero. Other columns are `before`'s.
inline void expect_not_finite_in(const Poisoned& y, const Poisoned& before, int64_t m, int64_t n,
                                 int64_t bad, float factor) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      if (j == bad) {
        EXPECT_FALSE(std::isfinite(y.at(i, j))) << i;
        EXPECT_TRUE(std::isnan(y.at(i, j)) || !std::isnan(factor)) << i;
      } else {
        EXPECT_EQ(y.at(i, j), before.at(i, j)) << i << "," << j;
      }
    }
  }
}

}  // namespace pali
