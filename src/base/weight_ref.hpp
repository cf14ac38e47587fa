// A borrowed weight matrix in the layout of the file that it lies in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/dtype.hpp"

namespace pali {

// W [out, in] of a product y = x W^T. Element (o, i) is element number o * out_stride + i *
// in_stride of `data`: [out, in] files have in_stride 1, [in, out] files out_stride 1. `data` need
// not be aligned: files promise nothing. Whoever opened the file keeps it mapped.
struct WeightRef {
  std::string name;  // canonical name, for messages
  DType dtype = DType::f32;
  int64_t out = 0;
  int64_t in = 0;
  int64_t out_stride = 0;
  int64_t in_stride = 1;
  const std::byte* data = nullptr;

  bool empty() const { return data == nullptr; }
  bool rows_contiguous() const { return in_stride == 1; }
  const std::byte* row(int64_t o) const { return data + o * out_stride * dtype_bytes(dtype); }
  float at(int64_t o, int64_t i) const {
    return load_weight(data, dtype, o * out_stride + i * in_stride);
  }
  // Output rows [first, first + count): a fused matrix taken apart without copying.
  WeightRef slice_out(int64_t first, int64_t count) const {
    WeightRef part = *this;
    part.data = data + first * out_stride * dtype_bytes(dtype);
    part.out = count;
    return part;
  }
};

}  // namespace pali
