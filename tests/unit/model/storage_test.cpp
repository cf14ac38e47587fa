// Which type a matrix is stored in: what was asked for, but for what its row of the provenance
// table refuses and for integers that err too much.
#include "model/storage.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "kernels/isa.hpp"

namespace pali {
namespace {

// 64 x 96 normal weights of deviation 0.1, the first of each row of `spike` instead.
class Matrix {
 public:
  Matrix(DType type, float spike, Precision least = Precision::any) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal(0.0f, 0.1f);
    for (int64_t o = 0; o < 64; ++o) {
      for (int64_t i = 0; i < 96; ++i) {
        const float value = i == 0 && spike > 0 ? spike : normal(random);
        const uint16_t half = type == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
        const auto bytes = type == DType::f32 ? std::as_bytes(std::span(&value, 1))
                                              : std::as_bytes(std::span(&half, 1));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
      }
    }
    tensor.rule.name = "w";
    tensor.rule.shape = {64, 96};
    tensor.rule.least = least;
    tensor.ref = {.name = "w", .dtype = type, .out = 64, .in = 96, .out_stride = 96};
    tensor.ref.data = bytes_.data();
  }
  BoundTensor tensor;

 private:
  std::vector<std::byte> bytes_;
};

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};

TEST(StoredForm, OrdinaryWeightsTakeTheTypeAskedFor) {
  for (const DType own : kFloats) {
    const Matrix matrix(own, 0);
    for (const DType wanted : {DType::i8, DType::i4, DType::bf16, DType::f32}) {
      const StoredForm form(matrix.tensor, wanted);
      EXPECT_EQ(form.type(), wanted);
      EXPECT_FALSE(form.refusal());
      EXPECT_EQ(form.error().has_value(), is_quantised(wanted));
    }
  }
}

// Of rows of 96, one weight of s deviations leaves an error of about s / 127 / sqrt(12) of a
// deviation in int8 and, of a group of 32, s / 16 / sqrt(12) in int4: 8 deviations are too many for
// int4, 30 for int8 too.
TEST(StoredForm, LargeWeightsAmongSmallOnesKeepAWiderType) {
  for (const DType own : kFloats) {
    const Matrix few(own, 0.8f), far(own, 3.0f);
    const StoredForm eight(few.tensor, DType::i4);
    EXPECT_EQ(eight.type(), DType::i8);
    ASSERT_TRUE(eight.error() && eight.refusal());
    EXPECT_LE(eight.error()->rms, kMostInt8Error);
    EXPECT_EQ(eight.refusal()->type, DType::i4);
    EXPECT_GT(eight.refusal()->error.rms, kMostInt4Error);
    EXPECT_EQ(StoredForm(few.tensor, DType::i8).type(), DType::i8);
    EXPECT_FALSE(StoredForm(few.tensor, DType::i8).refusal());
    for (const DType wanted : {DType::i8, DType::i4}) {
      const StoredForm wide(far.tensor, wanted);
      EXPECT_EQ(wide.type(), own == DType::f16 ? DType::f16 : DType::bf16);
      EXPECT_FALSE(wide.has_scales() || wide.error());
      ASSERT_TRUE(wide.refusal());
      EXPECT_EQ(wide.refusal()->type, DType::i8);
      EXPECT_GT(wide.refusal()->error.rms, kMostInt8Error);
      std::vector<std::byte> out(64 * 96 * 2);
      wide.write(out);
      for (int64_t i = 0; i < 64 * 96; ++i) {
        const float was = far.tensor.ref.at(i / 96, i % 96);
        const float expected = own == DType::f32 ? bf16_to_f32(f32_to_bf16(was)) : was;
        ASSERT_EQ(load_weight(out.data(), wide.type(), i), expected);
      }
    }
  }
}

// [in, out] files, as big_vision has them: what keeps its type keeps its bits.
TEST(StoredForm, TurnedWeightsKeepTheirValues) {
  for (const DType own : kFloats) {
    Matrix matrix(own, 0);
    WeightRef& ref = matrix.tensor.ref;
    ref.out = 96, ref.in = 64, ref.out_stride = 1, ref.in_stride = 96;
    matrix.tensor.rule.shape = {96, 64};
    matrix.tensor.rule.least = Precision::bf16;
    for (const auto wanted : {std::optional<DType>(), std::optional(DType::i8)}) {
      const StoredForm form(matrix.tensor, wanted);
      EXPECT_EQ(form.type(), own == DType::f32 && wanted ? DType::bf16 : own);
      std::vector<std::byte> out(static_cast<size_t>(96 * row_bytes(form.type(), 64)));
      form.write(out);
      for (int64_t i = 0; i < 96 * 64; ++i) {
        const float was = ref.at(i / 64, i % 64);
        const float expected = form.type() == own ? was : bf16_to_f32(f32_to_bf16(was));
        ASSERT_EQ(load_weight(out.data(), form.type(), i), expected) << dtype_name(own);
      }
    }
  }
}

