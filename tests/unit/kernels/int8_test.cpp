// Products of int8 and int16 by int8 and int4: the scalar tier against f64, every other tier
// against the scalar one bit for bit; the same bits however the work is cut, nothing written or
// read where it may not.
#include <algorithm>

#include "base/tensor.hpp"
#include "test_weights.hpp"

namespace pali {
namespace {

const FusedGemm& gemm_of(const KernelTable& table, const Integers& kind, KernelType type) {
  const IntegerKernels& kernels = table.*kind.kernels;
  return type == KernelType::int4 ? kernels.by_int4 : kernels.by_int8;
}

// Rows [m0, m1) of x times rows [n0, n1) of W.
struct Part {
  int64_t m0, m1, n0, n1;
};

void run(const KernelTable& table, const Integers& kind, const TestWeights& w, const Poisoned& x,
         Poisoned& y, int64_t k_block, const Part& part, const KernelEpilogue& epilogue = {}) {
  const FusedGemm& gemm = gemm_of(table, kind, w.type);
  const int64_t k = w.depth;
  const int64_t m = part.m1 - part.m0, n = part.n1 - part.n0;
  const int64_t panels = (m + gemm.rows - 1) / gemm.rows;
  ASSERT_EQ(gemm.panel_bytes(k) % 64, 0);
  AlignedBuffer<std::byte> packed(panels * gemm.panel_bytes(k) + 64);
  std::fill_n(packed.data(), packed.size(), std::byte{0xff});
  for (int64_t p = 0; p < panels; ++p) {
    gemm.pack_activations(x.row(part.m0 + p * gemm.rows), x.stride(),
                          std::min(gemm.rows, m - p * gemm.rows), 0, k, k,
                          packed.data() + p * gemm.panel_bytes(k));
  }
  ASSERT_EQ(packed.data()[packed.size() - 64], std::byte{0xff});
  const int64_t bytes = gemm.scratch_bytes(m, n, k, k_block);
  AlignedBuffer<std::byte> scratch(bytes + 64);
  std::fill_n(scratch.data(), scratch.size(), std::byte{0xff});
  gemm.multiply({.x = packed.data(),
                 .m = m,
                 .w = w.data + part.n0 * w.stride,
                 .w_stride = w.stride,
                 .scales = w.row_scales(part.n0),
                 .type = w.type,
                 .n = n,
                 .k = k,
                 .k_block = k_block,
                 .epilogue = epilogue,
                 .y = y.row(part.m0) + part.n0,
                 .y_stride = y.stride(),
                 .scratch = scratch.data(),
                 .next_w = w.data + part.n0 * w.stride});
  ASSERT_EQ(scratch.data()[bytes], std::byte{0xff});
}

void expect_same(const Poisoned& a, const Poisoned& b, int64_t m, int64_t n,
                 const std::string& what) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      ASSERT_EQ(std::bit_cast<uint32_t>(a.at(i, j)), std::bit_cast<uint32_t>(b.at(i, j)))
          << what << " at " << i << "," << j << ": " << a.at(i, j) << ", " << b.at(i, j);
    }
  }
}

class Products : public EveryTier {
 protected:
  // take(type of weights), for all activations and weights that this tier has a kernel for.
  template <class Take>
  void for_each(Take&& take) {
    for (const Integers& kind : kIntegers) {
      integers_ = &kind;
      for (const KernelType type : kIntegerWeights) {
        if (gemm_of(table, kind, type).multiply != nullptr) take(type);
      }
    }
  }
  // The scalar tier's product at once, and this one's whole and in pieces.
  void check(const TestWeights& w, const Poisoned& x, int64_t m, int64_t n, int64_t k_block) const {
    const std::string what = std::string(integers_->name) + " type " +
                             std::to_string(static_cast<int>(w.type)) + " " + std::to_string(m) +
                             "x" + std::to_string(n) + "x" + std::to_string(w.depth);
    Poisoned expected(m, n), y(m, n), again(m, n);
    run(kernel_table(Isa::scalar), *integers_, w, x, expected, kIntegerGroup * 1000, {0, m, 0, n});
    run(table, *integers_, w, x, y, k_block, {0, m, 0, n});
    expect_same(y, expected, m, n, what);
    ASSERT_TRUE(y.untouched()) << what;
    const int64_t mc = m > 1 ? m / 2 : m,
                  nc = std::min(n, gemm_of(table, *integers_, w.type).w_rows);
    for (int64_t i = 0; i < m; i += mc) {
      for (int64_t j = 0; j < n; j += nc) {
        run(table, *integers_, w, x, again, k_block,
            {i, std::min(i + mc, m), j, std::min(j + nc, n)});
      }
    }
    expect_same(again, y, m, n, what + " in pieces");
  }
  void check(int64_t m, int64_t n, int64_t k, int64_t k_block = 256) {
    for_each([&](KernelType type) {
      std::mt19937 random(static_cast<unsigned>(m * 3 + n * 5 + k * 7));
      const TestWeights w(type, n, k, k % 3, random);
      Poisoned x(m, k);
      x.fill(random);
      check(w, x, m, n, k_block);
    });
  }

