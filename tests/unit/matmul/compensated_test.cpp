// Rounding that knows its activations: what products miss, against plain rounding and in double.
#include "matmul/compensated.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "matmul/moments.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

using test::Layout;
using test::TestMatrix;
using test::TestWeight;

const KernelTable kKernels = kernel_table(resolve_isa(Isa::best));

// A few directions and some noise, as activations are.
Tensor correlated(int64_t rows, int64_t cols) {
  constexpr int64_t kDirections = 6;
  TestMatrix directions(kDirections, cols, 0, 21), shares(rows, kDirections, 0, 22);
  TestMatrix noise(rows, cols, 0, 23);
  Tensor x(rows, cols);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t i = 0; i < cols; ++i) {
      float sum = 0.2f * noise.view().row(m)[i];
      for (int64_t d = 0; d < kDirections; ++d) {
        sum += shares.view().row(m)[d] * directions.view().row(d)[i];
      }
      x.row(m)[i] = sum;
    }
  }
  return x;
}

WeightRef made_ref(const WeightRef& source, DType type, const std::byte* integers,
                   const std::byte* scales) {
  return {.name = source.name,
          .dtype = type,
          .out = source.out,
          .in = source.in,
          .out_stride = source.in,
          .data = integers,
          .scales = scales};
}

// sqrt(sum (x (q - w))^2 / sum (x w)^2).
double product_error(ConstMat x, const WeightRef& w, const WeightRef& q) {
  double missed = 0, squares = 0;
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t o = 0; o < w.out; ++o) {
      double value = 0, miss = 0;
      for (int64_t i = 0; i < w.in; ++i) {
        value += double{x.row(m)[i]} * w.at(o, i);
        miss += double{x.row(m)[i]} * (double{q.at(o, i)} - w.at(o, i));
      }
      squares += value * value, missed += miss * miss;
    }
  }
  return std::sqrt(missed / squares);
}

TEST(ActivationMoments, AreTheSumOfOuterProductsHoweverTheRowsCome) {
  ThreadPool pool(2);
  const Context context{pool, kKernels};
  const int64_t width = 45;
  TestMatrix x(600, width, 3, 5);
  for (const std::vector<int64_t>& parts :
       {std::vector<int64_t>{600}, {1, 7, 300, 292}, {256, 256, 88}}) {
    ActivationMoments moments(width);
    int64_t first = 0;
    for (const int64_t rows : parts) {
      moments.add(context, ConstMat(x.view()).rows_from(first, rows));
      first += rows;
      moments.sum(context);  // looking changes nothing
    }
    const ConstMat sum = moments.sum(context);
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        double expected = 0, size = 0;
        for (int64_t m = 0; m < 600; ++m) {
          const double term = double{x.view().row(m)[i]} * x.view().row(m)[j];
          expected += term, size += std::abs(term);
        }
        EXPECT_NEAR(sum.row(i)[j], expected, size * 8 * 0x1p-24) << i << "," << j;
      }
    }
  }
}

TEST(Compensated, WithoutCorrelationNothingIsMadeUpFor) {
  ThreadPool pool(1);
  const int64_t in = 70;
  Tensor moments(in, in);
  for (int64_t i = 0; i < in; ++i) {
    for (int64_t j = 0; j < in; ++j) moments.row(i)[j] = i == j ? 4.0f : 0.0f;
  }
  const TestWeight weight(DType::f32, 37, in, Layout::out_in, 1, 0, 3);
  for (const DType type : {DType::i8, DType::i4}) {
    const auto made = quantise_compensated(Context{pool, kKernels}, weight.ref(), type,
                                           std::as_const(moments).view());
    ASSERT_TRUE(made);
    QuantisationError error;
    const AlignedBuffer<std::byte> scales = quantisation_scales(weight.ref(), type, &error);
    AlignedBuffer<std::byte> integers(37 * row_bytes(type, in));
    quantise(weight.ref(), type, scales.data(), integers.data());
    ASSERT_EQ(made->scales.size(), scales.size());
    EXPECT_EQ(std::memcmp(made->scales.data(), scales.data(), static_cast<size_t>(scales.size())),
              0);
    EXPECT_EQ(
        std::memcmp(made->integers.data(), integers.data(), static_cast<size_t>(integers.size())),
        0);
    EXPECT_NEAR(made->error.rms, error.rms, error.rms * 1e-4);
    EXPECT_NEAR(made->error.products, error.rms, error.rms * 1e-4);
    EXPECT_NEAR(made->error.max, error.max, error.max * 1e-4);
  }
}

