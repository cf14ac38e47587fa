// Token embedding look-up.
#pragma once

#include <cstdint>
#include <span>

#include "base/tensor.hpp"
#include "base/weight_ref.hpp"

namespace pali {

// out row i = table row ids[i], widened to f32. ids must lie in [0, table.out): checked at the
// request's door, asserted here. table [V, D], out [ids.size(), D].
void embed_tokens(const WeightRef& table, std::span<const int32_t> ids, Mat out);

}  // namespace pali