  const Integers* integers_ = nullptr;
};
PALI_EVERY_TIER(Products);

TEST_P(Products, MeetsTheScalarTier) {
  for (const int64_t k : lengths()) check(1 + k % 37, 1 + (k * 5) % 41, k);
  for (int64_t n = 1; n <= 130; n += n < 31 ? 1 : 7) check(1 + n % 5, n, 40);
  for (int64_t m = 1; m <= 65; ++m) check(m, 1 + m % 3, 70);
  check(9, 150, 700, 4096);
}

TEST_P(Products, ShapesOfRealLayersScaled) {
  check(70, 130, 1152, 1152);
  check(33, 65, 2100, 1280);
  check(40, 40, 2048, 1024);
  for (const int64_t k : kLongLengths) check(3, 9, k, 2048);
}

// A panel's columns may come in several calls: zeros behind the last one, whatever was there.
TEST_P(Products, PacksColumnsInParts) {
  std::mt19937 random(21);
  for_each([&](KernelType type) {
    const FusedGemm& gemm = gemm_of(table, *integers_, type);
    for (const int64_t k : {70, 256, 600, 1100}) {
      const int64_t m = std::min<int64_t>(gemm.rows, 19);
      Poisoned x(m, k);
      x.fill(random);
      const size_t bytes = static_cast<size_t>(gemm.panel_bytes(k));
      AlignedBuffer<std::byte> whole(gemm.panel_bytes(k)), parts(gemm.panel_bytes(k));
      std::fill_n(whole.data(), bytes, std::byte{0x5a});
      std::fill_n(parts.data(), bytes, std::byte{0x5a});
      gemm.pack_activations(x.row(0), x.stride(), m, 0, k, k, whole.data());
      for (int64_t first = 0; first < k; first += 2 * kIntegerGroup) {
        gemm.pack_activations(x.row(0) + first, x.stride(), m, first,
                              std::min(2 * kIntegerGroup, k - first), k, parts.data());
      }
      EXPECT_EQ(std::memcmp(whole.data(), parts.data(), bytes), 0) << k;
    }
  });
}

// Against f64: the integers as they are documented; roundings of a term: with the sums of the eight
// groups of int4 weights in a group of x, with those of the groups of x, and of scales.
TEST(ProductsOracle, IsTheDocumentedRounding) {
  const KernelTable table = kernel_table(Isa::scalar);
  for (const Integers& kind : kIntegers) {
    for (const KernelType type : kIntegerWeights) {
      for (const int64_t k : {1, 7, 31, 33, 255, 256, 257, 900}) {
        std::mt19937 random(static_cast<unsigned>(k));
        const int64_t m = 5, n = 7;
        const TestWeights w(type, n, k, 0, random);
        Poisoned x(m, k), y(m, n);
        x.fill(random);
        run(table, kind, w, x, y, 1 << 20, {0, m, 0, n});
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            double expected = 0, exact = 0, step = 0, magnitude = 0;
            for (int64_t first = 0; first < k; first += kIntegerGroup) {
              const int64_t end = std::min(first + kIntegerGroup, k);
              double most = 0;
              for (int64_t t = first; t < end; ++t)
                most = std::max(most, std::abs(double{x.at(i, t)}));
              for (int64_t t = first; t < end; ++t) {
                const double weight = w.at(j, t);
                const double q =
                    std::nearbyint(x.at(i, t) * (kind.most / static_cast<float>(most)));
                expected += q * most / kind.most * weight;
                exact += x.at(i, t) * weight;
                magnitude += std::abs(q * most / kind.most * weight);
                step += most / (2 * kind.most) * std::abs(weight);
              }
            }
            const double groups = static_cast<double>((k + kIntegerGroup - 1) / kIntegerGroup);
            const double sums = groups + (type == KernelType::int4 ? 8 : 0);
            EXPECT_NEAR(y.at(i, j), expected, (sums + 4) * kEps * magnitude) << k;
            EXPECT_NEAR(y.at(i, j), exact, step * 1.0001 + (sums + 4) * kEps * magnitude) << k;
          }
        }
      }
    }
  }
}

