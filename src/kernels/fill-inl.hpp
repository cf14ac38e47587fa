// The generic kernels over one vector class, entered into a table. Included once by each ISA
// source.
#pragma once

#include "kernels/attention-inl.hpp"
#include "kernels/attention_one-inl.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/gemv-inl.hpp"
#include "kernels/rows-inl.hpp"

namespace pali {
namespace {

// kRows x kVectors: the f32 product's tile of sums, in vectors.
template <class S, int kRows, int kVectors>
void fill(KernelTable& table) {
  table.layer_norm = layer_norm<S>;
  table.rms_norm = rms_norm<S>;
  table.epilogue = epilogue<S>;
  table.rope = rope<S>;
  table.soft_cap = soft_cap<S>;
  table.dot = dot<S>;
  table.max = max<S>;
  table.sum_exp = sum_exp<S>;
  table.widen = widen<S>;
  table.to_bf16 = to_bf16<S>;
  table.gemv = {gemv_pack<S>, gemv<S>};
  table.gemm_f32 = gemm_f32<S, kRows, kVectors>();
  table.attend_row = attend_row<S>;
  table.attention_f32 = attention_kernels<S, AttentionFloats<S>>();
}

}  // namespace
}  // namespace pali
