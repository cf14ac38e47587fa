// Rounding float weights to int8 and int4.
#pragma once

#include "base/tensor.hpp"
#include "base/weight_ref.hpp"

namespace pali {

// How far quantised weights lie from what they were.
struct QuantisationError {
  double rms = 0;  // sqrt(sum (q - w)^2 / sum w^2); 0 where all weights are 0
  double max = 0;  // max |q - w| / max |w|
  // The same of products with the activations of a calibration (matmul/compensated.hpp); 0 without.
  double products = 0;
};

// The scales of `weight` as `type` (i8 or i4), in the layout of models/FORMAT.md. int8: max |w| /
// 127 of each row. int4: of each group the least squared error of a few, or what least squares make
// of it. Throws Error: corrupt_file for weights that are not finite, unsupported for groups beyond
// the range of an f16 scale. `error`, where given, receives what the rounding costs.
AlignedBuffer<std::byte> quantisation_scales(const WeightRef& weight, DType type,
                                             QuantisationError* error);

// The integers that belong to those scales, row by row, into weight.out * row_bytes(type,
// weight.in) bytes.
void quantise(const WeightRef& weight, DType type, const std::byte* scales, std::byte* out);

}  // namespace pali
