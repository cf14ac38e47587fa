// Which operand type --compute auto stands for, by CPU.
#include <gtest/gtest.h>

#include "kernels/isa.hpp"
#include "matmul/matmul.hpp"

namespace pali {
namespace {

constexpr Bf16Units kXeonWithAmx{true, true}, kIntelWithoutAmx{false, true}, kAmd{false, false};

TEST(AutomaticCompute, Bf16WhereItIsFasterThanF32) {
  struct Case {
    MatmulBackend backend;
    Bf16Units units;
    ComputeType expected;
  };
  for (const Case& c : {Case{MatmulBackend::automatic, kXeonWithAmx, ComputeType::bf16},
                        {MatmulBackend::onednn, kXeonWithAmx, ComputeType::bf16},
                        {MatmulBackend::native, kXeonWithAmx, ComputeType::f32},
                        {MatmulBackend::automatic, kIntelWithoutAmx, ComputeType::f32},
                        {MatmulBackend::onednn, kIntelWithoutAmx, ComputeType::f32},
                        {MatmulBackend::native, kIntelWithoutAmx, ComputeType::f32},
                        {MatmulBackend::automatic, kAmd, ComputeType::bf16},
                        {MatmulBackend::onednn, kAmd, ComputeType::bf16},
                        {MatmulBackend::native, kAmd, ComputeType::bf16},
                        {MatmulBackend::reference, kAmd, ComputeType::f32}}) {
    EXPECT_EQ(automatic_compute(DType::bf16, c.backend, Isa::avx512_bf16, c.units), c.expected)
        << int(c.backend) << c.units.amx << c.units.intel;
  }
}

TEST(AutomaticCompute, OtherWeightsAndTiersAreF32) {
  for (const Bf16Units& units : {kXeonWithAmx, kIntelWithoutAmx, kAmd}) {
    for (const DType weights : {DType::f32, DType::f16}) {
      EXPECT_EQ(automatic_compute(weights, MatmulBackend::automatic, Isa::avx512_bf16, units),
                ComputeType::f32);
    }
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_vnni}) {
      EXPECT_EQ(automatic_compute(DType::bf16, MatmulBackend::automatic, isa, units),
                ComputeType::f32);
    }
  }
}

TEST(AutomaticCompute, AmxNeedsOneDnn) {
  const Bf16Units units = bf16_units();
  EXPECT_EQ(units.intel, cpu_is_intel());
  EXPECT_LE(units.amx, onednn_built());
}

}  // namespace
}  // namespace pali
