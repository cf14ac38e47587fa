// Detection, names, and the choice of a tier.
#include <cstdlib>

#include "kernel_testing.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// Sets PALI_ISA for one test; each case runs in a process of its own under CTest.
class Environment {
 public:
  explicit Environment(const char* value) { setenv("PALI_ISA", value, 1); }
  ~Environment() { unsetenv("PALI_ISA"); }
};

TEST(Isa, TiersRunFromScalarUpwards) {
  const auto tiers = isa_tiers();
  ASSERT_EQ(tiers.size(), 7u);
  EXPECT_EQ(tiers[0].isa, Isa::scalar);
  EXPECT_TRUE(tiers[0].available);
  for (size_t i = 1; i < tiers.size(); ++i) {
    EXPECT_LT(tiers[i - 1].isa, tiers[i].isa);
    EXPECT_EQ(tiers[i].available, std::string(tiers[i].missing).empty()) << tiers[i].name;
  }
}

TEST(Isa, TiersAreNotAvailableWithoutTheirBase) {
  const auto available = [](Isa isa) {
    for (const IsaTier& tier : isa_tiers()) {
      if (tier.isa == isa) return tier.available;
    }
    return false;
  };
  EXPECT_TRUE(available(Isa::avx2) || !available(Isa::avx_vnni));
  EXPECT_TRUE(available(Isa::avx2) || !available(Isa::avx512));
  EXPECT_TRUE(available(Isa::avx512) || !available(Isa::avx512_vnni));
  EXPECT_TRUE(available(Isa::avx512) || !available(Isa::avx512_bf16));
  EXPECT_TRUE(available(Isa::avx512_bf16) || !available(Isa::amx));
}

TEST(Isa, NamesRoundTrip) {
  for (const IsaTier& tier : isa_tiers()) {
    EXPECT_EQ(parse_isa(tier.name), tier.isa);
    EXPECT_STREQ(isa_name(tier.isa), tier.name);
  }
  EXPECT_EQ(parse_isa("best"), Isa::best);
}

TEST(Isa, UnknownNameListsTheNames) {
  try {
    parse_isa("avx1024");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("avx1024"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("avx512_bf16"), std::string::npos);
  }
}

TEST(Isa, BestIsTheLastTierAvailable) {
  unsetenv("PALI_ISA");
  Isa last = Isa::scalar;
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.available) last = tier.isa;
  }
  EXPECT_EQ(resolve_isa(Isa::best), last);
}

TEST(Isa, EnvironmentLowersBestButNotAnExplicitTier) {
  const Environment environment("scalar");
  EXPECT_EQ(resolve_isa(Isa::best), Isa::scalar);
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.available) {
      EXPECT_EQ(resolve_isa(tier.isa), tier.isa);
    }
  }
}

TEST(Isa, UnknownEnvironmentIsAnError) {
  const Environment environment("fastest");
  EXPECT_THROW(resolve_isa(Isa::best), Error);
}

TEST(Isa, MissingTierIsAnErrorThatNamesWhatIsMissing) {
  for (const IsaTier& tier : isa_tiers()) {
    if (tier.available) continue;
    try {
      resolve_isa(tier.isa);
      FAIL() << tier.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported);
      EXPECT_NE(std::string(error.what()).find(tier.missing), std::string::npos);
    }
    return;
  }
  GTEST_SKIP() << "this CPU has every tier";
}

TEST(Isa, CpuHasAName) { EXPECT_FALSE(cpu_name().empty()); }

class IsaTable : public EveryTier {};
PALI_EVERY_TIER(IsaTable);

TEST_P(IsaTable, HasEveryEntry) {
  EXPECT_TRUE(table.layer_norm && table.rms_norm && table.epilogue && table.dot && table.max &&
              table.sum_exp && table.widen && table.to_bf16 && table.gemv.pack &&
              table.gemv.multiply && table.attend_row);
  EXPECT_TRUE(table.attention_f32.block_bytes && table.attention_f32.scratch_bytes &&
              table.attention_f32.prepare && table.attention_f32.attend);
  EXPECT_TRUE(table.gemm_f32.pack_weights && table.gemm_f32.multiply);
  EXPECT_EQ(table.gemm_f32.pack_activations, nullptr);
  EXPECT_EQ(table.gemm_f32.element_bytes, 4);
  const bool has_bf16 = GetParam() >= Isa::avx512_bf16;
  EXPECT_EQ(table.gemm_bf16.multiply != nullptr, has_bf16);
  EXPECT_EQ(table.gemm_bf16.pack_weights != nullptr, has_bf16);
  EXPECT_EQ(table.gemm_bf16.pack_activations != nullptr, has_bf16);
  const FusedGemm& fused = table.fused_bf16;
  EXPECT_EQ(fused.multiply && fused.pack_activations && fused.scratch_bytes && fused.panel_bytes,
            GetParam() == Isa::amx);
  const auto whole = [](const FusedGemm& gemm) {
    return gemm.multiply && gemm.pack_activations && gemm.scratch_bytes && gemm.panel_bytes;
  };
  for (const IntegerKernels& integers : {table.int8, table.int16}) {
    EXPECT_TRUE(integers.gemv.pack && integers.gemv.multiply && whole(integers.by_int8));
  }
  EXPECT_EQ(whole(table.int8.by_int4), fused.multiply == nullptr);
  EXPECT_TRUE(whole(table.int16.by_int4));
}

}  // namespace
}  // namespace pali
