// Rounding to int8 and int4, and products with the result: every backend and tier against the
// dequantised weights in double; the same bits at any thread count.
#include "matmul/quantise.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "support/expect_error.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

using test::Layout;
using test::TestMatrix;
using test::TestWeight;

// A weight quantised into memory of its own, at odd addresses.
class Quantised {
 public:
  Quantised(const WeightRef& source, DType type) {
    scales_ = quantisation_scales(source, type, &error);
    const int64_t bytes = source.out * row_bytes(type, source.in);
    memory_.resize(static_cast<size_t>(bytes + scales_.size() + 3), std::byte{0xa5});
    quantise(source, type, scales_.data(), memory_.data() + 1);
    EXPECT_EQ(memory_[static_cast<size_t>(bytes) + 1], std::byte{0xa5}) << "wrote too far";
    std::memcpy(memory_.data() + bytes + 2, scales_.data(), static_cast<size_t>(scales_.size()));
    ref = {.name = "quantised",
           .dtype = type,
           .out = source.out,
           .in = source.in,
           .out_stride = source.in,
           .data = memory_.data() + 1,
           .scales = memory_.data() + bytes + 2};
  }
  WeightRef ref;
  QuantisationError error;

 private:
  AlignedBuffer<std::byte> scales_;
  std::vector<std::byte> memory_;
};

TEST(Quantise, Int8ErrsByHalfAStepOfItsRow) {
  for (const Layout layout : {Layout::out_in, Layout::in_out}) {
    for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
      const TestWeight weight(type, 9, 45, layout, 3, 2, 1);
      const Quantised made(weight.ref(), DType::i8);
      for (int64_t o = 0; o < 9; ++o) {
        float most = 0;
        for (int64_t i = 0; i < 45; ++i) most = std::max(most, std::abs(weight.ref().at(o, i)));
        for (int64_t i = 0; i < 45; ++i) {
          EXPECT_NEAR(made.ref.at(o, i), weight.ref().at(o, i), most / 127 * 0.50001f);
        }
      }
    }
  }
}

TEST(Quantise, Int4ErrsByLittleMoreThanAStepAndBeatsPlainRounding) {
  for (const int64_t in : {1, 2, 15, 31, 32, 33, 63, 64, 95}) {
    const TestWeight weight(DType::f32, 40, in, Layout::out_in, 1, 4, 2);
    const Quantised made(weight.ref(), DType::i4);
    double squares = 0, plain = 0;
    for (int64_t o = 0; o < 40; ++o) {
      for (int64_t first = 0; first < in; first += 32) {
        float most = 0;
        const int64_t end = std::min(first + 32, in);
        for (int64_t i = first; i < end; ++i) {
          most = std::max(most, std::abs(weight.ref().at(o, i)));
        }
        for (int64_t i = first; i < end; ++i) {
          const float w = weight.ref().at(o, i), step = most / 7;
          const float miss = made.ref.at(o, i) - w;
          // A scale of most / 7 at best side; clipping by the other candidates stays below 2 / 9.
          EXPECT_LE(std::abs(miss), most * (2.0f / 9) * 1.001f) << in << " " << o << "," << i;
          squares += double{miss} * miss;
          const double rounded = std::nearbyint(w / step) * step - w;
          plain += rounded * rounded;
        }
      }
    }
    if (in >= 15) {
      EXPECT_LT(squares, plain) << in;
    }
  }
}

// models/FORMAT.md: byte j of a group holds w[j] and w[j + 16], each plus 8.
TEST(Quantise, NibblesLieWhereTheFormatSays) {
  std::vector<float> values(35);
  for (int i = 0; i < 35; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i % 16 - 8);
  WeightRef ref = {.name = "w", .out = 1, .in = 35, .out_stride = 35};
  ref.data = reinterpret_cast<const std::byte*>(values.data());
  const Quantised made(ref, DType::i4);
  EXPECT_EQ(made.error.rms, 0);
  EXPECT_EQ(made.error.max, 0);
  for (int j = 0; j < 16; ++j) EXPECT_EQ(std::to_integer<int>(made.ref.data[j]), j * 17) << j;
  // The last group has three values, -8, -7, -6: two bytes.
  EXPECT_EQ(std::to_integer<int>(made.ref.data[16]) & 15, 0);
  EXPECT_EQ(std::to_integer<int>(made.ref.data[17]) >> 4, 8) << "no value: zero";
  for (int i = 0; i < 35; ++i) EXPECT_EQ(made.ref.at(0, i), values[static_cast<size_t>(i)]);
}

