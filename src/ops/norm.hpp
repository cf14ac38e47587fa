// Layer normalisation and root-mean-square normalisation, row by row.
#pragma once

#include <span>

#include "base/tensor.hpp"
#include "exec/context.hpp"

namespace pali {

// y = (x - mean) / sqrt(var + eps) * weight + bias; biased variance, statistics in f32.
// x, y [M, D]; weight, bias [D]. y may be x.
void layer_norm(const Context& context, ConstMat x, const float* weight, const float* bias,
                float eps, Mat y);

// y = x / sqrt(mean(x^2) + eps) * weight. Ref: T5LayerNorm in transformers' modeling_t5.py (no
// mean, no bias; the weight multiplies as it is, not as 1 + w). y may be x.
void rms_norm(const Context& context, ConstMat x, const float* weight, float eps, Mat y);

// The same over each group of weight.size() columns of x [M, H*Hd] on its own, in place.
void rms_norm_heads(const Context& context, Mat x, std::span<const float> weight, float eps);

}  // namespace pali
