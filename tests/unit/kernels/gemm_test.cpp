// Packed panels and micro-kernels of both products, every tier against f64.
#include <algorithm>

#include "base/tensor.hpp"
#include "not_finite.hpp"

namespace pali {
namespace {

enum class Layout { out_in, in_out, strided };
constexpr Layout kLayouts[] = {Layout::out_in, Layout::in_out, Layout::strided};
constexpr KernelType kTypes[] = {KernelType::f32, KernelType::bf16, KernelType::f16};

// One panel of n rows, over kc columns in `blocks` blocks.
struct Shape {
  int64_t m, n, kc, blocks;
};

class Gemm : public EveryTier {
 protected:
  static Weights weights(KernelType type, Layout layout, const Shape& s, std::mt19937& random) {
    const int64_t out_stride = layout == Layout::out_in   ? s.kc + 3
                               : layout == Layout::in_out ? 1
                                                          : 2;
    const int64_t in_stride = layout == Layout::out_in   ? 1
                              : layout == Layout::in_out ? s.n + 3
                                                         : 2 * s.n + 1;
    return Weights(type, s.n, s.kc, out_stride, in_stride, random);
  }

  // What a product of these kernels takes a value for: bf16 rounds, and has no subnormals.
  static double operand(const GemmKernels& kernels, float value) {
    if (kernels.element_bytes == 4) return value;
    return std::abs(value) < 0x1p-126f ? 0.0 : double{bf16_to_f32(f32_to_bf16(value))};
  }

  // Rows of x from `first` on, as many as out is given.
  void multiply(const GemmKernels& kernels, const Weights& w, const Poisoned& x, int64_t first,
                const Shape& s, Poisoned& out) const {
    const bool bf16 = kernels.element_bytes == 2;
    const auto whole_steps = [&](int64_t k) {
      return (k + kernels.k_step - 1) / kernels.k_step * kernels.k_step;
    };
    const int64_t block = whole_steps(s.kc / s.blocks), padded = whole_steps(s.kc);
    AlignedBuffer<float> panel(kernels.nr * (padded + 2));
    // Rows one element apart from any alignment; NaN bits in what kernels may not read.
    const int64_t a_stride = padded + 3;
    std::vector<uint16_t> packed(static_cast<size_t>(s.m * a_stride), 0xffffu);
    for (int64_t i = 0; bf16 && i < s.m; ++i) {
      kernels.pack_activations(x.row(first + i), s.kc, packed.data() + i * a_stride);
      ASSERT_EQ(packed[static_cast<size_t>(i * a_stride + padded)], 0xffffu);
    }
    for (int64_t k = 0; k < s.kc; k += block) {
      const int64_t depth = std::min(block, s.kc - k);
      const int64_t panel_size = kernels.nr * whole_steps(depth) * kernels.element_bytes / 4;
      std::fill_n(panel.data(), panel.size(), std::nanf(""));
      const int64_t bytes = w.type() == KernelType::f32 ? 4 : 2;
      kernels.pack_weights(w.data() + k * w.in_stride() * bytes, w.type(), w.out_stride(),
                           w.in_stride(), s.n, depth, panel.data());
      ASSERT_TRUE(std::isnan(panel.data()[panel_size]));
      for (int64_t i = 0; i < s.m; i += kernels.mr) {
        const void* a = bf16 ? static_cast<const void*>(packed.data() + i * a_stride + k)
                             : static_cast<const void*>(x.row(first + i) + k);
        kernels.multiply({.a = a,
                          .a_stride = bf16 ? a_stride : x.stride(),
                          .m = std::min<int64_t>(kernels.mr, s.m - i),
                          .panel = panel.data(),
                          .kc = depth,
                          .c = out.row(i),
                          .c_stride = out.stride(),
                          .n = s.n,
                          .accumulate = k > 0,
                          .ahead = {}});
      }
    }
  }

