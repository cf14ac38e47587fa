// Products of many rows by a register-tiled kernel (KernelTable::gemm_f32, gemm_bf16) over panels
// of W that are packed on the way, epilogue included.
#pragma once

#include "matmul/matmul.hpp"

namespace pali {

// Columns [k0, k0 + kc) of n rows of W from n0 on into a panel of GemmKernels; k0 is a multiple of
// 32.
using PackPanel =
    FunctionRef<void(int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte* panel)>;

// y = x W^T, W [y.cols, k]. x: rows of the kernel's elements, x_stride apart, a multiple of its
// k_step of them.
void run_tiled(const Context& context, const GemmKernels& gemm, const std::byte* x,
               int64_t x_stride, int64_t k, PackPanel pack, Mat y, const Epilogue& epilogue);

}  // namespace pali