TEST(Quantise, ZerosAndWhatCannotBeRounded) {
  std::vector<float> values(64, 0.0f);
  WeightRef ref = {.name = "w", .out = 2, .in = 32, .out_stride = 32};
  ref.data = reinterpret_cast<const std::byte*>(values.data());
  for (const DType type : {DType::i8, DType::i4}) {
    const Quantised made(ref, type);
    EXPECT_EQ(made.error.rms, 0);
    EXPECT_EQ(made.ref.at(1, 31), 0.0f);
  }
  values[40] = 1e6f;
  test::expect_error(ErrorCode::unsupported, {"'w'", "row 1", "int8"},
                     [&] { quantisation_scales(ref, DType::i4, nullptr); });
  EXPECT_NEAR(Quantised(ref, DType::i8).ref.at(1, 8), 1e6f, 1.0f);
  for (const float bad : {std::numeric_limits<float>::infinity(), NAN}) {
    values[40] = bad;
    for (const DType type : {DType::i8, DType::i4}) {
      test::expect_error(ErrorCode::corrupt_file, {"'w'", "finite", "row 1"},
                         [&] { quantisation_scales(ref, type, nullptr); });
    }
  }
}

// The weights that a product in bf16 sees: int8 exactly, int4 times its scale as bf16.
class RoundedWeights {
 public:
  explicit RoundedWeights(const WeightRef& source) : ref(source) {
    if (source.dtype != DType::i4) return;
    for (int64_t o = 0; o < source.out; ++o) {
      for (int64_t i = 0; i < source.in; ++i) values_.push_back(f32_to_bf16(source.at(o, i)));
    }
    ref.dtype = DType::bf16;
    ref.scales = nullptr;
    ref.data = reinterpret_cast<const std::byte*>(values_.data());
  }
  WeightRef ref;

 private:
  std::vector<uint16_t> values_;
};

struct Shape {
  int64_t m, n, k;
};

std::vector<Shape> shapes() {
  std::vector<Shape> all = {{9, 130, 300}, {40, 65, 2100}, {8, 70, 128}, {600, 3, 40}};
  for (int64_t size = 1; size <= 33; ++size) all.push_back({1 + size % 11, 34 - size, size});
  return all;
}

// As `expected`, the same bits at two numbers of threads, and nothing else written.
void check(const WeightRef& weight, ConstMat x, const MatmulPolicy& policy,
           const test::Expected& expected) {
  static ThreadPool one(1), three(3);
  const KernelTable kernels = kernel_table(policy.isa);
  const auto linear = pack_linear(weight, policy);
  TestMatrix y(x.rows, weight.out, 5, 8), again(x.rows, weight.out, 5, 9);
  linear->run({one, kernels}, x, y.view());
  linear->run({three, kernels}, x, again.view());
  ASSERT_EQ(test::mismatch(expected, y.view()), "")
      << isa_name(policy.isa) << " " << linear->backend() << " " << dtype_name(weight.dtype) << " "
      << x.rows << "x" << weight.out << "x" << weight.in;
  ASSERT_TRUE(y.padding_intact());
  for (int64_t m = 0; m < x.rows; ++m) {
    ASSERT_EQ(
        0, std::memcmp(y.view().row(m), again.view().row(m), static_cast<size_t>(weight.out) * 4));
  }
}

TEST(QuantisedProduct, EveryBackendMeetsTheDequantisedWeights) {
  for (const Shape& shape : shapes()) {
    const TestWeight weight(DType::f32, shape.n, shape.k, Layout::out_in, 0, 0, 5);
    for (const DType type : {DType::i8, DType::i4}) {
      const Quantised made(weight.ref(), type);
      TestMatrix x(shape.m, shape.k, 3, 7);
      const test::Expected expected = test::expected_product(made.ref, x.view(), {}, false);
      for (const IsaTier& tier : isa_tiers()) {
        if (!tier.available) continue;
        for (const MatmulBackend backend : {MatmulBackend::native, MatmulBackend::automatic,
                                            MatmulBackend::onednn, MatmulBackend::reference}) {
          check(made.ref, x.view(), {backend, ComputeType::f32, tier.isa}, expected);
        }
      }
    }
  }
}

