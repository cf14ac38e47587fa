// The composed PaLI-3 against the same parts composed in torch: image -> tokens -> projector ->
// encoder-decoder, one and two images; on every way.
#include <gtest/gtest.h>

#include <cstring>

#include "image/image.hpp"
#include "parity/language.hpp"

namespace pali::parity {
namespace {

class Pali3 : public ::testing::TestWithParam<Run> {};

struct Composed {
  Stages vision;  // image{j}/...
  LanguageRun language;
};

Composed run_case(Rig& rig, const Json& item) {
  const Model& model = rig.model();
  std::vector<Tensor> parts;
  int64_t rows = 0;
  for (size_t j = 0; j < item["images"].size(); ++j) {
    rig.set_prefix("image" + std::to_string(j) + "/");
    const Image image = Image::from_file(image_file(item["images"][j].get<std::string>()));
    const Tensor pixels = preprocess(image, model.checkpoint.config.preprocessing);
    const Tensor tokens = model.vision->run(rig.context(), pixels.view());
    parts.push_back(model.projector->run(rig.context(), tokens.view()));
    rows += parts.back().rows();
  }
  rig.set_prefix("");
  Composed out;
  out.vision = rig.take_stages();

  const std::vector<int32_t> tokens = prompt_ids(rig, item["prompt"].get<std::string>());
  Tensor prefix(rows + static_cast<int64_t>(tokens.size()), rig.language().width());
  int64_t at = 0;
  for (const Tensor& part : parts) {
    for (int64_t i = 0; i < part.rows(); ++i) {
      std::memcpy(prefix.row(at++), part.row(i), sizeof(float) * static_cast<size_t>(part.cols()));
    }
  }
  rig.language().embed(tokens, prefix.view().rows_from(at, static_cast<int64_t>(tokens.size())));
  out.language = run_language(rig, prefix.view(), item);
  return out;
}

TEST_P(Pali3, AgreesWithTheReference) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::string where = name + " case " + std::to_string(c);
    EXPECT_EQ(prompt_ids(rig, cases[c]["prompt"].get<std::string>()), ids(cases[c]["input_ids"]))
        << where;
    const Composed run = run_case(rig, cases[c]);
    const std::string prefix = "case" + std::to_string(c) + "/";
    for (const std::string& stage : golden.names(prefix + "image")) {
      const std::string full = "image" + stage;
      const auto found = run.vision.find(full);
      ASSERT_NE(found, run.vision.end()) << where << ": stage " << full << " was not traced";
      expect_stage(where, full, found->second, golden.values(prefix + full));
    }
    expect_case(where, golden, c, run.language);
  }
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

// bf16 products (activations rounded too, sums in f32): near the f32 result, on the tiers that have
// them; the others compute in f32. 2^-9 an operand, two operands a product, three products deep in
// the residual stream of each of the layers: a few percent of the largest element at most.
class Pali3InBf16 : public ::testing::TestWithParam<Run> {};

TEST_P(Pali3InBf16, StaysNearF32) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1), two(model_dir(name), way, 2);
  Json item = golden.json()["cases"][0];
  item["beams"] = item["scores"] = Json::array();
  const Composed run = run_case(rig, item), again = run_case(two, item);
  expect_same_stages(name + " on two threads", run.vision, again.vision);
  expect_same(name + " on two threads", run.language, again.language);
  for (const std::string stage : {"image0/projected", "encoder.memory", "logits.0"}) {
    const Stages& stages = stage.starts_with("image") ? run.vision : run.language.stages;
    const double error = relative_error(stages.at(stage), golden.values("case0/" + stage));
    record("bf16 products " + stage.substr(stage.find('/') + 1), error);
    EXPECT_LT(error, 0.03) << stage;
  }
}

std::vector<Run> bf16_runs() {
  std::vector<Run> runs = runs_of({"pali3_bf16"});
  for (Run& run : runs) run.way.compute = ComputeType::bf16;
  return runs;
}

INSTANTIATE_TEST_SUITE_P(Models, Pali3InBf16, ::testing::ValuesIn(bf16_runs()), run_name);

}  // namespace
}  // namespace pali::parity