// The largest integers of either sign on both sides: nothing saturates or wraps.
TEST_P(Products, ExtremeWeightsAndActivations) {
  std::mt19937 random(9);
  const int64_t m = 34, n = 70, k = 300;
  for_each([&](KernelType type) {
    for (const int byte : {0x80, 0x7f, 0x00, 0xff, 0x0f, 0xf0}) {
      TestWeights w(type, n, k, 0, random);
      w.set_bytes(byte);
      for (const float value : {-1.0f, 1.0f, 3e38f, -3e38f}) {
        Poisoned x(m, k);
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t t = 0; t < k; ++t) x.at(i, t) = value;
        }
        for (int64_t t = 0; t < k; ++t) {  // signs that add up in one half of a dword, or in none
          if (t % 2 == 0) x.at(1, t) = -value;
          if (t / 2 % 2 == 0) x.at(2, t) = -value;
        }
        check(w, x, m, n, 256);
      }
    }
  });
}

// Large and small, zero and subnormal groups beside each other; halves that round to even.
TEST_P(Products, AnyMagnitude) {
  std::mt19937 random(11);
  const int64_t m = 35, n = 33, k = 700;
  for_each([&](KernelType type) {
    const TestWeights w(type, n, k, 0, random);
    const Poisoned x = any_magnitude(m, k, random);
    check(w, x, m, n, 256);
  });
}

TEST_P(Products, InfinitiesAndNaNMakeTheirRowsNaN) {
  std::mt19937 random(5);
  const int64_t m = 40, n = 40, k = 300;
  for_each([&](KernelType type) {
    const TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k), y(m, n);
    x.fill(random);
    x.at(3, 299) = std::nanf("");
    x.at(17, 0) = std::numeric_limits<float>::infinity();
    x.at(34, 130) = -std::numeric_limits<float>::infinity();
    run(table, *integers_, w, x, y, 256, {0, m, 0, n});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_EQ(std::isnan(y.at(i, j)), i == 3 || i == 17 || i == 34) << i << "," << j;
      }
    }
  });
}

TEST_P(Products, ExtremeScalesStayInTheirColumns) {
  const int64_t m = 35, n = 40, k = 300;
  for_each([&](KernelType type) {
    std::mt19937 random(6);
    TestWeights w(type, n, k, 0, random);
    put_extreme_scales(w);
    Poisoned x(m, k), expected(m, n), y(m, n);
    x.fill(random);
    run(kernel_table(Isa::scalar), *integers_, w, x, expected, 256, {0, m, 0, n});
    run(table, *integers_, w, x, y, 256, {0, m, 0, n});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        ASSERT_EQ(std::isfinite(y.at(i, j)), j > 2) << i << "," << j;
        ASSERT_EQ(kind_of(y.at(i, j)), kind_of(expected.at(i, j))) << i << "," << j;
        if (j > 2) {
          ASSERT_EQ(y.at(i, j), expected.at(i, j)) << i << "," << j;
        }
      }
    }
  });
}

TEST_P(Products, EpilogueIsTheRowKernels) {
  const int64_t m = 45, n = 77, k = 33;
  for_each([&](KernelType type) {
    std::mt19937 random(3);
    const TestWeights w(type, n, k, 0, random);
    Poisoned x(m, k);
    x.fill(random);
    expect_row_epilogue(table, m, n, random, [&](Poisoned& y, const KernelEpilogue& epilogue) {
      run(table, *integers_, w, x, y, 256, {0, m, 0, n}, epilogue);
    });
  });
}

}  // namespace
}  // namespace pali
