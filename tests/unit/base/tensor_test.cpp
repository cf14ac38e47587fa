// Views and owners of activations.
#include "base/tensor.hpp"

#include <gtest/gtest.h>

#include "pali/error.hpp"

namespace pali {
namespace {

TEST(MatView, PartsKeepTheStride) {
  float values[24];
  for (int i = 0; i < 24; ++i) values[i] = static_cast<float>(i);
  const Mat whole(values, 3, 5, 8);
  EXPECT_EQ(whole.row(2)[4], 20.0f);
  const ConstMat lower = whole.rows_from(1, 2);
  EXPECT_EQ(lower.rows, 2);
  EXPECT_EQ(lower.row(1)[0], 16.0f);
  const Mat right = whole.cols_from(3, 2);
  EXPECT_EQ(right.cols, 2);
  EXPECT_EQ(right.row(1)[1], 12.0f);
  EXPECT_EQ(whole.row_span(0).size(), 5u);
  EXPECT_TRUE(Mat().empty());
}

TEST(AlignedBuffer, IsAlignedAtEverySize) {
  for (const int64_t size : {1, 3, 16, 17, 1000}) {
    const AlignedBuffer<float> buffer(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.size(), size);
  }
  AlignedBuffer<float> first(5);
  const float* data = first.data();
  AlignedBuffer<float> second = std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(first.size(), 0);  // NOLINT: what is moved from is empty
  first = std::move(second);
  EXPECT_EQ(first.data(), data);
  EXPECT_EQ(second.size(), 0);  // NOLINT
  EXPECT_EQ(AlignedBuffer<float>(0).data(), nullptr);
  EXPECT_THROW(AlignedBuffer<float>(-1), Error);
}

}  // namespace
}  // namespace pali
