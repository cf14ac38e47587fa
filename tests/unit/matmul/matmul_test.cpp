// Every backend, tier, weight type, layout and epilogue against the product in double; the same
// bits at any thread count.
#include "matmul/matmul.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "kernels/isa.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

using test::Layout;
using test::TestMatrix;
using test::TestWeight;

// Every way, and of those that pack panels the one that does so at load.
struct Backend {
  std::string name;
  MatmulPolicy policy;
  KernelTable kernels;
};

const std::vector<Backend>& backends() {
  static const std::vector<Backend> kAll = [] {
    std::vector<Backend> all;
    Isa best = Isa::scalar;
    for (const IsaTier& tier : isa_tiers()) {
      if (!tier.available) continue;
      best = tier.isa;
      for (const ComputeType compute : {ComputeType::f32, ComputeType::bf16}) {
        all.push_back(
            {std::string("native ") + tier.name + (compute == ComputeType::bf16 ? " bf16" : " f32"),
             {MatmulBackend::native, compute, tier.isa},
             kernel_table(tier.isa)});
      }
    }
    all.push_back(
        {"reference", {MatmulBackend::reference, ComputeType::f32, best}, kernel_table(best)});
    for (const MatmulBackend backend : {MatmulBackend::onednn, MatmulBackend::automatic}) {
      for (const ComputeType compute : {ComputeType::f32, ComputeType::bf16}) {
        all.push_back({std::string(backend == MatmulBackend::onednn ? "onednn" : "automatic") +
                           (compute == ComputeType::bf16 ? " bf16" : " f32"),
                       {backend, compute, best},
                       kernel_table(best)});
      }
    }
    for (size_t i = 0, plain = all.size(); i < plain; ++i) {
      Backend packed = all[i];
      packed.name += " prepacked";
      packed.policy.prepack = true;
      if (packed.policy.backend != MatmulBackend::reference) all.push_back(std::move(packed));
    }
    return all;
  }();
  return kAll;
}

bool rounds_activations(const Backend& backend, DType type) {
  return backend.policy.compute == ComputeType::bf16 && type == DType::bf16 &&
         backend.kernels.gemm_bf16.multiply != nullptr;
}

struct Shape {
  int64_t m, n, k;
};

// One product by every backend, against the oracle; padding read (NaN) or written shows.
void check(const TestWeight& weight, int64_t m, ThreadPool& pool) {
  const WeightRef& w = weight.ref();
  TestMatrix x(m, w.in, 3, 7);
  std::optional<test::Expected> expected[2];  // by "activations are rounded"
  for (const Backend& backend : backends()) {
    const bool rounded = rounds_activations(backend, w.dtype);
    if (!expected[rounded]) expected[rounded] = test::expected_product(w, x.view(), {}, rounded);
    TestMatrix y(m, w.out, 5, 8);
    const auto linear = pack_linear(w, backend.policy);
    linear->run({pool, backend.kernels}, x.view(), y.view());
    EXPECT_EQ(test::mismatch(*expected[rounded], y.view()), "")
        << backend.name << " as " << linear->backend() << " " << dtype_name(w.dtype) << " " << m
        << "x" << w.out << "x" << w.in << " strides " << w.out_stride << ", " << w.in_stride;
    EXPECT_TRUE(y.padding_intact()) << backend.name;
  }
}

