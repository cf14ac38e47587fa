// Cuts products for a fused kernel: blocks of rows of x small enough to stay in L2 while W streams
// past them, and of those each thread its share of W's rows. How W is shared out depends on the
// number of threads, but no sum does.
//
// In a chain, a part of the columns of h is made from x at a time, small enough to stay in L2 too,
// and packed from there for the next product: h in f32 would be the most of what such a layer
// reads and writes.
#include "matmul/fused.hpp"

#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"

namespace pali {
namespace {

// Columns of h at a time, at least.
constexpr int64_t kChainColumns = 128;

int64_t packed_bytes(const FusedGemm& gemm, int64_t rows, int64_t k) {
  return ceil_div(rows, gemm.rows) * gemm.panel_bytes(k);
}

void pack(const Context& context, const FusedGemm& gemm, ConstMat x, std::byte* packed) {
  const int64_t panel_bytes = gemm.panel_bytes(x.cols);
  context.pool.parallel_for(ceil_div(x.rows, gemm.rows), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t row = p * gemm.rows;
      gemm.pack_activations(x.row(row), x.stride, std::min(gemm.rows, x.rows - row), 0, x.cols,
                            x.cols, packed + p * panel_bytes);
    }
  });
}

const std::byte* row_or_null(const WeightRef& weight, int64_t row) {
  return row < weight.out ? weight.row(row) : nullptr;
}

// Rows [n0, n0 + y.cols) of W times packed x: the columns of y and epilogue.
FusedGemmArgs product(const WeightRef& weight, int64_t n0, const std::byte* packed, int64_t kc,
                      const Epilogue& epilogue, Mat y, std::byte* scratch) {
  return {.x = packed,
          .m = y.rows,
          .w = weight.row(n0),
          .w_stride = is_quantised(weight.dtype) ? row_bytes(weight.dtype, weight.in)
                                                 : weight.out_stride * dtype_bytes(weight.dtype),
          .scales = weight.scales == nullptr ? nullptr : weight.row_scales(n0),
          .type = kernel_type(weight.dtype),
          .n = y.cols,
          .k = weight.in,
          .k_block = kc,
          .epilogue = {.bias = epilogue.bias,
                       .activation = kernel_activation(epilogue.activation),
                       .gate = epilogue.gate.data,
                       .gate_stride = epilogue.gate.stride,
                       .residual = epilogue.residual.data,
                       .residual_stride = epilogue.residual.stride},
          .y = y.data,
          .y_stride = y.stride,
          .scratch = scratch,
          .next_w = row_or_null(weight, n0 + y.cols)};
}

Epilogue rows_of(const Epilogue& epilogue, int64_t first, int64_t rows) {
  Epilogue part = epilogue;
  if (!part.gate.empty()) part.gate = part.gate.rows_from(first, rows);
  if (!part.residual.empty()) part.residual = part.residual.rows_from(first, rows);
  return part;
}

Epilogue columns_of(const Epilogue& epilogue, int64_t first, int64_t columns) {
  Epilogue part = epilogue;
  if (part.bias != nullptr) part.bias += first;
  if (!part.gate.empty()) part.gate = part.gate.cols_from(first, columns);
  if (!part.residual.empty()) part.residual = part.residual.cols_from(first, columns);
  return part;
}

// All of W times the packed rows of a block.
void multiply(const Context& context, const FusedWeight& weight, const std::byte* packed,
              int64_t kc, const Epilogue& epilogue, Mat y) {
  const FusedGemm& gemm = *weight.gemm;
  const WeightRef& w = *weight.weight;
  const int64_t n_panels = ceil_div(w.out, gemm.w_rows);
  // Two shares a thread at the least, in case one of them is held up.
  const int64_t grain = std::clamp<int64_t>(gemm.least_rows / gemm.w_rows, 1,
                                            ceil_div(n_panels, 2 * context.pool.size()));
  context.pool.parallel_for(n_panels, grain, [&](int64_t begin, int64_t end, int) {
    const int64_t n0 = begin * gemm.w_rows, n = std::min(end * gemm.w_rows, w.out) - n0;
    Scratch scratch(gemm.scratch_bytes(y.rows, n, w.in, kc));
    gemm.multiply(product(w, n0, packed, kc, columns_of(epilogue, n0, n), y.cols_from(n0, n),
                          scratch.as<std::byte>()));
  });
}

}  // namespace

