// Packed panels and micro-kernels of both products, every tier against f64.
#include <algorithm>

#include "base/tensor.hpp"
#include "kernel_testing.hpp"

namespace pali {
namespace {

enum class Layout { out_in, in_out, strided };

class Gemm : public EveryTier {
 protected:
  // One panel of n rows by m activations, over kc columns in `blocks` blocks.
  void check(const GemmKernels& kernels, KernelType type, Layout layout, int64_t m, int64_t n,
             int64_t kc, int64_t blocks) {
    std::mt19937 random(static_cast<unsigned>(m * 3 + n * 5 + kc * 7));
    const bool bf16 = kernels.element_bytes == 2;
    const int64_t out_stride = layout == Layout::out_in ? kc + 3 : layout == Layout::in_out ? 1 : 2;
    const int64_t in_stride = layout == Layout::out_in   ? 1
                              : layout == Layout::in_out ? n + 3
                                                         : 2 * n + 1;
    const Weights w(type, n, kc, out_stride, in_stride, random);
    Poisoned x(m, kc), c(m, n);
    x.fill(random);
    const int64_t block = (kc / blocks + kernels.k_step - 1) / kernels.k_step * kernels.k_step;
    const int64_t padded = (kc + kernels.k_step - 1) / kernels.k_step * kernels.k_step;
    AlignedBuffer<float> panel(kernels.nr * (padded + 2));
    // Rows one element apart from any alignment; NaN bits in what kernels may not read.
    const int64_t a_stride = padded + 3;
    std::vector<uint16_t> packed(static_cast<size_t>(m * a_stride), 0xffffu);
    if (bf16) {
      for (int64_t i = 0; i < m; ++i) {
        kernels.pack_activations(x.row(i), kc, packed.data() + i * a_stride);
        if (i * a_stride + padded < static_cast<int64_t>(packed.size())) {
          ASSERT_EQ(packed[static_cast<size_t>(i * a_stride + padded)], 0xffffu);
        }
      }
    }
    const auto run = [&](int64_t first, int64_t rows, Poisoned& out) {
      for (int64_t k = 0; k < kc; k += block) {
        const int64_t depth = std::min(block, kc - k);
        const int64_t panel_size = kernels.nr * ((depth + kernels.k_step - 1) / kernels.k_step) *
                                   kernels.k_step * kernels.element_bytes / 4;
        std::fill_n(panel.data(), panel.size(), std::nanf(""));
        const int64_t bytes = type == KernelType::f32 ? 4 : 2;
        kernels.pack_weights(w.data() + k * in_stride * bytes, type, out_stride, in_stride, n,
                             depth, panel.data());
        ASSERT_TRUE(std::isnan(panel.data()[panel_size]));
        const void* a = bf16 ? static_cast<const void*>(packed.data() + first * a_stride + k)
                             : static_cast<const void*>(x.row(first) + k);
        kernels.multiply(a, bf16 ? a_stride : x.stride(), rows, panel.data(), depth, out.data(),
                         out.stride(), n, /*accumulate=*/k > 0);
      }
    };
    run(0, m, c);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0, magnitude = 0;
        for (int64_t t = 0; t < kc; ++t) {
          const double a = bf16 ? bf16_to_f32(f32_to_bf16(x.at(i, t))) : x.at(i, t);
          const double b = bf16 ? bf16_to_f32(f32_to_bf16(w.at(j, t))) : w.at(j, t);
          expected += a * b, magnitude += std::abs(a * b);
        }
        // One chain along K: a term passes at most kc + blocks roundings, and its own product.
        const double bound = magnitude * static_cast<double>(kc + blocks + 1) * kEps;
        ASSERT_NEAR(c.at(i, j), expected, bound)
            << "m " << m << " n " << n << " kc " << kc << " at " << i << "," << j;
      }
    }
    ASSERT_TRUE(c.untouched());
    // A row's result does not depend on its company.
    Poisoned alone(1, n);
    run(m - 1, 1, alone);
    for (int64_t j = 0; j < n; ++j) ASSERT_EQ(alone.at(0, j), c.at(m - 1, j));
  }

  void check_shapes(const GemmKernels& kernels) {
    for (const Layout layout : {Layout::out_in, Layout::in_out, Layout::strided}) {
      for (const KernelType type : {KernelType::f32, KernelType::bf16, KernelType::f16}) {
        for (const int64_t kc : lengths()) {
          if (kc > 600) continue;
          check(kernels, type, layout, 1 + kc % kernels.mr, 1 + (kc * 5) % kernels.nr, kc,
                1 + kc / 100);
        }
        for (int64_t n = 1; n <= kernels.nr; ++n) {
          check(kernels, type, layout, 1 + n % kernels.mr, n, 19, 2);
        }
      }
    }
    for (int64_t m = 1; m <= kernels.mr; ++m) {
      check(kernels, KernelType::bf16, Layout::out_in, m, kernels.nr, 67, 1);
    }
    check(kernels, KernelType::bf16, Layout::out_in, kernels.mr, kernels.nr, 1664, 4);
  }
};
PALI_EVERY_TIER(Gemm);

TEST_P(Gemm, F32MatchesF64) { check_shapes(table.gemm_f32); }

// The lowest tier that multiplies bf16; IsaTable.HasEveryEntry sees to it.
class GemmBf16 : public Gemm {};
INSTANTIATE_TEST_SUITE_P(, GemmBf16, testing::Values(Isa::avx512_bf16), tier_label);

TEST_P(GemmBf16, MatchesF64) { check_shapes(table.gemm_bf16); }

TEST_P(Gemm, NaNOfOneRowStaysInThatRow) {
  const GemmKernels& kernels = table.gemm_f32;
  std::mt19937 random(1);
  const Weights w(KernelType::f32, kernels.nr, 9, 9, 1, random);
  Poisoned x(kernels.mr, 9), c(kernels.mr, kernels.nr);
  x.fill(random);
  x.at(0, 4) = std::nanf("");
  AlignedBuffer<float> panel(kernels.nr * 9);
  kernels.pack_weights(w.data(), KernelType::f32, 9, 1, kernels.nr, 9, panel.data());
  kernels.multiply(x.data(), x.stride(), kernels.mr, panel.data(), 9, c.data(), c.stride(),
                   kernels.nr, /*accumulate=*/false);
  for (int64_t j = 0; j < kernels.nr; ++j) {
    EXPECT_TRUE(std::isnan(c.at(0, j)));
    EXPECT_TRUE(std::isfinite(c.at(kernels.mr - 1, j)));
  }
}

}  // namespace
}  // namespace pali