// Few rows, which stream the weights, see the activations that many do.
TEST(QuantisedProduct, Bf16RoundsActivationsOnTiles) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const bool rounded = kernel_table(tier.isa).fused_bf16.multiply != nullptr;
    for (const Shape& shape : shapes()) {
      const TestWeight weight(DType::f32, shape.n, shape.k, Layout::out_in, 0, 0, 5);
      for (const DType type : {DType::i8, DType::i4}) {
        const Quantised made(weight.ref(), type);
        TestMatrix x(shape.m, shape.k, 3, 7);
        const RoundedWeights seen(made.ref);
        const bool streamed = shape.m <= 8;
        const test::Expected expected = test::expected_product(
            rounded && !streamed ? seen.ref : made.ref, x.view(), {}, rounded);
        check(made.ref, x.view(), {MatmulBackend::native, ComputeType::bf16, tier.isa}, expected);
      }
    }
  }
}

// Few rows, which stream W, and many are rounded alike: the same bits on every tier, whatever the
// threads and the company, epilogues apart.
class IntegerProduct : public testing::TestWithParam<ComputeType> {
 protected:
  bool int8() const { return GetParam() == ComputeType::int8; }
  const IntegerKernels& of(const KernelTable& table) const {
    return int8() ? table.int8 : table.int16;
  }
};
INSTANTIATE_TEST_SUITE_P(, IntegerProduct, testing::Values(ComputeType::int8, ComputeType::int16),
                         [](const auto& test) {
                           return test.param == ComputeType::int8 ? "int8" : "int16";
                         });

TEST_P(IntegerProduct, RoundsRowsAlikeOnEveryTier) {
  ThreadPool one(1), three(3);
  for (const Shape& shape : {Shape{9, 130, 300}, {40, 65, 2100}, {8, 70, 128}, {600, 3, 4200}}) {
    const TestWeight weight(DType::f32, shape.n, shape.k, Layout::out_in, 0, 0, 5);
    const Quantised made(weight.ref(), DType::i8);
    TestMatrix x(shape.m, shape.k, 3, 7), oracle(shape.m, shape.n, 2, 8);
    const MatmulPolicy policy = {MatmulBackend::automatic, GetParam(), Isa::scalar};
    pack_linear(made.ref, policy)->run({one, kernel_table(Isa::scalar)}, x.view(), oracle.view());
    const test::Expected unrounded = test::expected_product(made.ref, x.view(), {}, false);
    EXPECT_NE(test::mismatch(unrounded, oracle.view()), "");
    const auto expect_oracle = [&](ConstMat y, int64_t first, const char* tier) {
      for (int64_t m = 0; m < y.rows; ++m) {
        ASSERT_EQ(0, std::memcmp(y.row(m), oracle.view().row(first + m),
                                 static_cast<size_t>(shape.n) * 4))
            << tier << " row " << m;
      }
    };
    for (const IsaTier& tier : isa_tiers()) {
      if (!tier.available) continue;
      const KernelTable kernels = kernel_table(tier.isa);
      const auto linear = pack_linear(made.ref, {MatmulBackend::automatic, GetParam(), tier.isa});
      for (ThreadPool* pool : {&one, &three}) {
        TestMatrix y(shape.m, shape.n, 5, 9), few(3, shape.n, 5, 9);
        linear->run({*pool, kernels}, x.view(), y.view());
        ASSERT_TRUE(y.padding_intact());
        expect_oracle(y.view(), 0, tier.name);
        linear->run({*pool, kernels}, x.view().rows_from(2, 3), few.view());
        ASSERT_TRUE(few.padding_intact());
        expect_oracle(few.view(), 2, tier.name);
      }
    }
  }
}

