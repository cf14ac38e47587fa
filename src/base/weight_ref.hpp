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
// Quantised weights (int8, int4) are [out, in] without padding, and element (o, i) is the integer
// times a scale of row o: of the whole row (int8, f32) or of the group of i (int4, f16).
struct WeightRef {
  std::string name;  // canonical name, for messages
  DType dtype = DType::f32;
  int64_t out = 0;
  int64_t in = 0;
  int64_t out_stride = 0;
  int64_t in_stride = 1;
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;  // quantised weights only; not aligned either

  bool empty() const { return data == nullptr; }
  bool rows_contiguous() const { return in_stride == 1; }
  const std::byte* row(int64_t o) const {
    return data +
           (dtype == DType::i4 ? o * row_bytes(dtype, in) : o * out_stride * dtype_bytes(dtype));
  }
  // The first scale of row o of a quantised weight.
  const std::byte* row_scales(int64_t o) const {
    return scales + (dtype == DType::i4 ? o * int4_groups(in) * 2 : o * 4);
  }
  float at(int64_t o, int64_t i) const {
    if (dtype == DType::i8) {
      return static_cast<float>(static_cast<int8_t>(data[o * out_stride + i])) *
             load_weight(row_scales(o), DType::f32, 0);
    }
    if (dtype == DType::i4) {
      return static_cast<float>(int4_value(row(o), in, i)) *
             load_weight(row_scales(o), DType::f16, i / kInt4Group);
    }
    return load_weight(data, dtype, o * out_stride + i * in_stride);
  }
};

}  // namespace pali
