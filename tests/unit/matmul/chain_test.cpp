// Chained products: the same bits as one after the other, on every tier and at any thread count.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "matmul/quantise.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

using test::Layout;
using test::TestMatrix;
using test::TestWeight;

struct Shape {
  int64_t rows, in, width, out;
};

// An MLP's weights as bf16, int8 or int4, each from a float one.
class Weights {
 public:
  Weights(const Shape& s, DType type) {
    add({DType::bf16, s.width, s.in, Layout::out_in, 3, 6, 1}, type);
    add({DType::bf16, s.width, s.in, Layout::out_in, 0, 2, 2}, type);
    add({DType::bf16, s.out, s.width, Layout::out_in, 5, 0, 3}, type);
  }
  const WeightRef& up() const { return refs_[0]; }
  const WeightRef& gate() const { return refs_[1]; }
  const WeightRef& down() const { return refs_[2]; }

 private:
  void add(TestWeight weight, DType type) {
    floats_.push_back(std::move(weight));
    WeightRef ref = floats_.back().ref();
    if (is_quantised(type)) {
      QuantisationError error;
      memory_.push_back(quantisation_scales(ref, type, &error));
      const std::byte* const scales = memory_.back().data();
      memory_.emplace_back(ref.out * row_bytes(type, ref.in));
      quantise(ref, type, scales, memory_.back().data());
      ref.dtype = type;
      ref.out_stride = ref.in;
      ref.data = memory_.back().data();
      ref.scales = scales;
    }
    refs_.push_back(ref);
  }
  std::vector<TestWeight> floats_;
  std::vector<AlignedBuffer<std::byte>> memory_;
  std::vector<WeightRef> refs_;
};

void check(const Shape& s, DType type, const MatmulPolicy& policy, bool gated) {
  const Weights weights(s, type);
  const auto up = pack_linear(weights.up(), policy), gate = pack_linear(weights.gate(), policy),
             down = pack_linear(weights.down(), policy);
  const KernelTable kernels = kernel_table(policy.isa);
  TestMatrix x(s.rows, s.in, 3, 7), residual(s.rows, s.out, 1, 8);
  TestMatrix bias(1, s.width, 0, 9), out_bias(1, s.out, 0, 10);
  Epilogue activate, add;
  activate.bias = bias.view().data;
  activate.activation = Activation::gelu_tanh;
  add.bias = out_bias.view().data;
  add.residual = residual.view();

  ThreadPool one(1), three(3);
  TestMatrix h(s.rows, s.width, 2, 11), g(s.rows, s.width, 5, 12), expected(s.rows, s.out, 3, 13);
  if (gated) {
    up->run({one, kernels}, x.view(), h.view());
    Epilogue with_gate = activate;
    with_gate.gate = h.view();
    gate->run({one, kernels}, x.view(), g.view(), with_gate);
  } else {
    up->run({one, kernels}, x.view(), g.view(), activate);
  }
  down->run({one, kernels}, g.view(), expected.view(), add);

  for (ThreadPool* pool : {&one, &three}) {
    TestMatrix h2(s.rows, s.width, 2, 14), g2(s.rows, s.width, 5, 15), y(s.rows, s.out, 4, 16);
    std::vector<Product> first;
    if (gated) {
      first.push_back({up.get(), h2.view(), {}});
      activate.gate = h2.view();
      first.push_back({gate.get(), g2.view(), activate});
    } else {
      first.push_back({up.get(), g2.view(), activate});
    }
    run_chain({*pool, kernels}, x.view(), first, {down.get(), y.view(), add});
    for (int64_t m = 0; m < s.rows; ++m) {
      ASSERT_EQ(std::memcmp(y.view().row(m), expected.view().row(m),
                            static_cast<size_t>(s.out) * sizeof(float)),
                0)
          << isa_name(policy.isa) << " " << dtype_name(type) << " row " << m << " of " << s.rows
          << (gated ? " gated" : "") << " on " << pool->size();
    }
    EXPECT_TRUE(y.padding_intact());
    activate.gate = {};
  }
}

void check_everywhere(const std::vector<Shape>& shapes) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    for (const Shape& shape : shapes) {
      for (const bool gated : {false, true}) {
        check(shape, DType::bf16, {MatmulBackend::native, ComputeType::f32, tier.isa}, gated);
        check(shape, DType::bf16, {MatmulBackend::automatic, ComputeType::bf16, tier.isa}, gated);
        check(shape, DType::i8, {MatmulBackend::native, ComputeType::bf16, tier.isa}, gated);
        check(shape, DType::i8, {MatmulBackend::native, ComputeType::int8, tier.isa}, gated);
        check(shape, DType::i4, {MatmulBackend::native, ComputeType::int8, tier.isa}, gated);
        check(shape, DType::i8, {MatmulBackend::native, ComputeType::int16, tier.isa}, gated);
        check(shape, DType::i4, {MatmulBackend::native, ComputeType::int16, tier.isa}, gated);
      }
    }
  }
}

TEST(Chain, IsTheProductsOneAfterTheOther) {
  check_everywhere({{1, 40, 70, 30}, {8, 40, 70, 30}, {9, 33, 129, 31}, {33, 150, 300, 65}});
}

TEST(Chain, SeveralBlocksOfRowsAndOfK) { check_everywhere({{330, 2049, 70, 33}}); }

// A width that neither columns at a time nor a step of K divide, and several blocks after it.
TEST(Chain, WideMiddle) { check_everywhere({{12, 20, 2500, 40}}); }

}  // namespace
}  // namespace pali