TEST(Compensated, ProductsErrLessThanByPlainRounding) {
  ThreadPool pool(2);
  const Context context{pool, kKernels};
  for (const int64_t in : {31, 64, 100}) {
    const Tensor x = correlated(400, in);
    ActivationMoments moments(in);
    moments.add(context, x.view());
    for (const DType own : {DType::f32, DType::bf16}) {
      for (const Layout layout : {Layout::out_in, Layout::in_out}) {
        const TestWeight weight(own, 33, in, layout, 2, 2, 4);
        for (const DType type : {DType::i8, DType::i4}) {
          const auto made = quantise_compensated(context, weight.ref(), type, moments.sum(context));
          ASSERT_TRUE(made);
          const WeightRef q =
              made_ref(weight.ref(), type, made->integers.data(), made->scales.data());
          const double missed = product_error(x.view(), weight.ref(), q);
          EXPECT_NEAR(made->error.products, missed, 0.01 * missed);
          QuantisationError error;
          const AlignedBuffer<std::byte> scales = quantisation_scales(weight.ref(), type, &error);
          AlignedBuffer<std::byte> integers(33 * row_bytes(type, in));
          quantise(weight.ref(), type, scales.data(), integers.data());
          const double plain = product_error(
              x.view(), weight.ref(), made_ref(weight.ref(), type, integers.data(), scales.data()));
          EXPECT_LT(missed, 0.7 * plain) << in << " " << weight_name(type);
          EXPECT_GE(made->error.rms, error.rms) << "the weights themselves pay";
        }
      }
    }
  }
}

TEST(Compensated, SameBitsAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  const Context context{one, kKernels};
  const Tensor x = correlated(200, 96);
  ActivationMoments moments(96);
  moments.add(context, x.view());
  const TestWeight weight(DType::f32, 130, 96, Layout::out_in, 0, 0, 6);
  for (const DType type : {DType::i8, DType::i4}) {
    const auto a = quantise_compensated(context, weight.ref(), type, moments.sum(context));
    const auto b =
        quantise_compensated(Context{three, kKernels}, weight.ref(), type, moments.sum(context));
    ASSERT_TRUE(a && b);
    EXPECT_EQ(std::memcmp(a->integers.data(), b->integers.data(),
                          static_cast<size_t>(a->integers.size())),
              0);
    EXPECT_EQ(
        std::memcmp(a->scales.data(), b->scales.data(), static_cast<size_t>(a->scales.size())), 0);
    EXPECT_EQ(a->error.products, b->error.products);
  }
}

TEST(Compensated, MomentsThatAreNoBase) {
  ThreadPool pool(1);
  const TestWeight weight(DType::f32, 5, 40, Layout::out_in, 0, 0, 7);
  Tensor moments(40, 40);
  for (const float value : {0.0f, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(), -1.0f}) {
    for (int64_t i = 0; i < 40; ++i) {
      for (int64_t j = 0; j < 40; ++j) moments.row(i)[j] = value;
    }
    EXPECT_FALSE(quantise_compensated(Context{pool, kKernels}, weight.ref(), DType::i4,
                                      std::as_const(moments).view()))
        << value;
  }
}

// Features that no activation has, and one activation alone.
TEST(Compensated, FewActivationsAreABase) {
  ThreadPool pool(1);
  const Context context{pool, kKernels};
  Tensor x(1, 40);
  for (int64_t i = 0; i < 40; ++i) x.row(0)[i] = i < 8 ? 1.0f : 0.0f;
  ActivationMoments moments(40);
  moments.add(context, x.view());
  const TestWeight weight(DType::f32, 5, 40, Layout::out_in, 0, 0, 8);
  const auto made = quantise_compensated(context, weight.ref(), DType::i4, moments.sum(context));
  ASSERT_TRUE(made);
  const WeightRef q = made_ref(weight.ref(), DType::i4, made->integers.data(), made->scales.data());
  EXPECT_LT(product_error(x.view(), weight.ref(), q), 0.05);
}

class Seen final : public ActivationObserver {
 public:
  void see(const Context&, const std::string& weight, ConstMat x) override {
    names.push_back(weight);
    values.push_back(x.row(x.rows - 1)[x.cols - 1]);
  }
  std::vector<std::string> names;
  std::vector<float> values;
};

TEST(ActivationObserver, SeesEveryProductAndChangesNone) {
  ThreadPool pool(2);
  const Context context{pool, kKernels};
  for (const int64_t rows : {1, 5, 40}) {
    const TestWeight up(DType::bf16, 64, 48, Layout::out_in, 0, 0, 1);
    const TestWeight down(DType::bf16, 48, 64, Layout::out_in, 0, 0, 2);
    TestMatrix x(rows, 48, 0, 3), h(rows, 64, 0, 4), y(rows, 48, 0, 5);
    const auto run = [&](ActivationObserver* observer) {
      MatmulPolicy policy;
      policy.isa = resolve_isa(Isa::best);
      policy.observer = observer;
      const auto first = pack_linear(up.ref(), policy), last = pack_linear(down.ref(), policy);
      const Product one = {first.get(), h.view(), {}};
      run_chain(context, x.view(), {&one, 1}, {last.get(), y.view(), {}});
      std::vector<float> values;
      for (int64_t m = 0; m < rows; ++m) {
        values.insert(values.end(), y.view().row(m), y.view().row(m) + 48);
      }
      run_products(context, x.view(), {&one, 1});
      return values;
    };
    Seen seen;
    EXPECT_EQ(run(&seen), run(nullptr));
    EXPECT_EQ(seen.names.size(), 3u);
    const float last_x = x.view().row(rows - 1)[47], last_h = h.view().row(rows - 1)[63];
    EXPECT_EQ(seen.values, (std::vector<float>{last_x, last_h, last_x}));
  }
}

}  // namespace
}  // namespace pali