  // The product against f64; `unit`: what a step may be off by beside its roundings.
  void expect_near(const GemmKernels& kernels, const Weights& w, const Poisoned& x, const Shape& s,
                   double unit = 0) {
    Poisoned c(s.m, s.n);
    multiply(kernels, w, x, 0, s, c);
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < s.kc; ++t) {
          const double term = operand(kernels, x.at(i, t)) * operand(kernels, w.at(j, t));
          expected += term, magnitude += std::abs(term);
        }
        // One chain along K: a term passes at most kc + blocks roundings, and its own product.
        const auto steps = static_cast<double>(s.kc + s.blocks + 1);
        ASSERT_NEAR(c.at(i, j), expected, steps * (magnitude * kEps + unit))
            << "m " << s.m << " n " << s.n << " kc " << s.kc << " at " << i << "," << j;
      }
    }
    ASSERT_TRUE(c.untouched());
    // A row's result does not depend on its company.
    Poisoned alone(1, s.n);
    multiply(kernels, w, x, s.m - 1, {1, s.n, s.kc, s.blocks}, alone);
    for (int64_t j = 0; j < s.n; ++j) ASSERT_EQ(alone.at(0, j), c.at(s.m - 1, j));
  }

  void check(const GemmKernels& kernels, KernelType type, Layout layout, const Shape& s) {
    std::mt19937 random(static_cast<unsigned>(s.m * 3 + s.n * 5 + s.kc * 7));
    const Weights w = weights(type, layout, s, random);
    Poisoned x(s.m, s.kc);
    x.fill(random);
    expect_near(kernels, w, x, s);
  }

  void check_shapes(const GemmKernels& kernels) {
    for (const Layout layout : kLayouts) {
      for (const KernelType type : kTypes) {
        for (const int64_t kc : lengths()) {
          if (kc > 600) continue;
          check(kernels, type, layout,
                {1 + kc % kernels.mr, 1 + (kc * 5) % kernels.nr, kc, 1 + kc / 100});
        }
        for (int64_t n = 1; n <= kernels.nr; ++n) {
          check(kernels, type, layout, {1 + n % kernels.mr, n, 19, 2});
        }
      }
    }
    for (int64_t m = 1; m <= kernels.mr; ++m) {
      check(kernels, KernelType::bf16, Layout::out_in, {m, kernels.nr, 67, 1});
    }
    check(kernels, KernelType::bf16, Layout::out_in, {kernels.mr, kernels.nr, 1664, 4});
  }

  // Whole, and in blocks as the product of matrices cuts them.
  void check_long(const GemmKernels& kernels) {
    for (const int64_t kc : kLongLengths) {
      for (const KernelType type : kTypes) {
        check(kernels, type, Layout::out_in, {2, 5, kc, 1});
        check(kernels, type, Layout::in_out, {1, 3, kc, 1 + kc / kernels.k_most});
      }
    }
  }

  void check_subnormal(const GemmKernels& kernels) {
    const bool bf16 = kernels.element_bytes == 2;
    const Shape s{3, kernels.nr - 1, 71, 2};
    for (const Layout layout : kLayouts) {
      for (const KernelType type : kTypes) {
        std::mt19937 random(17);
        Weights w = weights(type, layout, s, random);
        Poisoned x(s.m, s.kc);
        // Sums of subnormals, and of what rounds to them: off by half a unit of the smallest a
        // term, or in bf16 by all of what is subnormal.
        x.fill(random, 0x1p-138f);
        expect_near(kernels, w, x, s, bf16 ? 0x1p-126 : 0x1p-150);
        // Subnormals on either side that large values bring back.
        x.fill(random, 0x1p80f);
        for (int64_t i = 0; i < s.m; ++i) x.at(i, 9) = x.at(i, 70) = 0x1p-141f;
        for (int64_t j = 0; j < s.n; ++j) {
          for (int64_t t = 0; t < s.kc; t += 1 + j % 3) {
            w.put(j, t, type == KernelType::f16 ? 0x1p-22f : 0x1.4p-130f);
          }
        }
        expect_near(kernels, w, x, s, bf16 ? 0x1p-126 : 0x1p-150);
      }
    }
  }

  void check_not_finite(const GemmKernels& kernels) {
    const Shape s{kSpoiltRows, kernels.nr, 71, 2};
    for (const Layout layout : kLayouts) {
      for (const KernelType type : kTypes) {
        std::mt19937 random(23);
        Weights w = weights(type, layout, s, random);
        for (const int64_t t : spoilt_columns(s.kc)) w.put(5, t, 0.0f);
        Poisoned x(s.m, s.kc), before(s.m, s.n), c(s.m, s.n);
        x.fill(random);
        x.at(0, 33) = x.at(5, 70) = 0.0f;  // to meet infinities of W
        multiply(kernels, w, x, 0, s, before);
        spoil_rows(x, s.kc);
        w.put(1, 70, kInfinity), w.put(2, 33, -kInfinity);
        w.put(4, 0, kInfinity), w.put(4, 1, -kInfinity);
        w.put(6, 12, kNaN);
        multiply(kernels, w, x, 0, s, c);
        expect_kinds(c, before, s.m, s.n, s.kc, [&](int64_t i, int64_t j, int64_t t) {
          return operand(kernels, x.at(i, t)) * operand(kernels, w.at(j, t));
        });
      }
    }
  }
};
PALI_EVERY_TIER(Gemm);

// The lowest tier that multiplies bf16; IsaTable.HasEveryEntry sees to it.
class GemmBf16 : public Gemm {};
INSTANTIATE_TEST_SUITE_P(, GemmBf16, testing::Values(Isa::avx512_bf16), tier_label);

TEST_P(Gemm, F32MatchesF64) { check_shapes(table.gemm_f32); }
TEST_P(GemmBf16, MatchesF64) { check_shapes(table.gemm_bf16); }

TEST_P(Gemm, DepthsOfRealLayers) { check_long(table.gemm_f32); }
TEST_P(GemmBf16, DepthsOfRealLayers) { check_long(table.gemm_bf16); }

TEST_P(Gemm, SubnormalsCount) { check_subnormal(table.gemm_f32); }
TEST_P(GemmBf16, SubnormalsAreZero) { check_subnormal(table.gemm_bf16); }

TEST_P(Gemm, InfinitiesAndNaNStayInTheirSums) { check_not_finite(table.gemm_f32); }
TEST_P(GemmBf16, InfinitiesAndNaNStayInTheirSums) { check_not_finite(table.gemm_bf16); }

}  // namespace
}  // namespace pali
