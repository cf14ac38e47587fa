// In which type a tensor is stored by conversion and by a cast at load, and its bytes in that type:
// one place, so that the two agree to the bit.
#pragma once

#include <optional>
#include <span>

#include "io/tensor_table.hpp"
#include "matmul/quantise.hpp"

namespace pali {

// A bound tensor in its target type. Borrows the tensor.
class StoredForm {
 public:
  // `wanted` empty keeps the tensor's own type. Never narrower than the tensor's row allows. Throws
  // Error where the weights cannot be quantised.
  StoredForm(const BoundTensor& tensor, std::optional<DType> wanted);

  DType type() const { return type_; }
  DType container_type() const { return type_ == DType::i4 ? DType::u8 : type_; }
  std::vector<int64_t> shape() const;
  void write(std::span<std::byte> out) const;

  bool has_scales() const { return is_quantised(type_); }
  DType scale_type() const { return type_ == DType::i8 ? DType::f32 : DType::f16; }
  std::vector<int64_t> scale_shape() const;
  void write_scales(std::span<std::byte> out) const;
  // Set where this form was rounded to integers here.
  const std::optional<QuantisationError>& error() const { return error_; }

 private:
  const BoundTensor* tensor_;
  DType type_;
  AlignedBuffer<std::byte> scales_;  // empty where the tensor has its own
  std::optional<QuantisationError> error_;
};

}  // namespace pali
