// Work is cut over the rows of the weights: where, depends on the moment, but no sum does.
#include "matmul/streamed.hpp"

#include <algorithm>

#include "exec/scratch.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"
#include "matmul/epilogue.hpp"

namespace pali {
namespace {

const GemvKernels& gemv_of(const KernelTable& kernels, const StreamedWeight& weight) {
  return weight.x == ComputeType::int8    ? kernels.int8.gemv
         : weight.x == ComputeType::int16 ? kernels.int16.gemv
                                          : kernels.gemv;
}

int64_t packed_stride(int64_t k, const StreamedWeight& weight) {
  const bool integers = weight.x == ComputeType::int8 || weight.x == ComputeType::int16;
  const int64_t floats = integers ? gemv_integer_packed_floats(k) : gemv_packed_floats(k);
  return padded_stride(floats, sizeof(float));
}

// x in the order that the kernels want: rows of `stride` floats.
ConstMat pack(const KernelTable& kernels, ConstMat x, const StreamedWeight& weight,
              Scratch& memory) {
  const int64_t stride = packed_stride(x.cols, weight);
  float* packed = memory.as<float>();
  // Where many rows are multiplied bf16 by bf16, few must see the same rounded activations.
  float* rounded = packed + x.rows * stride;
  uint16_t* narrow = reinterpret_cast<uint16_t*>(rounded + x.cols);
  for (int64_t m = 0; m < x.rows; ++m) {
    const float* row = x.row(m);
    if (weight.x == ComputeType::bf16) {
      kernels.to_bf16(row, x.cols, narrow);
      kernels.widen(reinterpret_cast<const std::byte*>(narrow), KernelType::bf16, x.cols, rounded);
      row = rounded;
    }
    gemv_of(kernels, weight)
        .pack(row, kernel_type(weight.weight->dtype), x.cols, packed + m * stride);
  }
  return ConstMat(packed, x.rows, x.cols, stride);
}

// Bytes of W that a thread streams in one go where its part of the loop is so long: at each new
// beginning the hardware has yet to see where the streams lead. Two cores of Zen 3, from pieces of
// 64 KB to these: 250112x2048 in bf16 35.1 to 27.7 ms, int8 15.6 to 14.6, int4 11.7 to 10.5.
constexpr int64_t kLongStream = int64_t{1} << 22;

int64_t packed_bytes(ConstMat x, const StreamedWeight& weight) {
  const bool bf16 = weight.x == ComputeType::bf16;
  return x.rows * packed_stride(x.cols, weight) * 4 + (bf16 ? x.cols * 6 + 64 : 0);
}

}  // namespace

void run_streamed(const Context& context, ConstMat x, std::span<const StreamedWeight> weights,
                  std::span<const Product> products) {
  const KernelTable& kernels = context.kernels;
  const StreamedWeight& first = weights.front();
  const DType dtype = first.weight->dtype;
  const GemvKernels& gemv = gemv_of(kernels, first);
  Scratch memory(packed_bytes(x, first));
  const ConstMat packed = pack(kernels, x, first, memory);

  const int64_t block = gemv_block(row_bytes(dtype, x.cols));
  int64_t columns = 0;
  for (const StreamedWeight& w : weights) columns = std::max(columns, w.weight->out);
  const int64_t most_blocks =
      std::max<int64_t>(kLongStream / (block * row_bytes(dtype, x.cols)), 1);
  const auto run_columns = [&](int64_t column, int64_t most, int64_t stride, Scratch& scratch) {
    for (size_t p = 0; p < products.size(); ++p) {
      const WeightRef& w = *weights[p].weight;
      const int64_t count = std::min(most, w.out - column);
      if (count <= 0) continue;
      const Mat product(scratch.as<float>(), x.rows, count, stride);
      gemv.multiply({.x = packed.data,
                     .x_stride = packed.stride,
                     .m = x.rows,
                     .w = w.row(column),
                     .w_stride = is_quantised(dtype) ? row_bytes(dtype, w.in)
                                                     : w.out_stride * dtype_bytes(dtype),
                     .scales = w.scales == nullptr ? nullptr : w.row_scales(column),
                     .type = kernel_type(dtype),
                     .n = count,
                     .k = w.in,
                     .y = product.data,
                     .y_stride = product.stride});
      finish_tile(kernels, product, 0, column, products[p].epilogue, products[p].y);
    }
  };
  context.pool.parallel_for(ceil_div(columns, block), 1, [&](int64_t begin, int64_t end, int) {
    const int64_t most = std::min(most_blocks, end - begin) * block;
    const int64_t stride = padded_stride(most, sizeof(float));
    Scratch scratch(x.rows * stride * 4);
    for (int64_t column = begin * block; column < std::min(end * block, columns); column += most) {
      run_columns(column, std::min(most, end * block - column), stride, scratch);
    }
  });
}

}  // namespace pali