// int4: each group of x by half a step at most, few rows as many but for the order of their sums;
// many have the same bits on every tier that multiplies them so.
TEST_P(IntegerProduct, RoundsRowsBesideInt4) {
  const double most_integer = int8() ? 127 : 32767;
  ThreadPool one(1), three(3);
  for (const Shape& shape :
       {Shape{1, 130, 300}, {8, 70, 31}, {9, 130, 300}, {40, 65, 2100}, {600, 3, 4200}}) {
    const TestWeight weight(DType::f32, shape.n, shape.k, Layout::out_in, 0, 0, 5);
    const Quantised made(weight.ref(), DType::i4);
    TestMatrix x(shape.m, shape.k, 3, 7), oracle(shape.m, shape.n, 2, 8);
    const test::Expected exact = test::expected_product(made.ref, x.view(), {}, false);
    const bool many = shape.m > 8;
    for (const IsaTier& tier : isa_tiers()) {
      if (!tier.available) continue;
      const KernelTable kernels = kernel_table(tier.isa);
      if (many && of(kernels).by_int4.multiply == nullptr) continue;
      const auto linear = pack_linear(made.ref, {MatmulBackend::automatic, GetParam(), tier.isa});
      TestMatrix y(shape.m, shape.n, 5, 9), again(shape.m, shape.n, 5, 9);
      TestMatrix few(1, shape.n, 5, 9);
      linear->run({one, kernels}, x.view(), y.view());
      linear->run({three, kernels}, x.view(), again.view());
      linear->run({one, kernels}, x.view().rows_from(shape.m - 1, 1), few.view());
      if (tier.isa == Isa::scalar) linear->run({one, kernels}, x.view(), oracle.view());
      ASSERT_TRUE(y.padding_intact());
      EXPECT_NE(test::mismatch(exact, y.view()), "") << tier.name;
      for (int64_t m = 0; m < shape.m; ++m) {
        const size_t bytes = static_cast<size_t>(shape.n) * 4;
        ASSERT_EQ(0, std::memcmp(y.view().row(m), again.view().row(m), bytes));
        if (many) {
          ASSERT_EQ(0, std::memcmp(y.view().row(m), oracle.view().row(m), bytes)) << tier.name;
        }
        for (int64_t n = 0; n < shape.n; ++n) {
          double expected = 0, step = 0, magnitude = 0;
          for (int64_t first = 0; first < shape.k; first += kIntegerGroup) {
            const int64_t end = std::min(first + kIntegerGroup, shape.k);
            double most = 0, weights = 0;
            for (int64_t k = first; k < end; ++k) {
              const double term = double{x.view().row(m)[k]} * made.ref.at(n, k);
              expected += term, magnitude += std::abs(term);
              most = std::max(most, std::abs(double{x.view().row(m)[k]}));
              weights += std::abs(double{made.ref.at(n, k)});
            }
            step += most / (2 * most_integer) * weights;
          }
          const float value = y.view().row(m)[n];
          // Roundings of a term: eight groups of W, those of x, lanes and scales.
          const double groups = std::ceil(static_cast<double>(shape.k) / kIntegerGroup);
          const double roundings = (8 + groups + 4) * 0x1p-24 * (magnitude + step);
          ASSERT_NEAR(value, expected, step * 1.0001 + roundings) << tier.name;
          if (m + 1 < shape.m) continue;
          ASSERT_NEAR(value, few.view().row(0)[n], 2 * roundings) << tier.name;
        }
      }
    }
  }
}

