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
  int64_t mc = 0;  // rows of x in a tile
  int64_t nc = 0;  // columns of y in a tile, a multiple of nr
  int64_t kc = 0;  // columns of x packed at a time, a multiple of k_step
};

// Panels of a tile stay in L2 beside the rows of x that pass over them: L2 is 1 MB on Zen 4 and 5,
// 1.25 to 2 MB on Intel's servers.
inline constexpr int64_t kPanelBytes = int64_t{512} << 10;
// Tiles that a product should have at least, so that a few threads end together.
inline constexpr int64_t kTilesWanted = 24;

inline GemmBlocking gemm_blocking(int64_t m, int64_t n, int64_t k, const GemmKernels& gemm) {
  GemmBlocking blocking;
  // Equal parts of at most 1024 f32 or 2048 bf16: shorter ones spend their time on loading and
  // storing c.
  const int64_t k_parts = ceil_div(k * gemm.element_bytes, 4096);
  blocking.kc = round_up(ceil_div(k, k_parts), gemm.k_step);
  // The tile of c (f32) shares L2 with the panels; equal parts again.
  blocking.mc = ceil_div(m, ceil_div(m, 576));
  blocking.mc = round_up(blocking.mc, gemm.mr);
  const int64_t panel = gemm.nr * blocking.kc * gemm.element_bytes;
  const int64_t m_blocks = ceil_div(m, blocking.mc);
  int64_t panels = std::max<int64_t>(1, kPanelBytes / panel);
  while (panels > 1 && m_blocks * ceil_div(n, panels * gemm.nr) < kTilesWanted) --panels;
  blocking.nc = panels * gemm.nr;
  return blocking;
}

struct FusedBlocking {
  int64_t mc = 0;  // rows of x packed at a time, a multiple of FusedGemm::rows
  int64_t kc = 0;  // columns of x summed up at a time, a multiple of FusedGemm::k_step
};

// x packed for one part of K takes half of L2, whose other half streams W: 2 MB where there are
// tiles. Equal parts of K of at most 4 KB: shorter ones spend their time on sums coming and going.
inline FusedBlocking fused_blocking(int64_t m, int64_t k, const FusedGemm& gemm) {
  FusedBlocking blocking;
  const int64_t k_parts = ceil_div(k * gemm.element_bytes, 4096);
  blocking.kc = round_up(ceil_div(k, k_parts), gemm.k_step);
  const int64_t most = std::max((int64_t{5} << 18) / (blocking.kc * gemm.element_bytes), gemm.rows);
  blocking.mc = round_up(ceil_div(m, ceil_div(m, most)), gemm.rows);
  return blocking;
}

// Rows of W in one piece of a gemv: about 64 KB, some microseconds' reading: what a thread may have
// to wait for another at the end of a loop.
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