TEST(StoredForm, TheTableRefusesWhateverItCosts) {
  const Matrix narrow(DType::f32, 0, Precision::bf16), half(DType::f16, 0, Precision::bf16);
  const Matrix vector(DType::f32, 0, Precision::f32), embed(DType::f32, 0, Precision::int8);
  for (const DType wanted : {DType::i8, DType::i4}) {
    const StoredForm bf16(narrow.tensor, wanted);
    EXPECT_EQ(bf16.type(), DType::bf16);
    ASSERT_TRUE(bf16.refusal());
    EXPECT_EQ(bf16.refusal()->type, wanted);
    EXPECT_EQ(bf16.refusal()->error.rms, 0);
    EXPECT_EQ(StoredForm(half.tensor, wanted).type(), DType::f16);
    const StoredForm f32(vector.tensor, wanted);
    EXPECT_EQ(f32.type(), DType::f32);
    EXPECT_FALSE(f32.refusal()) << "vectors and tables of biases are never integers";
  }
  const StoredForm int8(embed.tensor, DType::i4);
  EXPECT_EQ(int8.type(), DType::i8);
  EXPECT_TRUE(int8.error());
  EXPECT_EQ(int8.refusal()->type, DType::i4);
}

// Files of earlier versions hold some matrices in types that the table refuses now.
TEST(StoredForm, IntegersOfAnotherFileStay) {
  const Matrix source(DType::f32, 0);
  const StoredForm first(source.tensor, DType::i8);
  std::vector<std::byte> bytes(64 * 96), scales(64 * 4);
  first.write(bytes);
  first.write_scales(scales);
  for (const Precision least : {Precision::bf16, Precision::int8}) {
    BoundTensor tensor = source.tensor;
    tensor.rule.least = least;
    tensor.ref.dtype = DType::i8;
    tensor.ref.data = bytes.data();
    tensor.ref.scales = scales.data();
    for (const DType wanted : {DType::i8, DType::i4}) {
      const StoredForm again(tensor, wanted);
      ASSERT_EQ(again.type(), DType::i8);
      EXPECT_FALSE(again.error());
      std::vector<std::byte> copy(bytes.size()), copied_scales(scales.size());
      again.write(copy);
      again.write_scales(copied_scales);
      EXPECT_EQ(copy, bytes);
      EXPECT_EQ(copied_scales, scales);
    }
  }
}

TEST(StoredForm, CalibratedIntegersStayWhereTheirProductsServe) {
  const Matrix matrix(DType::f32, 0);
  ThreadPool pool(1);
  const Context context{pool, kernel_table(Isa::scalar)};
  Tensor moments(96, 96);
  for (int64_t i = 0; i < 96; ++i) {
    for (int64_t j = 0; j < 96; ++j) moments.row(i)[j] = i == j ? 2.0f : 1.0f;
  }
  Calibration calibration{context, std::as_const(moments).view(), 1.0};
  const StoredForm four(matrix.tensor, DType::i4, &calibration);
  EXPECT_EQ(four.type(), DType::i4);
  ASSERT_TRUE(four.error());
  EXPECT_GT(four.error()->products, 0);
  const auto made =
      quantise_compensated(context, matrix.tensor.ref, DType::i4, calibration.moments);
  std::vector<std::byte> integers(64 * 48), scales(64 * 3 * 2);
  four.write(integers);
  four.write_scales(scales);
  EXPECT_EQ(std::memcmp(integers.data(), made->integers.data(), integers.size()), 0);
  EXPECT_EQ(std::memcmp(scales.data(), made->scales.data(), scales.size()), 0);

  calibration.most_error = four.error()->products / 2;
  const StoredForm eight(matrix.tensor, DType::i4, &calibration);
  EXPECT_EQ(eight.type(), DType::i8);
  ASSERT_TRUE(eight.refusal());
  EXPECT_EQ(eight.refusal()->type, DType::i4);
  EXPECT_EQ(eight.refusal()->error.products, four.error()->products);
  EXPECT_LT(eight.error()->products, four.error()->products);
  calibration.most_error = eight.error()->products / 2;
  const StoredForm wide(matrix.tensor, DType::i4, &calibration);
  EXPECT_EQ(wide.type(), DType::bf16);
  EXPECT_EQ(wide.refusal()->error.products, eight.error()->products);
  calibration.most_error = 2 * eight.error()->products;

  // Moments that say nothing: plain rounding.
  for (int64_t i = 0; i < 96; ++i) std::fill_n(moments.row(i), 96, 0.0f);
  const StoredForm plain(matrix.tensor, DType::i4, &calibration);
  EXPECT_EQ(plain.type(), DType::i4);
  EXPECT_EQ(plain.error()->products, 0);
}

}  // namespace
}  // namespace pali
