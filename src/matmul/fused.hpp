// Products by a fused kernel (KernelTable::fused_bf16, IntegerKernels), of more than
// kGemvRows rows.
#pragma once

#include <array>

#include "matmul/matmul.hpp"

namespace pali {

// The whole product, epilogue included.
void run_fused(const Context& context, const FusedWeight& weight, ConstMat x, Mat y,
               const Epilogue& epilogue);

// run_chain() of weights with one kernel: those of `first`, then at 2 that of `last`.
void run_fused_chain(const Context& context, const std::array<FusedWeight, 3>& weights, ConstMat x,
                     std::span<const Product> first, const Product& last);

}  // namespace pali
