// Blocks of rows of x one after the other; of each, the panels of W are shared out among the
// threads, in large pieces first and single panels last, so that all end together. A piece goes a
// few panels at a time: as many as stay in L2 while the rows of x pass over them. Who takes which
// panels depends on the moment, but no sum does.
#include "matmul/tiled.hpp"

#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"

namespace pali {
namespace {

struct Tiled {
  const GemmKernels& gemm;
  const std::byte* x;
  int64_t x_stride;
  int64_t k;
  const PanelSource& source;
  const std::byte* ready;  // of n_panels each block of K
  int64_t n_panels;
  GemmBlocking blocking;

  int64_t panel_bytes() const { return blocking.panel_bytes(gemm); }
  int64_t c_stride() const { return padded_stride(blocking.panels * gemm.nr, sizeof(float)); }

  // Columns [n0, n1) of y, and of W's columns those from k0 on.
  struct Block {
    int64_t n0, n1, k0;
  };

  // What the `step`th of so many steps is to prefetch, for `block` to be in L2 at its turn: of the
  // rows of W that its panels are packed from, or of the panels themselves.
  GemmArgs::Ahead ahead(const Block& block, int64_t step, int64_t steps) const {
    const bool packed = ready != nullptr;
    if (block.n0 >= block.n1 || (!packed && source.rows == nullptr)) return {};
    // A packed panel counts as nr rows.
    const int64_t all = packed ? round_up(block.n1 - block.n0, gemm.nr) : block.n1 - block.n0;
    const int64_t first = all * step / steps, rows = all * (step + 1) / steps - first;
    if (packed) {
      const int64_t bytes = blocking.kc * gemm.element_bytes;
      return {ready_panel(block.k0, block.n0) + first * bytes, rows, bytes, bytes,
              gemm.element_bytes};
    }
    const std::byte* row = source.rows + (block.n0 + first) * source.stride;
    return {row + block.k0 * source.value_bytes, rows, source.stride,
            std::min(blocking.kc, k - block.k0) * source.value_bytes, source.value_bytes};
  }
  const std::byte* ready_panel(int64_t k0, int64_t n0) const {
    return ready + (k0 / blocking.kc * n_panels + n0 / gemm.nr) * panel_bytes();
  }

  // Rows from m0 on times the columns from n0 on: all of c. finish(i, rows) where those of c are
  // whole, and still in L1. The columns from there to next_end are multiplied next.
  template <class Finish>
  void multiply(int64_t m0, int64_t n0, int64_t next_end, std::byte* panels, Mat c,
                const Finish& finish) const {
    const int64_t n1 = n0 + c.cols;
    for (int64_t k0 = 0; k0 < k; k0 += blocking.kc) {
      const int64_t kc = std::min(blocking.kc, k - k0);
      const std::byte* packed = panels;
      if (ready != nullptr) {
        packed = ready_panel(k0, n0);
      } else {
        for (int64_t j = 0; j < c.cols; j += gemm.nr) {
          source.pack(n0 + j, std::min<int64_t>(gemm.nr, c.cols - j), k0, kc,
                      panels + j / gemm.nr * panel_bytes());
        }
      }
      const Block next = k0 + kc < k ? Block{n0, n1, k0 + kc} : Block{n1, next_end, 0};
      const int64_t steps = ceil_div(c.rows, gemm.mr) * ceil_div(c.cols, gemm.nr);
      int64_t step = 0;
      // Rows outside, panels inside: mr rows of x stay in L1 while the panels come from L2.
      for (int64_t i = 0; i < c.rows; i += gemm.mr) {
        const std::byte* rows = x + ((m0 + i) * x_stride + k0) * gemm.element_bytes;
        const int64_t count = std::min<int64_t>(gemm.mr, c.rows - i);
        for (int64_t j = 0; j < c.cols; j += gemm.nr) {
          gemm.multiply({.a = rows,
                         .a_stride = x_stride,
                         .m = count,
                         .panel = packed + j / gemm.nr * panel_bytes(),
                         .kc = kc,
                         .c = c.row(i) + j,
                         .c_stride = c.stride,
                         .n = std::min<int64_t>(gemm.nr, c.cols - j),
                         .accumulate = k0 != 0,
                         .ahead = ahead(next, step++, steps)});
        }
        if (k0 + kc == k) finish(i, count);
      }
    }
  }
};

}  // namespace

AlignedBuffer<std::byte> pack_panels(const GemmKernels& gemm, int64_t out, int64_t k,
                                     PackPanel pack) {
  const GemmBlocking blocking = gemm_blocking(/*m=*/1, out, k, gemm, /*l2_bytes=*/0);
  const int64_t bytes = blocking.panel_bytes(gemm);
  AlignedBuffer<std::byte> panels(ceil_div(k, blocking.kc) * ceil_div(out, gemm.nr) * bytes);
  std::byte* panel = panels.data();
  for (int64_t k0 = 0; k0 < k; k0 += blocking.kc) {
    for (int64_t n0 = 0; n0 < out; n0 += gemm.nr, panel += bytes) {
      pack(n0, std::min<int64_t>(gemm.nr, out - n0), k0, std::min(blocking.kc, k - k0), panel);
    }
  }
  return panels;
}

void run_tiled(const Context& context, const GemmKernels& gemm, const std::byte* x,
               int64_t x_stride, int64_t k, const PanelSource& source, const std::byte* ready,
               Mat y, const Epilogue& epilogue) {
  const Tiled tiled{gemm,
                    x,
                    x_stride,
                    k,
                    source,
                    ready,
                    ceil_div(y.cols, gemm.nr),
                    gemm_blocking(y.rows, y.cols, k, gemm, context.kernels.l2_bytes)};
  const GemmBlocking& blocking = tiled.blocking;
  for (int64_t m0 = 0; m0 < y.rows; m0 += blocking.mc) {
    const int64_t rows = std::min(blocking.mc, y.rows - m0);
    context.pool.parallel_for(ceil_div(y.cols, gemm.nr), 1, [&](int64_t begin, int64_t end, int) {
      Scratch panels(ready != nullptr ? 0 : blocking.panels * tiled.panel_bytes());
      Scratch sums(rows * tiled.c_stride() * 4);
      const int64_t parts = ceil_div(end - begin, blocking.panels);
      const auto first_of = [&](int64_t part) {
        return std::min((begin + (end - begin) * part / parts) * gemm.nr, y.cols);
      };
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t n0 = first_of(part), next_end = first_of(std::min(part + 2, parts));
        const Mat c(sums.as<float>(), rows, first_of(part + 1) - n0, tiled.c_stride());
        tiled.multiply(m0, n0, next_end, panels.as<std::byte>(), c, [&](int64_t i, int64_t count) {
          finish_tile(context.kernels, Mat(c.row(i), count, c.cols, c.stride), m0 + i, n0, epilogue,
                      y);
        });
      }
    });
  }
}

}  // namespace pali
