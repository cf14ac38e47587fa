// Products of few rows: weights streamed in place, several matrices in one parallel loop.
#pragma once

#include <span>

#include "matmul/matmul.hpp"

namespace pali {

// The products of x (1 to kGemvRows rows) with weights that all have the type and the rounding of
// the first; weights[i] is that of products[i]. Block by block of columns, in their order, so that
// a product's gate may be the result of an earlier one.
void run_streamed(const Context& context, ConstMat x, std::span<const StreamedWeight> weights,
                  std::span<const Product> products);

}  // namespace pali
