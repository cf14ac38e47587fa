// Token embedding look-up: a few rows, so plain loops.
#include "ops/embedding.hpp"

#include <cstring>

namespace pali {

void embed_tokens(const WeightRef& table, std::span<const int32_t> ids, Mat out) {
  PALI_ASSERT(is_float_weight(table.dtype) || is_quantised(table.dtype));
  PALI_ASSERT(out.rows == static_cast<int64_t>(ids.size()) && out.cols == table.in);
  for (size_t t = 0; t < ids.size(); ++t) {
    PALI_ASSERT(ids[t] >= 0 && ids[t] < table.out);
    float* row = out.row(static_cast<int64_t>(t));
    if (table.dtype == DType::f32 && table.rows_contiguous()) {
      std::memcpy(row, table.row(ids[t]), static_cast<size_t>(table.in) * sizeof(float));
      continue;
    }
    for (int64_t i = 0; i < table.in; ++i) row[i] = table.at(ids[t], i);
  }
}

}  // namespace pali
