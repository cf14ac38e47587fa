// Cuts a product for a fused kernel: blocks of rows of x small enough to stay in L2 while W
// streams past them, and of those each thread its share of W's rows. How W is shared out depends on
// the number of threads, but no sum does.
#include "matmul/fused.hpp"

#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"

namespace pali {

void run_fused(const Context& context, const FusedGemm& gemm, const WeightRef& weight, ConstMat x,
               Mat y, const Epilogue& epilogue) {
  const FusedBlocking blocking = fused_blocking(x.rows, weight.in, gemm);
  const int64_t panel_bytes = gemm.panel_bytes(weight.in);
  const int64_t n_panels = ceil_div(weight.out, gemm.w_rows);
  // Several shares a thread, in case one of them is held up; each packs its first panel alone.
  const int64_t shares = std::min<int64_t>(n_panels, 4 * context.pool.size());
  const int64_t most_rows = ceil_div(n_panels, shares) * gemm.w_rows;
  Scratch packed(ceil_div(blocking.mc, gemm.rows) * panel_bytes);

  for (int64_t m0 = 0; m0 < x.rows; m0 += blocking.mc) {
    const int64_t mc = std::min(blocking.mc, x.rows - m0);
    context.pool.parallel_for(ceil_div(mc, gemm.rows), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t row = p * gemm.rows;
        gemm.pack_activations(x.row(m0 + row), x.stride, std::min(gemm.rows, mc - row), weight.in,
                              packed.as<std::byte>() + p * panel_bytes);
      }
    });
    context.pool.parallel_for(shares, 1, [&](int64_t begin, int64_t end, int) {
      Scratch scratch(gemm.scratch_bytes(mc, most_rows, weight.in, blocking.kc));
      for (int64_t share = begin; share < end; ++share) {
        const int64_t n0 = n_panels * share / shares * gemm.w_rows;
        const int64_t n1 = std::min(n_panels * (share + 1) / shares * gemm.w_rows, weight.out);
        const auto part = [&](const ConstMat& mat) {
          return mat.empty() ? nullptr : mat.row(m0) + n0;
        };
        gemm.multiply({.x = packed.as<std::byte>(),
                       .m = mc,
                       .w = weight.row(n0),
                       .w_stride = is_quantised(weight.dtype)
                                       ? row_bytes(weight.dtype, weight.in)
                                       : weight.out_stride * dtype_bytes(weight.dtype),
                       .scales = weight.scales == nullptr ? nullptr : weight.row_scales(n0),
                       .type = kernel_type(weight.dtype),
                       .n = n1 - n0,
                       .k = weight.in,
                       .k_block = blocking.kc,
                       .epilogue = {.bias = epilogue.bias == nullptr ? nullptr : epilogue.bias + n0,
                                    .activation = kernel_activation(epilogue.activation),
                                    .gate = part(epilogue.gate),
                                    .gate_stride = epilogue.gate.stride,
                                    .residual = part(epilogue.residual),
                                    .residual_stride = epilogue.residual.stride},
                       .y = y.row(m0) + n0,
                       .y_stride = y.stride,
                       .scratch = scratch.as<std::byte>()});
      }
    });
  }
}

}  // namespace pali
