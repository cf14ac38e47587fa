// T5's logarithmic distance buckets, and the bias they give each head.
#include "ops/relative_bias.hpp"

#include <cmath>
#include <cstdlib>

#include "base/assert.hpp"

namespace pali {

int32_t relative_bucket(int64_t distance, bool bidirectional, int32_t buckets,
                        int32_t max_distance) {
  int32_t first = 0;
  int64_t n;
  if (bidirectional) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    n = std::abs(distance);
  } else {
    n = distance < 0 ? -distance : 0;
  }
  const int32_t exact = buckets / 2;
  PALI_ASSERT(exact >= 1 && max_distance > exact);
  if (n < exact) return first + static_cast<int32_t>(n);
  // In f32 and in the reference's order of operations: where a bucket starts at a whole power, the
  // rounding decides. The divisor is a Python float there, rounded to f32 when it meets the tensor.
  const float ratio = std::log(static_cast<float>(n) / static_cast<float>(exact));
  const float range =
      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const float step = ratio / range * static_cast<float>(buckets - exact);
  const float last = static_cast<float>(buckets - 1 - exact);
  return first + exact + static_cast<int32_t>(step < last ? step : last);
}

DistanceBias distance_bias(ConstMat table, bool bidirectional, int32_t max_distance, int64_t left,
                           int64_t right) {
  PALI_ASSERT(left >= 0 && right >= 0);
  DistanceBias bias{Tensor(table.cols, left + right + 1), left};
  const auto buckets = static_cast<int32_t>(table.rows);
  for (int64_t distance = -left; distance <= right; ++distance) {
    const int32_t bucket = relative_bucket(distance, bidirectional, buckets, max_distance);
    for (int64_t h = 0; h < table.cols; ++h) {
      bias.values.row(h)[distance + left] = table.row(bucket)[h];
    }
  }
  return bias;
}

}  // namespace pali
