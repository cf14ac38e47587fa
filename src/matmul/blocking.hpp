// How a native product is cut, from the whole shape alone (never from the number of threads).
#pragma once

#include <algorithm>
#include <cstdint>

#include "exec/grain.hpp"
#include "kernels/kernel_table.hpp"
#include "matmul/backends.hpp"

namespace pali {

// Up to so many rows of x, weights are streamed in place; beyond, packing panels pays.
inline constexpr int64_t kGemvRows = 8;

struct GemmBlocking {
  int64_t mc = 0;      // rows of x in a tile, a multiple of mr
  int64_t panels = 0;  // of nr columns of y in a tile, at most
  int64_t kc = 0;      // columns of x packed at a time, a multiple of k_step and of 32

  int64_t panel_bytes(const GemmKernels& gemm) const { return gemm.nr * kc * gemm.element_bytes; }
};

// Equal parts, of K and of x's rows: a short one spends its time on sums coming and going, or on
// packing. kc follows from K and the tier alone: sums are added up in its steps. Panels take up to
// half of L2, and so do the sums of a tile.
inline GemmBlocking gemm_blocking(int64_t m, int64_t n, int64_t k, const GemmKernels& gemm,
                                  int64_t l2_bytes) {
  GemmBlocking blocking;
  blocking.kc = round_up(ceil_div(k, ceil_div(k, gemm.k_most)), 32);
  blocking.mc = round_up(ceil_div(m, ceil_div(m, 576)), gemm.mr);
  const int64_t panel_sums = blocking.mc * gemm.nr * int64_t{sizeof(float)};
  const int64_t room = l2_bytes / 2 / std::max(blocking.panel_bytes(gemm), panel_sums);
  blocking.panels = std::clamp<int64_t>(room, 1, ceil_div(n, gemm.nr));
  return blocking;
}

struct FusedBlocking {
  int64_t mc = 0;  // rows of x packed at a time, a multiple of FusedGemm::rows
  int64_t kc = 0;  // columns of x summed up at a time, a multiple of FusedGemm::k_step
};

// x packed for one part of K takes the most of L2, whose rest streams W; but no less than is worth
// packing W once more for, from L3 where L2 is small (Zen 3: a half and a quarter of it were no
// faster). Equal parts of K of at most 4 KB: shorter ones spend their time on sums coming and
// going.
inline FusedBlocking fused_blocking(int64_t m, int64_t k, const FusedGemm& gemm, int64_t l2_bytes) {
  FusedBlocking blocking;
  const int64_t k_parts = ceil_div(k * gemm.element_bytes, 4096);
  blocking.kc = round_up(ceil_div(k, k_parts), gemm.k_step);
  const int64_t room = std::max(l2_bytes / 8 * 5, int64_t{5} << 18);
  const int64_t most = std::max(room / (blocking.kc * gemm.element_bytes), gemm.rows);
  blocking.mc = round_up(ceil_div(m, ceil_div(m, most)), gemm.rows);
  return blocking;
}

// Rows of W in the smallest piece of a gemv: about 64 KB, some microseconds' reading: what a thread
// may have to wait for another at the end of a loop.
inline int64_t gemv_block(int64_t row_bytes) {
  return std::clamp<int64_t>(round_up(ceil_div(int64_t{64} << 10, row_bytes), 16), 16, 1024);
}

// Stride of scratch rows of `cols` elements: whole cache lines, and never a power of two of them,
// since rows a page apart share the same few lines of L1.
inline int64_t padded_stride(int64_t cols, int64_t element_bytes) {
  const int64_t line = 64 / element_bytes;
  const int64_t stride = round_up(cols, line);
  return stride * element_bytes % 1024 == 0 ? stride + line : stride;
}

}  // namespace pali
