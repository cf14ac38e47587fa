// The epilogue of a finished tile, shared by the backends that stand on the kernel table.
#pragma once

#include "kernels/kernel_table.hpp"
#include "matmul/matmul.hpp"

namespace pali {

constexpr KernelActivation kernel_activation(Activation activation) {
  switch (activation) {
    case Activation::gelu_tanh:
      return KernelActivation::gelu_tanh;
    case Activation::gelu_erf:
      return KernelActivation::gelu_erf;
    case Activation::quick_gelu:
      return KernelActivation::quick_gelu;
    case Activation::silu:
      return KernelActivation::silu;
    case Activation::relu:
      return KernelActivation::relu;
    case Activation::none:
      break;
  }
  return KernelActivation::none;
}

// product: rows row0.. and columns col0.. of the whole, `product.rows` x `product.cols`.
inline void finish_tile(const KernelTable& kernels, ConstMat product, int64_t row0, int64_t col0,
                        const Epilogue& epilogue, Mat y) {
  const KernelActivation activation = kernel_activation(epilogue.activation);
  const float* bias = epilogue.bias == nullptr ? nullptr : epilogue.bias + col0;
  const auto part = [&](const ConstMat& mat, int64_t row) {
    return mat.empty() ? nullptr : mat.row(row) + col0;
  };
  for (int64_t i = 0; i < product.rows; ++i) {
    const int64_t row = row0 + i;
    kernels.epilogue(product.row(i), bias, activation, part(epilogue.gate, row),
                     part(epilogue.residual, row), product.cols, y.row(row) + col0);
  }
}

}  // namespace pali