void check_shapes(const std::vector<Shape>& shapes) {
  ThreadPool pool(1);
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const Shape& shape : shapes) {
      const TestWeight weight(type, shape.n, shape.k, Layout::out_in, 1, 0, 5);
      check(weight, shape.m, pool);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(Matmul, SmallShapes) {
  std::vector<Shape> shapes;
  for (int64_t i = 1; i <= 33; ++i) shapes.push_back({i, 34 - i, (i * 7) % 33 + 1});
  for (int64_t i = 1; i <= 33; ++i) shapes.push_back({(i * 5) % 33 + 1, i, i});
  check_shapes(shapes);
}

TEST(Matmul, AroundPowersOfTwo) {
  std::vector<Shape> shapes;
  for (const int64_t d : {-1, 0, 1}) {
    shapes.insert(shapes.end(), {{1, 64 + d, 256 + d},
                                 {8 + d, 128 + d, 512 + d},
                                 {16 + d, 32 + d, 1024 + d},
                                 {64 + d, 64 + d, 64 + d},
                                 {32 + d, 256 + d, 128 + d}});
  }
  check_shapes(shapes);
}

TEST(Matmul, SeveralBlocksOfK) { check_shapes({{13, 70, 2500}, {9, 130, 4097}, {3, 17, 5000}}); }

TEST(Matmul, ShapesOfRealLayersScaled) {
  check_shapes({{256, 96, 416},   // vision, 224 px
                {600, 160, 208},  // several blocks of rows
                {68, 512, 200},   // encoder MLP
                {1, 3001, 512},   // vocabulary
                {4, 640, 256}});  // beams
}

TEST(Matmul, StoredAsInOut) {
  ThreadPool pool(2);
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const Shape& shape : {Shape{1, 37, 65}, {8, 64, 33}, {40, 70, 129}, {3, 1, 1}}) {
      const TestWeight weight(type, shape.n, shape.k, Layout::in_out, 2, 0, 5);
      check(weight, shape.m, pool);
    }
  }
}

TEST(Matmul, WeightsAtAnyByte) {
  ThreadPool pool(2);
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t offset : {1, 2, 3, 4, 7, 31, 63}) {
      for (const int64_t m : {1, 5, 20}) {
        const TestWeight weight(type, 50, 67, Layout::out_in, 0, offset, 5);
        check(weight, m, pool);
      }
    }
  }
}

TEST(Matmul, EpiloguesInEveryCombination) {
  ThreadPool pool(2);
  for (const Backend& backend : backends()) {
    for (const DType type : {DType::f32, DType::bf16}) {
      for (const int64_t m : {2, 21}) {
        const TestWeight weight(type, 45, 24, Layout::out_in, 0, 0, 5);
        const auto linear = pack_linear(weight.ref(), backend.policy);
        TestMatrix x(m, 24, 0, 7), bias(1, 45, 0, 8), gate(m, 45, 2, 9), residual(m, 45, 1, 10);
        for (const Activation activation :
             {Activation::none, Activation::gelu_tanh, Activation::gelu_erf, Activation::quick_gelu,
              Activation::silu, Activation::relu}) {
          for (int mask = 0; mask < 8; ++mask) {
            Epilogue epilogue;
            epilogue.activation = activation;
            if ((mask & 1) != 0) epilogue.bias = bias.view().data;
            if ((mask & 2) != 0) epilogue.gate = gate.view();
            if ((mask & 4) != 0) epilogue.residual = residual.view();
            TestMatrix y(m, 45, 3, 11);
            linear->run({pool, backend.kernels}, x.view(), y.view(), epilogue);
            const auto expected = test::expected_product(weight.ref(), x.view(), epilogue,
                                                         rounds_activations(backend, type));
            ASSERT_EQ(test::mismatch(expected, y.view()), "")
                << backend.name << " " << dtype_name(type) << " m " << m << " activation "
                << static_cast<int>(activation) << " mask " << mask;
            ASSERT_TRUE(y.padding_intact());
          }
        }
      }
    }
  }
}

TEST(Matmul, ResidualMayBeTheResultItself) {
  ThreadPool pool(2);
  for (const Backend& backend : backends()) {
    for (const int64_t m : {1, 30}) {
      const TestWeight weight(DType::bf16, 300, 40, Layout::out_in, 0, 0, 5);
      TestMatrix x(m, 40, 0, 7), y(m, 300, 2, 8), before(m, 300, 0, 8);
      Epilogue epilogue;
      epilogue.residual = before.view();
      const auto expected = test::expected_product(weight.ref(), x.view(), epilogue,
                                                   rounds_activations(backend, DType::bf16));
      epilogue.residual = y.view();
      pack_linear(weight.ref(), backend.policy)
          ->run({pool, backend.kernels}, x.view(), y.view(), epilogue);
      EXPECT_EQ(test::mismatch(expected, y.view()), "") << backend.name;
    }
  }
}

