// A stored tensor seen as the matrix that a rule asks for: which stored axes make a row's number
// and which run along it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/tensor_table.hpp"

namespace pali {

// An axis of the stored tensor: elements lie `stride` apart.
struct ViewAxis {
  int64_t size = 1, stride = 1;
};

struct TensorView {
  std::vector<ViewAxis> out, in;  // most significant first
  int64_t offset = 0;             // of the first element

  // Rows and columns each at a constant distance: out_stride, in_stride. Else empty.
  std::optional<std::pair<int64_t, int64_t>> strides() const;
  // Copies the matrix row by row, elements of `bytes` bytes: 2 or 4.
  void copy(const std::byte* from, int64_t bytes, std::byte* to) const;
};

// Empty where the stored shape is not the rule's. A tensor under its canonical name and shape is
// taken as it is, whatever the rule's transform.
std::optional<TensorView> view_of(const TensorRule& rule, const StoredTensor& tensor);

// What the rule expects of the stored shape, for messages: "[6, 4]".
std::string expected_shape(const TensorRule& rule);
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace pali
