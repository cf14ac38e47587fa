// What is packed when a weight is bound is what products then read.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

constexpr int64_t kRows = 20, kOut = 40, kIn = 70;

struct Outcome {
  int64_t packed_bytes;
  bool follows_the_weights;  // once they change
};

Outcome run(const MatmulPolicy& policy) {
  std::vector<float> values(kOut * kIn, 1.0f);
  WeightRef weight;
  weight.name = "w";
  weight.dtype = DType::f32;
  weight.out = kOut;
  weight.in = weight.out_stride = kIn;
  weight.data = reinterpret_cast<const std::byte*>(values.data());
  ThreadPool pool(2);
  const KernelTable kernels = kernel_table(policy.isa);
  const auto linear = pack_linear(weight, policy);
  test::TestMatrix x(kRows, kIn, 0, 7), before(kRows, kOut, 0, 8), after(kRows, kOut, 0, 9);
  linear->run({pool, kernels}, x.view(), before.view());
  std::fill(values.begin(), values.end(), 2.0f);
  linear->run({pool, kernels}, x.view(), after.view());
  const bool same =
      std::equal(before.view().row(3), before.view().row(3) + kOut, after.view().row(3));
  return {linear->packed_bytes(), !same};
}

TEST(Prepack, ProductsReadWhatWasPacked) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    for (const MatmulBackend backend : {MatmulBackend::native, MatmulBackend::onednn}) {
      MatmulPolicy policy{backend, ComputeType::f32, tier.isa};
      const Outcome plain = run(policy);
      EXPECT_EQ(plain.packed_bytes, 0);
      EXPECT_TRUE(plain.follows_the_weights);
      policy.prepack = true;
      const Outcome packed = run(policy);
      EXPECT_GE(packed.packed_bytes, kOut * kIn * 4) << tier.name;
      EXPECT_FALSE(packed.follows_the_weights) << tier.name;
    }
  }
}

TEST(Prepack, IntegersAndTheReferenceHaveNone) {
  std::vector<std::byte> integers(kOut * kIn), scales(kOut * 4);
  WeightRef weight;
  weight.name = "w";
  weight.dtype = DType::i8;
  weight.out = kOut;
  weight.in = weight.out_stride = kIn;
  weight.data = integers.data();
  weight.scales = scales.data();
  MatmulPolicy policy{MatmulBackend::native, ComputeType::f32, Isa::scalar};
  policy.prepack = true;
  EXPECT_EQ(pack_linear(weight, policy)->packed_bytes(), 0);
  const test::TestWeight floats(DType::f32, kOut, kIn, test::Layout::out_in, 0, 0, 5);
  policy.backend = MatmulBackend::reference;
  EXPECT_EQ(pack_linear(floats.ref(), policy)->packed_bytes(), 0);
}

}  // namespace
}  // namespace pali