TEST(Matmul, SameBitsAtAnyThreadCount) {
  ThreadPool one(1), two(2), three(3);
  for (const Backend& backend : backends()) {
    for (const DType type : {DType::f32, DType::bf16}) {
      for (const Shape& shape :
           {Shape{1, 2100, 130}, {4, 700, 1030}, {11, 513, 77}, {70, 1100, 260}, {700, 70, 33}}) {
        const TestWeight weight(type, shape.n, shape.k, Layout::out_in, 0, 0, 5);
        const auto linear = pack_linear(weight.ref(), backend.policy);
        TestMatrix x(shape.m, shape.k, 0, 7), expected(shape.m, shape.n, 0, 8);
        linear->run({one, backend.kernels}, x.view(), expected.view());
        for (ThreadPool* pool : {&two, &three}) {
          TestMatrix y(shape.m, shape.n, 0, 9);
          linear->run({*pool, backend.kernels}, x.view(), y.view());
          ASSERT_EQ(std::memcmp(y.view().data, expected.view().data,
                                static_cast<size_t>(shape.m * shape.n) * 4),
                    0)
              << backend.name << " " << dtype_name(type) << " " << shape.m << "x" << shape.n << "x"
              << shape.k << " on " << pool->size();
        }
      }
    }
  }
}

// A row's value must not depend on which other rows stand beside it within a path.
TEST(Matmul, RowsDoNotSeeEachOther) {
  ThreadPool pool(2);
  for (const Backend& backend : backends()) {
    const TestWeight weight(DType::f32, 90, 70, Layout::out_in, 0, 0, 5);
    const auto linear = pack_linear(weight.ref(), backend.policy);
    TestMatrix x(20, 70, 0, 7), y(20, 90, 0, 8), again(20, 90, 0, 9);
    linear->run({pool, backend.kernels}, x.view(), y.view());
    for (int64_t k = 0; k < 70; ++k) x.view().row(3)[k] = std::numeric_limits<float>::quiet_NaN();
    linear->run({pool, backend.kernels}, x.view(), again.view());
    for (int64_t m = 0; m < 20; ++m) {
      if (m == 3) continue;
      EXPECT_EQ(std::memcmp(y.view().row(m), again.view().row(m), 90 * 4), 0)
          << backend.name << " row " << m;
    }
  }
}

TEST(Matmul, ConcurrentRunsShareOneWeight) {
  ThreadPool pool(2);
  for (const Backend& backend : backends()) {
    const TestWeight weight(DType::bf16, 260, 130, Layout::out_in, 0, 0, 5);
    const auto linear = pack_linear(weight.ref(), backend.policy);
    TestMatrix x(40, 130, 0, 7), expected(40, 260, 0, 8);
    linear->run({pool, backend.kernels}, x.view(), expected.view());
    std::vector<TestMatrix> results;
    for (int i = 0; i < 3; ++i) results.emplace_back(40, 260, 0, 9);
    std::vector<std::thread> callers;
    for (TestMatrix& result : results) {
      callers.emplace_back([&] {
        for (int round = 0; round < 5; ++round) {
          linear->run({pool, backend.kernels}, x.view(), result.view());
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    for (TestMatrix& result : results) {
      EXPECT_EQ(std::memcmp(result.view().data, expected.view().data, 40 * 260 * 4), 0)
          << backend.name;
    }
  }
}

TEST(Matmul, NoRowsIsNoWork) {
  ThreadPool pool(2);
  const TestWeight weight(DType::f32, 8, 4, Layout::out_in, 0, 0, 5);
  for (const Backend& backend : backends()) {
    pack_linear(weight.ref(), backend.policy)
        ->run({pool, backend.kernels}, ConstMat(nullptr, 0, 4), Mat(nullptr, 0, 8));
  }
}

TEST(Matmul, RefusesOtherTypesAndWrongShapes) {
  TestWeight weight(DType::f32, 8, 4, Layout::out_in, 0, 0, 5);
  WeightRef bytes = weight.ref();
  bytes.dtype = DType::u8;
  try {
    pack_linear(bytes, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("test.weight"), std::string::npos);
  }
  ThreadPool pool(1);
  const KernelTable kernels = kernel_table(Isa::scalar);
  TestMatrix x(2, 5, 0, 1), y(2, 8, 0, 2);
  EXPECT_THROW(pack_linear(weight.ref(), {})->run({pool, kernels}, x.view(), y.view()), Error);
}

}  // namespace
}  // namespace pali
