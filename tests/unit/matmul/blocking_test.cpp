// How products are cut: the order of sums from K alone, room from the cache.
#include "matmul/blocking.hpp"

#include <gtest/gtest.h>

namespace pali {
namespace {

GemmKernels kernels(int mr, int nr, int element_bytes, int64_t k_most) {
  GemmKernels gemm{};
  gemm.mr = mr, gemm.nr = nr, gemm.k_step = 1;
  gemm.element_bytes = element_bytes, gemm.k_most = k_most;
  return gemm;
}

TEST(Blocking, FillsHalfOfTheCacheAtMost) {
  for (const GemmKernels& gemm : {kernels(6, 16, 4, 2048), kernels(12, 32, 2, 2048)}) {
    for (const int64_t l2 : {int64_t{256} << 10, int64_t{512} << 10, int64_t{2} << 20}) {
      for (const int64_t m : {9, 64, 256, 577, 3364}) {
        for (const int64_t k : {1, 33, 256, 1664, 8192}) {
          for (const int64_t n : {1, 40, 8192}) {
            const GemmBlocking blocking = gemm_blocking(m, n, k, gemm, l2);
            EXPECT_EQ(blocking.kc, gemm_blocking(1, 1, k, gemm, 0).kc);
            EXPECT_EQ(blocking.kc % 32, 0);
            EXPECT_LE(blocking.kc, round_up(gemm.k_most, 32));
            EXPECT_EQ(blocking.mc % gemm.mr, 0);
            ASSERT_GE(blocking.panels, 1);
            EXPECT_LE(blocking.panels, ceil_div(n, gemm.nr));
            if (blocking.panels == 1) continue;
            EXPECT_LE(blocking.panels * blocking.panel_bytes(gemm), l2 / 2);
            EXPECT_LE(blocking.panels * blocking.mc * gemm.nr * 4, l2 / 2);
          }
        }
      }
    }
  }
}

TEST(Blocking, FusedPartsGrowWithTheCacheAndNeverShrinkBelowWhatPays) {
  FusedGemm gemm{};
  gemm.rows = 32, gemm.k_step = 64, gemm.element_bytes = 2;
  const FusedBlocking small = fused_blocking(4096, 8192, gemm, int64_t{512} << 10);
  const FusedBlocking large = fused_blocking(4096, 8192, gemm, int64_t{3} << 20);
  EXPECT_EQ(small.kc, large.kc);
  EXPECT_GT(large.mc, small.mc);
  EXPECT_GE(small.mc * small.kc * gemm.element_bytes, int64_t{1} << 20);
  EXPECT_LE(large.mc * large.kc * gemm.element_bytes, int64_t{2} << 20);
}

}  // namespace
}  // namespace pali
