// What the backends offer to matmul.cpp; nobody else includes this.
#pragma once

#include <memory>
#include <string>

#include "matmul/matmul.hpp"

namespace pali {

// Each binds a checked weight. native (of floats), quantised and reference always succeed; onednn
// returns null and a reason where it declines.
std::unique_ptr<PackedLinear> native_linear(const WeightRef& weight, const MatmulPolicy& policy);
std::unique_ptr<PackedLinear> quantised_linear(const WeightRef& weight,
                                               const MatmulPolicy& policy);  // native, int8, int4
std::unique_ptr<PackedLinear> reference_linear(const WeightRef& weight);
std::unique_ptr<PackedLinear> onednn_linear(const WeightRef& weight, const MatmulPolicy& policy,
                                            std::string& declined);

// policy.cpp: the best-known backend for products of M rows.
MatmulBackend backend_for(int64_t m, DType weight, ComputeType compute, Isa isa);

// Shapes of run()'s arguments; a broken one is a bug of the caller.
void check_run(const PackedLinear& linear, ConstMat x, Mat y, const Epilogue& epilogue);

constexpr KernelType kernel_type(DType type) {
  return type == DType::f32    ? KernelType::f32
         : type == DType::bf16 ? KernelType::bf16
         : type == DType::i8   ? KernelType::int8
         : type == DType::i4   ? KernelType::int4
                               : KernelType::f16;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace pali
