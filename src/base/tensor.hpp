// Activations: a borrowed view of a row-major matrix, and its owner.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "base/assert.hpp"

namespace pali {

// rows x cols, row-major; consecutive rows lie `stride` elements apart, the last dimension is
// contiguous. Borrows; as cheap to copy as a pointer.
template <class T>
struct MatView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  MatView() = default;
  MatView(T* first, int64_t row_count, int64_t col_count, int64_t row_stride)
      : data(first), rows(row_count), cols(col_count), stride(row_stride) {}
  MatView(T* first, int64_t row_count, int64_t col_count)
      : MatView(first, row_count, col_count, col_count) {}
  // A view of mutable elements serves where a view of const ones is asked for.
  template <class U>
  requires(std::is_const_v<T>&& std::is_same_v<U, std::remove_const_t<T>>)
      MatView(const MatView<U>& other)  // NOLINT: implicit on purpose
      : MatView(other.data, other.rows, other.cols, other.stride) {}

  bool empty() const { return data == nullptr; }
  T* row(int64_t i) const { return data + i * stride; }
  std::span<T> row_span(int64_t i) const { return {row(i), static_cast<size_t>(cols)}; }
  MatView rows_from(int64_t first, int64_t count) const {
    return {data + first * stride, count, cols, stride};
  }
  MatView cols_from(int64_t first, int64_t count) const {
    return {data + first, rows, count, stride};
  }
};

using ConstMat = MatView<const float>;
using Mat = MatView<float>;

// 64-byte aligned memory of trivially copyable elements; not initialised.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t size) : size_(size) {
    PALI_ASSERT(size >= 0);
    if (size == 0) return;
    const size_t bytes = (static_cast<size_t>(size) * sizeof(T) + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw std::bad_alloc();
  }
  // Moved from, it is empty.
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  T* data() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
  int64_t size_ = 0;
};

// Floats from one row of a matrix of ours to the next: whole lines of 64 bytes, and one more where
// rows were a multiple of a page apart, since those share the same few lines of the L1 cache.
constexpr int64_t row_stride(int64_t cols) {
  const int64_t stride = (cols + 15) / 16 * 16;
  return stride % 1024 == 0 ? stride + 16 : stride;
}

// Owns a rows x cols matrix of f32, its rows on 64-byte borders, row_stride(cols) apart.
class Tensor {
 public:
  Tensor() = default;
  Tensor(int64_t rows, int64_t cols)
      : rows_(rows), cols_(cols), stride_(row_stride(cols)), buffer_(rows * stride_) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  bool empty() const { return buffer_.size() == 0; }
  float* row(int64_t i) const { return buffer_.data() + i * stride_; }
  Mat view() { return {buffer_.data(), rows_, cols_, stride_}; }
  ConstMat view() const { return {buffer_.data(), rows_, cols_, stride_}; }
  // The first `rows` rows: one allocation serves a shrinking batch.
  Mat top(int64_t rows) { return view().rows_from(0, rows); }
  ConstMat top(int64_t rows) const { return view().rows_from(0, rows); }

 private:
  int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  AlignedBuffer<float> buffer_;
};

}  // namespace pali
