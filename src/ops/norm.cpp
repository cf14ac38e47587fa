// Row normalisations over the pool.
#include "ops/norm.hpp"

#include "exec/grain.hpp"

namespace pali {

void layer_norm(const Context& context, ConstMat x, const float* weight, const float* bias,
                float eps, Mat y) {
  PALI_ASSERT(x.rows == y.rows && x.cols == y.cols);
  context.pool.parallel_for(x.rows, rows_per_grain(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      context.kernels.layer_norm(x.row(i), weight, bias, eps, x.cols, y.row(i));
    }
  });
}

void rms_norm(const Context& context, ConstMat x, const float* weight, float eps, Mat y) {
  PALI_ASSERT(x.rows == y.rows && x.cols == y.cols);
  context.pool.parallel_for(x.rows, rows_per_grain(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      context.kernels.rms_norm(x.row(i), weight, eps, x.cols, y.row(i));
    }
  });
}

void rms_norm_heads(const Context& context, Mat x, std::span<const float> weight, float eps) {
  const auto width = static_cast<int64_t>(weight.size());
  PALI_ASSERT(width >= 1 && x.cols % width == 0);
  context.pool.parallel_for(x.rows, rows_per_grain(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (float* head = x.row(i); head < x.row(i) + x.cols; head += width) {
        context.kernels.rms_norm(head, weight.data(), eps, width, head);
      }
    }
  });
}

}  // namespace pali
