#include "model/cross_cache.hpp"

#include <algorithm>

#include "exec/grain.hpp"

namespace pali {
namespace {

int64_t value_bytes(KernelType type) { return type == KernelType::f32 ? 4 : 2; }

}  // namespace

HeadRows::HeadRows(int64_t rows, int64_t heads, int64_t head_dim, KernelType type)
    : rows_(rows),
      heads_(heads),
      head_dim_(head_dim),
      apart_((rows * head_dim + 31) / 32 * 32),
      type_(type),
      bytes_(heads * apart_ * value_bytes(type)) {
  PALI_ASSERT(type == KernelType::f32 || type == KernelType::bf16);
}

void HeadRows::write(const Context& context, int64_t first, ConstMat mat) {
  PALI_ASSERT(mat.cols == heads_ * head_dim_);
  PALI_ASSERT(first >= 0 && first + mat.rows <= rows_);
  const int64_t grain = rows_per_grain(mat.cols);
  context.pool.parallel_for(mat.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t head = 0; head < heads_; ++head) {
      const int64_t from = head * apart_ + (first + begin) * head_dim_;
      std::byte* to = bytes_.data() + from * value_bytes(type_);
      for (int64_t i = begin; i < end; ++i, to += head_dim_ * value_bytes(type_)) {
        const float* row = mat.row(i) + head * head_dim_;
        if (type_ == KernelType::bf16) {
          context.kernels.to_bf16(row, head_dim_, reinterpret_cast<uint16_t*>(to));
        } else {
          std::copy_n(row, head_dim_, reinterpret_cast<float*>(to));
        }
      }
    }
  });
}

StoredRows HeadRows::view() const {
  return {bytes_.data(), type_, rows_, heads_, head_dim_, head_dim_, apart_};
}

}  // namespace pali
