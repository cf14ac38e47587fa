// Products by a fused kernel (KernelTable::fused_bf16).
#pragma once

#include "matmul/matmul.hpp"

namespace pali {

// The whole product, epilogue included. Weights have their rows contiguous.
void run_fused(const Context& context, const FusedGemm& gemm, const WeightRef& weight, ConstMat x,
               Mat y, const Epilogue& epilogue);

}  // namespace pali
