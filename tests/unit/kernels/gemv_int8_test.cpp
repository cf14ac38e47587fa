// Few rows as integers times int8 weights: the bits of the scalar tier's product of many rows.
// Times int4 weights: the documented integers in f64, and on the scalar tier those bits again.
#include <algorithm>

#include "base/tensor.hpp"
#include "test_weights.hpp"

namespace pali {
namespace {

// A row of x as integers times the scales of their groups, as IntegerKernels says.
struct RoundedRow {
  RoundedRow(const float* x, int64_t k, float integers) {
    for (int64_t first = 0; first < k; first += kIntegerGroup) {
      const int64_t end = std::min(first + kIntegerGroup, k);
      float most = 0;
      for (int64_t t = first; t < end; ++t) most = std::max(most, std::abs(x[t]));
      const bool zero = most < 0x1p-100f;
      for (int64_t t = first; t < end; ++t) {
        const double q = zero ? 0.0 : std::nearbyint(x[t] * (integers / most));
        values.push_back(q * (most / integers));
      }
    }
  }
  std::vector<double> values;
};

class GemvIntegers : public EveryTier {
 protected:
  // take(type of weights), for both kinds of activations.
  template <class Take>
  void for_each(Take&& take) {
    for (const Integers& kind : kIntegers) {
      integers_ = &kind;
      for (const KernelType type : kIntegerWeights) take(type);
    }
  }
  const IntegerKernels& kernels(const KernelTable& of) const { return of.*integers_->kernels; }

  void multiply(const TestWeights& w, const Poisoned& x, int64_t first, int64_t m, int64_t column,
                int64_t n, float* y, int64_t y_stride) const {
    const int64_t stride = gemv_integer_packed_floats(w.depth) + 16;
    ASSERT_EQ(stride % 16, 0);
    AlignedBuffer<std::byte> packed(m * stride * 4 + 64);
    std::fill_n(packed.data(), packed.size(), std::byte{0xff});
    float* rows = reinterpret_cast<float*>(packed.data());
    for (int64_t i = 0; i < m; ++i) {
      kernels(table).gemv.pack(x.row(first + i), w.type, w.depth, rows + i * stride);
    }
    ASSERT_EQ(packed.data()[m * stride * 4], std::byte{0xff});
    kernels(table).gemv.multiply({rows, stride, m, w.data + column * w.stride, w.stride,
                                  w.row_scales(column), w.type, n, w.depth, y, y_stride});
  }

  void check(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n) const {
    const std::string what = std::string(integers_->name) + " type " +
                             std::to_string(static_cast<int>(w.type)) + " " + std::to_string(m) +
                             "x" + std::to_string(n) + "x" + std::to_string(w.depth);
    Poisoned y(m, n);
    multiply(w, x, 0, m, 0, n, y.data(), y.stride());
    ASSERT_TRUE(y.untouched()) << what;
    if (w.type == KernelType::int4) expect_integers(w, x, m, n, y, what);
    if (w.type == KernelType::int8 || GetParam() == Isa::scalar) {
      expect_many_rows_bits(w, x, m, n, y, what);
    }
    // A row's result does not depend on its company.
    for (int64_t i = 0; i < m; ++i) {
      Poisoned alone(1, n);
      multiply(w, x, i, 1, 0, n, alone.data(), alone.stride());
      for (int64_t j = 0; j < n; ++j) ASSERT_EQ(alone.at(0, j), y.at(i, j)) << what << " " << i;
    }
  }

  // The scalar tier's product of many rows.
  Poisoned many_rows(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n) const {
    const KernelTable scalar = kernel_table(Isa::scalar);
    const IntegerKernels& own = kernels(scalar);
    const FusedGemm& gemm = w.type == KernelType::int4 ? own.by_int4 : own.by_int8;
    AlignedBuffer<std::byte> packed(m * gemm.panel_bytes(w.depth));
    EXPECT_EQ(gemm.rows, 1);
    for (int64_t i = 0; i < m; ++i) {
      gemm.pack_activations(x.row(i), x.stride(), 1, 0, w.depth, w.depth,
                            packed.data() + i * gemm.panel_bytes(w.depth));
    }
    AlignedBuffer<std::byte> scratch(gemm.scratch_bytes(m, n, w.depth, kIntegerGroup));
    Poisoned expected(m, n);
    gemm.multiply({.x = packed.data(),
                   .m = m,
                   .w = w.data,
                   .w_stride = w.stride,
                   .scales = w.scales,
                   .type = w.type,
                   .n = n,
                   .k = w.depth,
                   .k_block = kIntegerGroup,
                   .epilogue = {},
                   .y = expected.data(),
                   .y_stride = expected.stride(),
                   .scratch = scratch.data(),
                   .next_w = nullptr});
    return expected;
  }

  void expect_many_rows_bits(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n,
                             const Poisoned& y, const std::string& what) const {
    const Poisoned expected = many_rows(w, x, m, n);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_EQ(std::bit_cast<uint32_t>(y.at(i, j)), std::bit_cast<uint32_t>(expected.at(i, j)))
            << what << " at " << i << "," << j;
      }
    }
  }

