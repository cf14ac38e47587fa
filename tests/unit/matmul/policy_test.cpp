// Which operand type --compute auto stands for, by CPU.
#include <gtest/gtest.h>

#include "matmul/matmul.hpp"

namespace pali {
namespace {

constexpr MatmulBackend kBackends[] = {MatmulBackend::automatic, MatmulBackend::native,
                                       MatmulBackend::onednn};

TEST(AutomaticCompute, Bf16WhereItIsFasterThanF32) {
  for (const MatmulBackend backend : kBackends) {
    for (const bool intel : {false, true}) {
      EXPECT_EQ(automatic_compute(DType::bf16, backend, Isa::amx, intel), ComputeType::bf16);
      EXPECT_EQ(automatic_compute(DType::bf16, backend, Isa::avx512_bf16, intel),
                intel ? ComputeType::f32 : ComputeType::bf16);
    }
  }
}

// Tiles take integers on the way to bf16. AVX-512 without VNNI gains nothing by pairs.
TEST(AutomaticCompute, IntegerWeightsAreBf16OnTilesAndMeetInt16WherePairsAreMultiplied) {
  for (const DType weights : {DType::i8, DType::i4}) {
    for (const MatmulBackend backend : kBackends) {
      EXPECT_EQ(automatic_compute(weights, backend, Isa::amx, true), ComputeType::bf16);
      for (const Isa isa : {Isa::avx2, Isa::avx_vnni, Isa::avx512_vnni, Isa::avx512_bf16}) {
        for (const bool intel : {false, true}) {
          EXPECT_EQ(automatic_compute(weights, backend, isa, intel), ComputeType::int16);
        }
      }
      for (const Isa isa : {Isa::scalar, Isa::avx512}) {
        EXPECT_EQ(automatic_compute(weights, backend, isa, true), ComputeType::f32);
      }
    }
    EXPECT_EQ(automatic_compute(weights, MatmulBackend::reference, Isa::amx, true),
              ComputeType::f32);
    EXPECT_EQ(automatic_compute(weights, MatmulBackend::reference, Isa::avx2, true),
              ComputeType::f32);
  }
}

TEST(AutomaticCompute, OtherWeightsTiersAndTheReferenceAreF32) {
  for (const DType weights : {DType::f32, DType::f16}) {
    EXPECT_EQ(automatic_compute(weights, MatmulBackend::automatic, Isa::amx, true),
              ComputeType::f32);
  }
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx_vnni, Isa::avx512, Isa::avx512_vnni}) {
    EXPECT_EQ(automatic_compute(DType::bf16, MatmulBackend::automatic, isa, false),
              ComputeType::f32);
  }
  for (const Isa isa : {Isa::avx512_bf16, Isa::amx}) {
    EXPECT_EQ(automatic_compute(DType::bf16, MatmulBackend::reference, isa, false),
              ComputeType::f32);
  }
}

}  // namespace
}  // namespace pali
