// When oneDNN serves, when it declines and what it says; nobody's OpenMP setting is changed.
#include <gtest/gtest.h>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"
#include "unit/matmul/weights.hpp"

namespace pali {
namespace {

using test::Layout;
using test::TestWeight;

class OneDnn : public testing::Test {
 protected:
  void SetUp() override {
    for (const IsaTier& tier : isa_tiers()) {
      if (tier.available) best_ = tier.isa;
    }
  }
  // The backend that a weight was bound to, and the reason where it is not oneDNN.
  std::string bound(const WeightRef& weight, ComputeType compute, Isa isa) {
    std::map<std::string, int64_t> declined;
    MatmulPolicy policy{MatmulBackend::onednn, compute, isa};
    policy.declined = &declined;
    const bool native = pack_linear(weight, policy)->backend() == "native";
    EXPECT_LE(declined.size(), 1u);
    declined_ = declined.empty() ? "" : declined.begin()->first;
    return native ? "native" : "onednn";
  }
  Isa best_ = Isa::scalar;
  std::string declined_;
};

TEST_F(OneDnn, ServesF32WhereItIsBuilt) {
  if (!onednn_built()) GTEST_SKIP() << "this build has no oneDNN";
  EXPECT_FALSE(onednn_version().empty());
  const TestWeight weight(DType::f32, 20, 30, Layout::out_in, 0, 0, 5);
  EXPECT_EQ(bound(weight.ref(), ComputeType::f32, best_), "onednn") << declined_;
  EXPECT_EQ(declined_, "");
}

TEST_F(OneDnn, ServesBf16WhereTheCpuMultipliesIt) {
  if (!onednn_built()) GTEST_SKIP() << "this build has no oneDNN";
  const TestWeight weight(DType::bf16, 20, 30, Layout::out_in, 0, 0, 5);
  const bool multiplies = best_ >= Isa::avx512_bf16;
  EXPECT_EQ(bound(weight.ref(), ComputeType::bf16, best_), multiplies ? "onednn" : "native");
  EXPECT_EQ(declined_.empty(), multiplies) << declined_;
}

TEST_F(OneDnn, DeclinesWithAReason) {
  const TestWeight f32(DType::f32, 20, 30, Layout::out_in, 0, 0, 5);
  const TestWeight bf16(DType::bf16, 20, 30, Layout::out_in, 0, 0, 5);
  const TestWeight f16(DType::f16, 20, 30, Layout::out_in, 0, 0, 5);
  const TestWeight turned(DType::f32, 20, 30, Layout::in_out, 0, 0, 5);
  struct Case {
    const TestWeight& weight;
    ComputeType compute;
    const char* reason;
  };
  for (const Case& c : {Case{bf16, ComputeType::f32, "widen"},
                        {f16, ComputeType::f32, "f16"},
                        {turned, ComputeType::f32, "[out, in]"}}) {
    EXPECT_EQ(bound(c.weight.ref(), c.compute, best_), "native");
    EXPECT_NE(declined_.find(onednn_built() ? c.reason : "no oneDNN"), std::string::npos)
        << declined_;
  }
  if (best_ != Isa::scalar) {
    EXPECT_EQ(bound(f32.ref(), ComputeType::f32, Isa::scalar), "native");
    EXPECT_NE(declined_.find(onednn_built() ? "scalar is forced" : "no oneDNN"), std::string::npos)
        << declined_;
  }
}

TEST_F(OneDnn, DeclinesIntegersThatItWouldNotMultiplyExactly) {
  std::vector<std::byte> integers(20 * 30, std::byte{1}), scales(20 * 4);
  WeightRef weight;
  weight.name = "w";
  weight.dtype = DType::i8;
  weight.out = 20;
  weight.in = weight.out_stride = 30;
  weight.data = integers.data();
  weight.scales = scales.data();
  const bool exact = onednn_built() && best_ >= Isa::avx512_vnni;
  EXPECT_EQ(bound(weight, ComputeType::int8, best_), exact ? "onednn" : "native") << declined_;
  EXPECT_EQ(declined_.empty(), exact);
  EXPECT_EQ(bound(weight, ComputeType::int16, best_), "native");
}

// Files promise no alignment: the same weights give the same bits wherever they lie.
TEST_F(OneDnn, UnalignedWeightsGiveTheBitsOfAlignedOnes) {
  ThreadPool pool(2);
  const KernelTable kernels = kernel_table(best_);
  const ComputeType wide = ComputeType::f32;
  for (const auto& [type, compute] : {std::pair(DType::f32, wide), std::pair(DType::bf16, wide),
                                      std::pair(DType::bf16, ComputeType::bf16)}) {
    for (const bool prepack : {false, true}) {
      for (const MatmulBackend backend : {MatmulBackend::onednn, MatmulBackend::automatic}) {
        // 300 rows: a whole tile of columns and a part of one. 3: rows further apart than their
        // width.
        const TestWeight aligned(type, 300, 30, Layout::out_in, 3, 0, 5);
        const TestWeight unaligned(type, 300, 30, Layout::out_in, 3, 1, 5);
        MatmulPolicy policy{backend, compute, best_};
        policy.prepack = prepack;
        const auto a = pack_linear(aligned.ref(), policy);
        const auto b = pack_linear(unaligned.ref(), policy);
        EXPECT_EQ(a->backend(), b->backend());
        for (const int64_t m : {1, 7, 40}) {
          test::TestMatrix x(m, 30, 0, 7), y(m, 300, 0, 8), z(m, 300, 0, 9);
          a->run({pool, kernels}, x.view(), y.view());
          b->run({pool, kernels}, x.view(), z.view());
          for (int64_t i = 0; i < m; ++i) {
            EXPECT_TRUE(std::equal(y.view().row(i), y.view().row(i) + 300, z.view().row(i)))
                << dtype_name(type) << " row " << i << " of " << m;
          }
        }
      }
    }
  }
}

TEST_F(OneDnn, ManyShapesOfOneWeight) {
  if (!onednn_built()) GTEST_SKIP() << "this build has no oneDNN";
  ThreadPool pool(2);
  const KernelTable kernels = kernel_table(best_);
  const TestWeight weight(DType::f32, 300, 20, Layout::out_in, 0, 0, 5);
  const auto linear = pack_linear(weight.ref(), {MatmulBackend::onednn, ComputeType::f32, best_});
  ASSERT_EQ(linear->backend(), "onednn");
  for (int64_t m = 1; m <= 40; ++m) {  // more shapes than are kept
    test::TestMatrix x(m, 20, 0, 7), y(m, 300, 1, 8);
    linear->run({pool, kernels}, x.view(), y.view());
    EXPECT_EQ(test::mismatch(test::expected_product(weight.ref(), x.view(), {}, false), y.view()),
              "");
  }
}

}  // namespace
}  // namespace pali
