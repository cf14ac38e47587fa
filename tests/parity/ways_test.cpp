// The other tests go the ways that they name: tiers differ in kernels, backends are not declined.
#include <gtest/gtest.h>

#include <vector>

#include "matmul/matmul.hpp"
#include "parity/rig.hpp"

namespace pali::parity {
namespace {

TEST(Ways, EveryBackendTakesTheTypesOfTheModels) {
  const std::vector<float> zeros(32 * 24, 0.0f);  // read as bf16 and f16 too
  for (const Way& way : all_ways()) {
    if (!why_not(way).empty() || way.backend == MatmulBackend::automatic) continue;
    for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
      WeightRef weight;
      weight.dtype = type;
      weight.out = 32;
      weight.in = weight.out_stride = 24;
      weight.data = reinterpret_cast<const std::byte*>(zeros.data());
      MatmulPolicy policy;
      policy.backend = way.backend;
      policy.isa = way.isa;
      // oneDNN does not widen half precision on the way: it takes f32, and bf16 in bf16 products
      // where the CPU has those.
      if (type == DType::bf16 && way.backend == MatmulBackend::onednn) {
        policy.compute = ComputeType::bf16;
      }
      const bool declines =
          way.backend == MatmulBackend::onednn &&
          (type == DType::f16 || (type == DType::bf16 && way.isa < Isa::avx512_bf16));
      std::map<std::string, int64_t> declined;
      policy.declined = &declined;
      const auto packed = pack_linear(weight, policy);
      const bool native = declines || way.backend == MatmulBackend::native;
      EXPECT_EQ(packed->backend(), native ? "native" : way_name(way))
          << dtype_name(type) << " on " << way_name(way);
      EXPECT_EQ(declined.empty(), !declines) << dtype_name(type) << " on " << way_name(way);
    }
  }
}

TEST(Ways, TiersDifferInTheirKernels) {
  const auto available = [](Isa isa) { return why_not({isa, MatmulBackend::native}).empty(); };
  const KernelTable scalar = kernel_table(Isa::scalar);
  if (available(Isa::avx2)) {
    EXPECT_NE(kernel_table(Isa::avx2).gemm_f32.multiply, scalar.gemm_f32.multiply);
    EXPECT_NE(kernel_table(Isa::avx2).attention_f32.attend, scalar.attention_f32.attend);
  }
  if (available(Isa::avx512)) {
    const KernelTable avx2 = kernel_table(Isa::avx2), avx512 = kernel_table(Isa::avx512);
    EXPECT_NE(avx512.gemm_f32.multiply, avx2.gemm_f32.multiply);
    EXPECT_NE(avx512.attention_f32.attend, avx2.attention_f32.attend);
  }
  if (available(Isa::amx)) {
    EXPECT_NE(kernel_table(Isa::amx).fused_bf16.multiply, nullptr);
  }
  if (available(Isa::avx512_bf16)) {
    EXPECT_NE(kernel_table(Isa::avx512_bf16).gemm_bf16.multiply,
              kernel_table(Isa::avx512).gemm_bf16.multiply);
  }
}

}  // namespace
}  // namespace pali::parity