  // Integers are exact: a term is rounded with the sums of the eight groups of W in a group of x,
  // with those of the groups of x, and with the at most sixteen lanes' at the end.
  void expect_integers(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n,
                       const Poisoned& y, const std::string& what) const {
    const int64_t groups = (w.depth + kIntegerGroup - 1) / kIntegerGroup;
    for (int64_t i = 0; i < m; ++i) {
      const RoundedRow row(x.row(i), w.depth, integers_->most);
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < w.depth; ++t) {
          const double term = row.values[static_cast<size_t>(t)] * w.at(j, t);
          expected += term, magnitude += std::abs(term);
        }
        ASSERT_NEAR(y.at(i, j), expected,
                    magnitude * static_cast<double>(8 + groups + 4) * kEps + 0x1p-140)
            << what << " at " << i << "," << j;
      }
    }
  }

  void check(KernelType type, int64_t m, int64_t n, int64_t k) const {
    std::mt19937 random(static_cast<unsigned>(m * 7 + n * 11 + k));
    const TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k);
    x.fill(random);
    check(w, x, m, n);
  }

  const Integers* integers_ = nullptr;
};
PALI_EVERY_TIER(GemvIntegers);

TEST_P(GemvIntegers, EveryDepth) {
  for_each([&](KernelType type) {
    for (const int64_t k : lengths()) check(type, 1 + k % 8, 5, k);
  });
}

TEST_P(GemvIntegers, EveryRowAndColumnCount) {
  for_each([&](KernelType type) {
    for (int64_t m = 1; m <= 8; ++m) {
      for (int64_t n = 1; n <= 9; ++n) check(type, m, n, 300);
    }
  });
}

TEST_P(GemvIntegers, RealShapes) {
  for_each([&](KernelType type) {
    check(type, 1, 12, 5120);
    check(type, 4, 6, 2048);
    check(type, 2, 18, 1664);
    for (const int64_t k : kLongLengths) check(type, 3, 5, k);
  });
}

// How the columns are divided among threads must not show.
TEST_P(GemvIntegers, ColumnsDoNotDependOnTheCut) {
  for_each([&](KernelType type) {
    std::mt19937 random(3);
    const int64_t n = 23, k = 301;
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
  });
}

// The largest integers of either sign on both sides: nothing saturates or wraps.
TEST_P(GemvIntegers, ExtremeIntegers) {
  std::mt19937 random(1);
  for_each([&](KernelType type) {
    const int64_t n = 5, k = 2048;
    for (const int byte : {0x80, 0x7f, 0x00, 0xff, 0x0f, 0xf0}) {
      TestWeights w(type, n, k, 0, random);
      w.set_bytes(byte);
      Poisoned x(4, k);
      for (int64_t t = 0; t < k; ++t) {
        x.at(0, t) = 1.0f, x.at(1, t) = -1e30f, x.at(2, t) = t % 2 == 0 ? 1.0f : -1.0f;
        x.at(3, t) = t / 2 % 2 == 0 ? -1.0f : 1.0f;
      }
      check(w, x, 4, n);
    }
  });
}

// Large and small, zero and subnormal groups beside each other; halves that round to even.
TEST_P(GemvIntegers, AnyMagnitude) {
  std::mt19937 random(11);
  for_each([&](KernelType type) {
    const int64_t m = 7, n = 9, k = 700;
    const TestWeights w(type, n, k, 0, random);
    const Poisoned x = any_magnitude(m, k, random);
    check(w, x, m, n);
  });
}

TEST_P(GemvIntegers, InfinitiesAndNaNMakeTheirRowsNaN) {
  for_each([&](KernelType type) {
    std::mt19937 random(5);
    const int64_t m = 5, n = 7, k = 300;
    const TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k), y(m, n);
    x.fill(random);
    x.at(1, 299) = std::nanf("");
    x.at(2, 0) = std::numeric_limits<float>::infinity();
    x.at(4, 130) = -std::numeric_limits<float>::infinity();
    multiply(w, x, 0, m, 0, n, y.data(), y.stride());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_EQ(std::isnan(y.at(i, j)), i == 1 || i == 2 || i == 4) << i << "," << j;
      }
    }
  });
}

TEST_P(GemvIntegers, ExtremeScalesStayInTheirColumns) {
  for_each([&](KernelType type) {
    std::mt19937 random(6);
    const int64_t m = 5, n = 9, k = 300;
    TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k), before(m, n), y(m, n);
    x.fill(random);
    multiply(w, x, 0, m, 0, n, before.data(), before.stride());
    put_extreme_scales(w);
    const Poisoned expected = many_rows(w, x, m, n);
    multiply(w, x, 0, m, 0, n, y.data(), y.stride());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_EQ(std::isfinite(y.at(i, j)), j > 2) << i << "," << j;
        // By int4 a scale multiplies parts of a group's sum, which are of both signs.
        if (type == KernelType::int8) {
          EXPECT_EQ(kind_of(y.at(i, j)), kind_of(expected.at(i, j))) << i << "," << j;
        }
        if (j > 4) {
          EXPECT_EQ(y.at(i, j), before.at(i, j)) << i << "," << j;
        }
      }
    }
  });
}

}  // namespace
}  // namespace pali
