// Which peak binds what, and that the loops run on this CPU. No figure is asserted.
#include <gtest/gtest.h>

#include <set>

#include "bench_peaks.hpp"
#include "bench_setup.hpp"
#include "kernels/isa.hpp"

namespace pali::bench {
namespace {

TEST(Median, OfOddAndEvenNumbersOfSamples) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3}), 3);
  EXPECT_EQ(median({9, 1, 5}), 5);
  EXPECT_EQ(median({4, 1, 2, 3}), 3);  // the upper of the two in the middle
}

std::vector<LoopPeak> peaks() {
  // work / median ms * 1e-6 is the number given.
  const auto of = [](Unit unit, Operands operands, double giga) {
    return LoopPeak{unit, operands, "", giga * 1e6, {1.0}};
  };
  return {of(Unit::baseline, Operands::f32, 40),      of(Unit::avx2, Operands::f32, 100),
          of(Unit::avx2, Operands::int4, 300),        of(Unit::avx2, Operands::int16, 150),
          of(Unit::avx_vnni, Operands::int8, 450),    of(Unit::avx512, Operands::f32, 200),
          of(Unit::avx512_vnni, Operands::int8, 800), of(Unit::avx512_bf16, Operands::bf16, 90),
          of(Unit::amx_bf16, Operands::bf16, 3000),   of(Unit::amx_int8, Operands::int8, 6000)};
}

TEST(BindingPeak, IsTheBestThatTheTierMayUse) {
  const auto bound = [](Operands operands, Isa isa, bool amx) {
    return binding_peak(peaks(), operands, isa, amx);
  };
  EXPECT_EQ(bound(Operands::f32, Isa::scalar, false), 40);
  EXPECT_EQ(bound(Operands::f32, Isa::avx2, false), 100);
  EXPECT_EQ(bound(Operands::int16, Isa::avx2, false), 150);
  EXPECT_EQ(bound(Operands::int8, Isa::avx2, false), 150);
  EXPECT_EQ(bound(Operands::int8, Isa::avx_vnni, false), 450);
  EXPECT_EQ(bound(Operands::int4, Isa::avx2, false), 300);
  EXPECT_EQ(bound(Operands::int8, Isa::avx512, false), 200);  // it does not stand on avx_vnni
  EXPECT_EQ(bound(Operands::int8, Isa::avx512_vnni, false), 800);
}

TEST(BindingPeak, NarrowOperandsMayBeMultipliedWider) {
  EXPECT_EQ(binding_peak(peaks(), Operands::bf16, Isa::avx512_bf16, false), 200);
}

TEST(BindingPeak, TilesBindOnlyWhereSomethingDrivesThem) {
  EXPECT_EQ(binding_peak(peaks(), Operands::bf16, Isa::avx512_bf16, true), 3000);
  EXPECT_EQ(binding_peak(peaks(), Operands::int8, Isa::avx512_bf16, true), 6000);
  EXPECT_EQ(binding_peak(peaks(), Operands::f32, Isa::avx512_bf16, true), 200);
}

TEST(OnAmx, FollowsBackendOperandsAndTier) {
  const bool cpu = has_unit(Unit::amx_bf16);
  EXPECT_EQ(on_amx(MatmulBackend::onednn, ComputeType::bf16, Isa::avx512_bf16), cpu);
  EXPECT_FALSE(on_amx(MatmulBackend::native, ComputeType::bf16, Isa::avx512_bf16));
  EXPECT_FALSE(on_amx(MatmulBackend::automatic, ComputeType::bf16, Isa::avx512_bf16));
  EXPECT_EQ(on_amx(MatmulBackend::native, ComputeType::bf16, Isa::amx), cpu);
  EXPECT_FALSE(on_amx(MatmulBackend::onednn, ComputeType::f32, Isa::avx512_bf16));
  EXPECT_FALSE(on_amx(MatmulBackend::onednn, ComputeType::bf16, Isa::avx512));
  EXPECT_FALSE(on_amx(MatmulBackend::native, ComputeType::int16, Isa::amx));
}

TEST(OperandsOf, AreWhatProductsAreIn) {
  EXPECT_EQ(operands_of(ComputeType::int16, DType::i8), Operands::int16);
  EXPECT_EQ(operands_of(ComputeType::int16, DType::i4), Operands::int16);
  EXPECT_EQ(operands_of(ComputeType::int8, DType::i4), Operands::int4);
  EngineOptions options;
  options.compute = ComputeType::int16;
  const auto beside = [&](DType weights, Isa isa) {
    return compute_for(options, MatmulBackend::native, weights, isa);
  };
  EXPECT_EQ(beside(DType::i4, Isa::amx), ComputeType::int16);
  EXPECT_EQ(beside(DType::bf16, Isa::amx), ComputeType::f32);
  options.compute = ComputeType::int8;
  EXPECT_EQ(beside(DType::bf16, Isa::amx), ComputeType::bf16);
  EXPECT_EQ(beside(DType::bf16, Isa::avx512_vnni), ComputeType::f32);
}

TEST(ProductLoops, RunWhereTheCpuHasThem) {
  std::set<std::string> names;
  for (const ProductLoop& loop : product_loops()) {
    EXPECT_TRUE(names.insert(loop.instruction).second) << loop.instruction;
    EXPECT_GT(loop.operations, 0);
    if (has_unit(loop.unit)) loop.run(2);
  }
}

// The tiers' own detection and that of the loops agree.
TEST(Units, AreThoseOfTheTiers) {
  for (const IsaTier& tier : isa_tiers()) {
    for (const Unit unit :
         {Unit::avx2, Unit::avx_vnni, Unit::avx512, Unit::avx512_vnni, Unit::avx512_bf16}) {
      if (tier.available && tier.name == std::string(unit_name(unit))) {
        EXPECT_TRUE(has_unit(unit)) << tier.name;
      }
    }
    if (tier.isa == Isa::amx && tier.available) {
      EXPECT_TRUE(has_unit(Unit::amx_bf16) && has_unit(Unit::amx_int8));
    }
  }
}

TEST(PeakMeter, SamplesEveryLoopAndSharesTheReading) {
  ThreadPool pool(2);
  PeakMeter meter(pool, Isa::scalar, /*read_bytes=*/1 << 20);
  EXPECT_EQ(meter.read_bytes(), 1 << 20);
  meter.sample();
  meter.drop_memory();
  meter.sample_reads(Pages::huge);
  for (const LoopPeak& peak : meter.products()) EXPECT_EQ(peak.times_ms.size(), 1u) << peak.what;
  for (const LoopPeak& peak : meter.reads()) EXPECT_EQ(peak.times_ms.size(), 2u) << peak.what;
  EXPECT_GT(meter.gbps(), 0);
  EXPECT_GT(fork_join_us(pool), 0);
}

TEST(ParseShape, TakesThreeNumbersOnly) {
  EXPECT_EQ(parse_shape("256x8192x1664"), (std::vector<int64_t>{256, 8192, 1664}));
  for (const char* wrong : {"", "x", "1x2", "1x2x3x4", "1x2x3x", "0x2x3", "-1x2x3", "1x2x3 ",
                            "1X2X3", "1x2x99999999999999999999", "1x2x3.5"}) {
    EXPECT_TRUE(parse_shape(wrong).empty()) << wrong;
  }
}

}  // namespace
}  // namespace pali::bench
