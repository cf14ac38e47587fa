// The composed PaLI-3 against the same parts composed in torch: image -> tokens -> projector ->
// encoder-decoder, one and two images; on every way.
#include <gtest/gtest.h>

#include "parity/composed.hpp"

namespace pali::parity {
namespace {

class Pali3 : public ::testing::TestWithParam<Run> {};

TEST_P(Pali3, AgreesWithTheReference) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  Rig rig(model_dir(name), way, 1);
  expect_composed(name, Golden::of_model(name), rig);
}

TEST_P(Pali3, SameBitsOnTwoThreads) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig one(model_dir(name), way, 1), two(model_dir(name), way, 2);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    const Composed a = run_case(one, cases[c]), b = run_case(two, cases[c]);
    expect_same_stages(name, a.vision, b.vision);
    expect_same(name, a.language, b.language);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, Pali3,
    ::testing::ValuesIn(runs_of({"pali3", "pali3_bf16", "pali3_f16", "pali3_sharded"})), run_name);

// bf16 products: near the f32 result, on the tiers that have them; the others compute in f32.
class Pali3InBf16 : public ::testing::TestWithParam<Run> {};

TEST_P(Pali3InBf16, StaysNearF32) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  Rig rig(model_dir(name), way, 1), two(model_dir(name), way, 2);
  expect_near_f32(name, Golden::of_model(name), rig, two);
}

std::vector<Run> bf16_runs() {
  std::vector<Run> runs = runs_of({"pali3_bf16"});
  for (Run& run : runs) run.way.compute = ComputeType::bf16;
  return runs;
}

INSTANTIATE_TEST_SUITE_P(Models, Pali3InBf16, ::testing::ValuesIn(bf16_runs()), run_name);

}  // namespace
}  // namespace pali::parity
