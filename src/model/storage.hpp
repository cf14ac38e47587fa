// In which type a tensor is stored by conversion and by a cast at load, and its bytes in that type:
// one place, so that the two agree to the bit.
#pragma once

#include <optional>
#include <span>

#include "io/tensor_table.hpp"
#include "matmul/compensated.hpp"

namespace pali {

// Integers that err by more than this (QuantisationError::rms) are not stored: such a matrix takes
// the next wider type, int8 after int4, bf16 after int8. Normally distributed weights err by 8.1 %
// in int4 and, in rows of 256 to 16384, by 0.7 to 0.9 % in int8; Student's t with 4 degrees of
// freedom by 11.1 % in int4. What lies beyond is few large weights that all others pay for.
inline constexpr double kMostInt4Error = 0.12;
inline constexpr double kMostInt8Error = 0.02;

// What a calibration knows of a matrix, and what it asks of it.
struct Calibration {
  const Context& context;
  ConstMat moments;  // the sum of x^T x of its activations
  // Integers whose products err by more than this (QuantisationError::products) take the next wider
  // type.
  double most_error = 0;
};

// A bound tensor in its target type. Borrows the tensor.
class StoredForm {
 public:
  // A type that was asked for and is not stored, and what it would have cost; nothing was measured
  // where the provenance table refuses it.
  struct Refusal {
    DType type = DType::i4;
    QuantisationError error;
  };

  // `wanted` empty keeps the tensor's own type. Never narrower than the tensor's row allows. Throws
  // Error where the weights cannot be quantised.
  StoredForm(const BoundTensor& tensor, std::optional<DType> wanted,
             const Calibration* calibration = nullptr);

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
  // Set where a matrix stays wider than what was asked for.
  const std::optional<Refusal>& refusal() const { return refusal_; }

 private:
  void round(const Calibration* calibration);

  const BoundTensor* tensor_;
  DType type_;
  AlignedBuffer<std::byte> scales_;    // empty where the tensor has its own
  AlignedBuffer<std::byte> integers_;  // empty where scales_ say all
  std::optional<QuantisationError> error_;
  std::optional<Refusal> refusal_;
};

}  // namespace pali
