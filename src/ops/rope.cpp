#include "ops/rope.hpp"

#include <cmath>

#include "exec/grain.hpp"

namespace pali {

RopeTable rope_table(const RopeSpec& spec, int64_t head_dim, int64_t first, int64_t positions) {
  PALI_ASSERT(spec.theta > 0 && head_dim >= 2 && head_dim % 2 == 0 && positions >= 1);
  const int64_t half = head_dim / 2;
  std::vector<float> frequencies(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[static_cast<size_t>(i)] = 1.0f / std::pow(spec.theta, exponent) / spec.factor;
  }
  RopeTable table{Tensor(positions, half), Tensor(positions, half)};
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(first + p) * frequencies[static_cast<size_t>(i)];
      table.cosines.row(p)[i] = std::cos(angle);
      table.sines.row(p)[i] = std::sin(angle);
    }
  }
  return table;
}

void rope(const Context& context, const RopeTable& table, std::span<const int32_t> rows, Mat x) {
  const int64_t half = table.cosines.cols();
  PALI_ASSERT(static_cast<int64_t>(rows.size()) == x.rows && x.cols % (2 * half) == 0);
  context.pool.parallel_for(x.rows, rows_per_grain(x.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      const int32_t row = rows[static_cast<size_t>(m)];
      PALI_ASSERT(row >= 0 && row < table.cosines.rows());
      for (float* head = x.row(m); head < x.row(m) + x.cols; head += 2 * half) {
        context.kernels.rope(head, table.cosines.row(row), table.sines.row(row), half);
      }
    }
  });
}

}  // namespace pali
