#include "matmul/moments.hpp"

#include <algorithm>
#include <utility>

#include "matmul/backends.hpp"

namespace pali {
namespace {

// Rows that one product adds: decoding brings few at a time.
constexpr int64_t kRows = 256;

}  // namespace

ActivationMoments::ActivationMoments(int64_t width) : sum_(width, width), columns_(width, kRows) {
  for (int64_t i = 0; i < width; ++i) std::fill_n(sum_.row(i), width, 0.0f);
}

int64_t ActivationMoments::bytes(int64_t width) {
  return width * (width + kRows) * static_cast<int64_t>(sizeof(float));
}

void ActivationMoments::add(const Context& context, ConstMat x) {
  PALI_ASSERT(x.cols == sum_.cols());
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t i = 0; i < x.cols; ++i) columns_.row(i)[waiting_] = x.row(m)[i];
    if (++waiting_ == kRows) flush(context);
  }
}

ConstMat ActivationMoments::sum(const Context& context) {
  flush(context);
  return std::as_const(sum_).view();
}

// sum += X^T X, where a row of X^T is both an activation and a weight.
void ActivationMoments::flush(const Context& context) {
  if (waiting_ == 0) return;
  const ConstMat columns = std::as_const(columns_).view().cols_from(0, waiting_);
  const WeightRef weight = {.name = "activations",
                            .out = columns.rows,
                            .in = columns.cols,
                            .out_stride = columns.stride,
                            .data = reinterpret_cast<const std::byte*>(columns.data)};
  Epilogue add;
  add.residual = sum_.view();
  native_linear(weight, {})->run(context, columns, sum_.view(), add);
  waiting_ = 0;
}

}  // namespace pali