void run_fused(const Context& context, const FusedWeight& weight, ConstMat x, Mat y,
               const Epilogue& epilogue) {
  const FusedGemm& gemm = *weight.gemm;
  const FusedBlocking blocking = fused_blocking(x.rows, x.cols, gemm, context.kernels.l2_bytes);
  Scratch packed(packed_bytes(gemm, blocking.mc, x.cols));
  for (int64_t m0 = 0; m0 < x.rows; m0 += blocking.mc) {
    const int64_t rows = std::min(blocking.mc, x.rows - m0);
    pack(context, gemm, x.rows_from(m0, rows), packed.as<std::byte>());
    multiply(context, weight, packed.as<std::byte>(), blocking.kc, rows_of(epilogue, m0, rows),
             y.rows_from(m0, rows));
  }
}

void run_fused_chain(const Context& context, const std::array<FusedWeight, 3>& weights, ConstMat x,
                     std::span<const Product> first, const Product& last) {
  const FusedGemm& gemm = *weights[2].gemm;
  const int64_t width = last.weight->in();
  const int64_t columns = round_up(kChainColumns, gemm.k_step);
  const int64_t stride = padded_stride(columns, sizeof(float));
  const FusedBlocking blocking = fused_blocking(x.rows, x.cols, gemm, context.kernels.l2_bytes);
  Scratch packed_h(packed_bytes(gemm, x.rows, width));

  // Columns from n0 on of rows m0 on of h, packed.
  const auto part = [&](int64_t m0, int64_t rows, int64_t n0, const std::byte* packed_x,
                        std::byte* scratch, float* buffers) {
    const int64_t n = std::min(columns, width - n0);
    Mat h;
    for (size_t p = 0; p < first.size(); ++p) {
      Epilogue epilogue = columns_of(rows_of(first[p].epilogue, m0, rows), n0, n);
      const bool gated = p == 1 && first[1].epilogue.gate.data == first[0].y.data;
      if (gated) epilogue.gate = h;
      h = Mat(buffers + static_cast<int64_t>(p) * rows * stride, rows, n, stride);
      const WeightRef& w = *weights[p].weight;
      FusedGemmArgs args = product(w, n0, packed_x, blocking.kc, epilogue, h, scratch);
      const bool more = p + 1 < first.size();
      args.next_w = more ? weights[p + 1].weight->row(n0) : row_or_null(*weights[0].weight, n0 + n);
      gemm.multiply(args);
    }
    for (int64_t i = 0; i < rows; i += gemm.rows) {
      gemm.pack_activations(
          h.row(i), stride, std::min(gemm.rows, rows - i), n0, n, width,
          packed_h.as<std::byte>() + (m0 + i) / gemm.rows * gemm.panel_bytes(width));
    }
  };

  Scratch packed_x(packed_bytes(gemm, blocking.mc, x.cols));
  for (int64_t m0 = 0; m0 < x.rows; m0 += blocking.mc) {
    const int64_t rows = std::min(blocking.mc, x.rows - m0);
    pack(context, gemm, x.rows_from(m0, rows), packed_x.as<std::byte>());
    context.pool.parallel_for(ceil_div(width, columns), 1, [&](int64_t begin, int64_t end, int) {
      Scratch scratch(gemm.scratch_bytes(rows, columns, x.cols, blocking.kc));
      Scratch buffers(static_cast<int64_t>(first.size()) * rows * stride * 4);
      for (int64_t i = begin; i < end; ++i) {
        part(m0, rows, i * columns, packed_x.as<std::byte>(), scratch.as<std::byte>(),
             buffers.as<float>());
      }
    });
  }

  const FusedBlocking after = fused_blocking(x.rows, width, gemm, context.kernels.l2_bytes);
  for (int64_t m0 = 0; m0 < x.rows; m0 += after.mc) {
    const int64_t rows = std::min(after.mc, x.rows - m0);
    multiply(context, weights[2],
             packed_h.as<std::byte>() + m0 / gemm.rows * gemm.panel_bytes(width), after.kc,
             rows_of(last.epilogue, m0, rows), last.y.rows_from(m0, rows));
  }
}

}  // namespace pali
