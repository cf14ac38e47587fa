// Rounding weights to integers so that products err least, knowing what activations they meet.
#pragma once

#include <optional>

#include "base/tensor.hpp"
#include "base/weight_ref.hpp"
#include "exec/context.hpp"
#include "matmul/quantise.hpp"

namespace pali {

struct CompensatedWeights {
  AlignedBuffer<std::byte> scales, integers;  // as quantisation_scales() and quantise() have them
  QuantisationError error;
};

// The integers of `weight` as `type` (i8 or i4): every weight of a row makes up for what the
// rounding of those before it did to products with activations whose sum of x^T x is `moments` [in,
// in]. Ref: GPTQ, arXiv 2210.17323, in its other form: with H = R R^T, R upper triangular, rounding
// column j of (w - q) R in turn leaves R[j, j] times the error of one integer (Chen et al., arXiv
// 2507.18553). Empty where the moments are no base for that: no activations, or not finite ones.
// Throws Error as quantisation_scales() does. The same bits at any thread count.
std::optional<CompensatedWeights> quantise_compensated(const Context& context,
                                                       const WeightRef& weight, DType type,
                                                       ConstMat moments);

}  // namespace pali
