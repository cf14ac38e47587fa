// Multi-head attention, tiled over the keys: no [N, N] matrix is ever held.
#pragma once

#include <cstdint>
#include <span>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "ops/relative_bias.hpp"
#include "pali/options.hpp"

namespace pali {

struct AttentionShape {
  int64_t heads = 1;
  int64_t kv_heads = 1;  // heads % kv_heads == 0
  int64_t head_dim = 64;
  float scale = 1.0f;     // on q . k; T5: 1
  float soft_cap = 0.0f;  // scores become soft_cap * tanh(score / soft_cap), as Gemma 2's; 0: none
  // Other than f32: q, k, v and the softmax's weights are rounded to bf16 where the tier multiplies
  // it and queries are many; scores, softmax and sums stay f32.
  ComputeType compute = ComputeType::f32;
};

// What is added to the scores and what is left out of them; by default neither.
struct AttentionMask {
  // Distances reach from -(M-1) to N-1.
  const DistanceBias* bias = nullptr;
  // [M], within [0, N), none empty: the keys each query sees. Empty: all see all. Causal, prefix
  // and sliding-window masks are ranges; blocks of keys that no query of a tile sees cost nothing.
  std::span<const KeyRange> ranges = {};
};

// q [M, H*Hd], k, v [N, Hkv*Hd] -> out [M, H*Hd]; query head h reads key head h * Hkv / H.
// scores(m, n) = cap(scale * q_m . k_n) + bias(n - m); softmax in f32 over the n that m sees.
// out may not overlap the inputs.
void attention(const Context& context, const AttentionShape& shape, ConstMat q, ConstMat k,
               ConstMat v, const AttentionMask& mask, Mat out);

// Keys or values where a step reads them: row j of head h begins h * apart + j * stride values
// behind `data`.
struct StoredRows {
  const void* data = nullptr;
  KernelType type = KernelType::f32;  // or bf16, widened exactly
  int64_t rows = 0, heads = 0, head_dim = 0;
  int64_t stride = 0, apart = 0;

  // Heads side by side: mat [capacity, Hkv*Hd].
  static StoredRows side_by_side(ConstMat mat, int64_t head_dim) {
    return {mat.data, KernelType::f32, mat.rows, mat.cols / head_dim,
            head_dim, mat.stride,      head_dim};
  }
};

// One query a sequence, each with its own keys: a decoder's step.
// Sequence b's key j lies in row `rows[b][j]` of k and v (rows[b] empty: row j).
struct StepSequence {
  StoredRows k, v;
  std::span<const int32_t> rows;  // key j -> row; empty: identity over all of k
};

// Whether many queries are multiplied in bf16 where products are in `compute`: where that is bf16
// and the tier has such attention, or int8 and it has tiles, whose other products are in bf16.
bool attends_in_bf16(ComputeType compute, const KernelTable& kernels);

// What keys and values that many steps read are best kept in: bf16 where products are in bf16 or
// int8 and the tier multiplies it, else f32: int16 is for who would lose less than bf16 does.
KernelType stored_type(ComputeType compute, const KernelTable& kernels);

// q [B, H*Hd] -> out [B, H*Hd]. A sequence's query sees all keys that its rows name: a sliding
// window is a shorter table. Where bias is given, key j of n has distance j - (n - 1): the query is
// the newest position.
void attention_step(const Context& context, const AttentionShape& shape, ConstMat q,
                    std::span<const StepSequence> sequences, const DistanceBias* bias, Mat out);

}  // namespace pali
