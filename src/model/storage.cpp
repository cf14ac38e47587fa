#include "model/storage.hpp"

#include <cstring>
#include <utility>

#include "base/assert.hpp"

namespace pali {
namespace {

DType target_type(const BoundTensor& tensor, std::optional<DType> wanted) {
  const DType own = tensor.ref.dtype;
  if (!wanted || *wanted == own || *wanted == DType::f32) return wanted.value_or(own);
  switch (tensor.rule.least) {
    case Precision::f32:
      return own;
    case Precision::bf16:
      return own == DType::f32 || *wanted == DType::bf16 ? DType::bf16 : own;
    case Precision::int8:
      return *wanted == DType::i4 ? DType::i8 : *wanted;
    case Precision::any:
      return *wanted;
  }
  return own;
}

// What a matrix is stored as where the integers of `type` err too much.
DType next_wider(DType type, DType own) {
  if (type == DType::i4) return DType::i8;
  return own == DType::f16 ? own : DType::bf16;
}

// What a calibration measured counts for more than what weights alone tell: those of int4 err the
// more, the better they make up for each other.
bool serves(DType type, const QuantisationError& error, const Calibration* calibration) {
  if (type == DType::i8 && error.rms > kMostInt8Error) return false;
  if (error.products > 0) return error.products <= calibration->most_error;
  return error.rms <= kMostInt4Error;
}

}  // namespace

StoredForm::StoredForm(const BoundTensor& tensor, std::optional<DType> wanted,
                       const Calibration* calibration)
    : tensor_(&tensor), type_(target_type(tensor, wanted)) {
  if (wanted && is_quantised(*wanted) && type_ != *wanted && tensor.rule.least != Precision::f32) {
    refusal_ = Refusal{*wanted, {}};
  }
  while (has_scales() && type_ != tensor.ref.dtype) {
    round(calibration);
    if (serves(type_, *error_, calibration)) return;
    refusal_ = Refusal{type_, *error_};
    type_ = next_wider(type_, tensor.ref.dtype);
    scales_ = {}, integers_ = {}, error_.reset();
  }
}

void StoredForm::round(const Calibration* calibration) {
  if (calibration != nullptr) {
    auto made =
        quantise_compensated(calibration->context, tensor_->ref, type_, calibration->moments);
    if (made) {
      scales_ = std::move(made->scales), integers_ = std::move(made->integers);
      error_ = made->error;
      return;
    }
  }
  scales_ = quantisation_scales(tensor_->ref, type_, &error_.emplace());
}

std::vector<int64_t> StoredForm::shape() const {
  if (type_ != DType::i4) return tensor_->rule.shape;
  return {tensor_->ref.out, row_bytes(type_, tensor_->ref.in)};
}

std::vector<int64_t> StoredForm::scale_shape() const {
  if (type_ == DType::i8) return {tensor_->ref.out};
  return {tensor_->ref.out, int4_groups(tensor_->ref.in)};
}

void StoredForm::write_scales(std::span<std::byte> out) const {
  const std::byte* from = error_ ? scales_.data() : tensor_->ref.scales;
  std::memcpy(out.data(), from, out.size());
}

// Widening is exact, f32_to_bf16 rounds to nearest even.
void StoredForm::write(std::span<std::byte> out) const {
  const WeightRef& ref = tensor_->ref;
  if (integers_.size() > 0) {
    std::memcpy(out.data(), integers_.data(), out.size());
    return;
  }
  if (error_) return quantise(ref, type_, scales_.data(), out.data());
  std::byte* to = out.data();
  const int64_t bytes = row_bytes(type_, ref.in);
  const bool same = ref.dtype == type_;
  PALI_ASSERT(same || type_ == DType::f32 || type_ == DType::bf16);
  for (int64_t o = 0; o < ref.out; ++o, to += bytes) {
    if (same && ref.rows_contiguous()) {
      std::memcpy(to, ref.row(o), static_cast<size_t>(bytes));
      continue;
    }
    for (int64_t i = 0; i < ref.in; ++i) {
      if (same) {  // [in, out] files; quantised rows are contiguous
        const int64_t size = dtype_bytes(type_);
        std::memcpy(to + i * size, ref.row(o) + i * ref.in_stride * size,
                    static_cast<size_t>(size));
        continue;
      }
      const float value = ref.at(o, i);
      if (type_ == DType::f32) {
        std::memcpy(to + i * 4, &value, 4);
      } else {
        const uint16_t bits = f32_to_bf16(value);
        std::memcpy(to + i * 2, &bits, 2);
      }
    }
  }
}

}  // namespace pali