// Weights that a quantised checkpoint keeps wider, and on tiles int4 beside many rows, are not the
// integer kernels'.
TEST(QuantisedProduct, OtherWeightsUnderIntegersAreRoundedNoFurtherThanBf16) {
  ThreadPool pool(2);
  const TestWeight floats(DType::f32, 40, 70, Layout::out_in, 0, 0, 5);
  const TestWeight halves(DType::bf16, 40, 70, Layout::out_in, 0, 0, 5);
  const Quantised nibbles(floats.ref(), DType::i4);
  TestMatrix x(20, 70, 3, 7);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    const bool tiles = kernels.fused_bf16.multiply != nullptr;
    EXPECT_EQ(kernels.int8.by_int4.multiply == nullptr, tiles) << tier.name;
    std::vector<WeightRef> weights = {floats.ref(), halves.ref()};
    if (tiles) weights.push_back(nibbles.ref);
    for (const WeightRef& weight : weights) {
      const RoundedWeights seen(weight);
      const bool rounded = tiles && weight.dtype != DType::f32;
      const test::Expected expected =
          test::expected_product(rounded ? seen.ref : weight, x.view(), {}, rounded);
      check(weight, x.view(), {MatmulBackend::native, ComputeType::int8, tier.isa}, expected);
      if (weight.dtype == DType::i4) continue;  // int16 has a kernel on every tier
      check(weight, x.view(), {MatmulBackend::native, ComputeType::int16, tier.isa},
            test::expected_product(weight, x.view(), {}, false));
    }
  }
}

TEST(QuantisedProduct, OneDnnDeclines) {
  const TestWeight weight(DType::f32, 4, 40, Layout::out_in, 0, 0, 5);
  const Quantised made(weight.ref(), DType::i8);
  std::map<std::string, int64_t> declined;
  Isa best = Isa::scalar;
  for (const IsaTier& tier : isa_tiers()) best = tier.available ? tier.isa : best;
  MatmulPolicy policy{MatmulBackend::onednn, ComputeType::f32, best};
  policy.declined = &declined;
  for (const int64_t times : {1, 2}) {
    EXPECT_EQ(pack_linear(made.ref, policy)->backend(), "native");
    ASSERT_EQ(declined.size(), 1u);
    EXPECT_EQ(declined.begin()->second, times);
  }
  policy.backend = MatmulBackend::native;  // is not asked
  pack_linear(made.ref, policy);
  EXPECT_EQ(declined.begin()->second, 2);
}

// The integers, and so the sums, are native's; scales are multiplied in with more roundings.
TEST(QuantisedProduct, OneDnnInInt8IsNative) {
  Isa best = Isa::scalar;
  for (const IsaTier& tier : isa_tiers()) best = tier.available ? tier.isa : best;
  if (!onednn_built() || best < Isa::avx512_vnni) GTEST_SKIP() << "no exact int8 of oneDNN here";
  ThreadPool pool(2);
  const KernelTable kernels = kernel_table(best);
  for (const Shape& shape : {Shape{9, 130, 300}, {40, 300, 700}, {1, 257, 256}, {33, 5, 17}}) {
    const TestWeight weight(DType::f32, shape.n, shape.k, Layout::out_in, 0, 0, 5);
    const Quantised made(weight.ref(), DType::i8);
    TestMatrix x(shape.m, shape.k, 3, 7), native(shape.m, shape.n, 5, 8);
    if (shape.m > 9) x.view().row(3)[2] = std::numeric_limits<float>::infinity();
    if (shape.m > 9) std::fill_n(x.view().row(4), shape.k, 0.0f);
    const MatmulPolicy policy{MatmulBackend::native, ComputeType::int8, best};
    pack_linear(made.ref, policy)->run({pool, kernels}, x.view(), native.view());
    for (const bool prepack : {false, true}) {
      MatmulPolicy other{MatmulBackend::onednn, ComputeType::int8, best};
      other.prepack = prepack;
      const auto linear = pack_linear(made.ref, other);
      ASSERT_EQ(linear->backend(), "onednn");
      TestMatrix y(shape.m, shape.n, 5, 9);
      linear->run({pool, kernels}, x.view(), y.view());
      EXPECT_TRUE(y.padding_intact());
      for (int64_t m = 0; m < shape.m; ++m) {
        const float* const wanted = native.view().row(m);
        float largest = 0;
        for (int64_t n = 0; n < shape.n; ++n) largest = std::max(largest, std::fabs(wanted[n]));
        for (int64_t n = 0; n < shape.n; ++n) {
          if (std::isnan(wanted[n])) {
            EXPECT_TRUE(std::isnan(y.view().row(m)[n]));
          } else {
            EXPECT_NEAR(y.view().row(m)[n], wanted[n], 8 * 0x1p-24f * largest) << m << ", " << n;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pali
