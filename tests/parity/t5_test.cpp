// The T5 family against transformers: tokens, stages, greedy, beams, scores; on every way.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "parity/language.hpp"
#include "support/temp_folder.hpp"

namespace pali::parity {
namespace {

class T5 : public ::testing::TestWithParam<Run> {};

LanguageRun run_case(Rig& rig, const Json& item) {
  const std::vector<int32_t> tokens = ids(item["input_ids"]);
  Tensor prefix(static_cast<int64_t>(tokens.size()), rig.language().width());
  rig.language().embed(tokens, prefix.view());
  return run_language(rig, prefix.view(), item);
}

TEST_P(T5, AgreesWithTransformers) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::string where = name + " case " + std::to_string(c);
    EXPECT_EQ(prompt_ids(rig, cases[c]["prompt"].get<std::string>()), ids(cases[c]["input_ids"]))
        << where;
    expect_case(where, golden, c, run_case(rig, cases[c]));
  }
}

TEST_P(T5, SameBitsOnTwoThreads) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig one(model_dir(name), way, 1), two(model_dir(name), way, 2);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    expect_same(name + " case " + std::to_string(c), run_case(one, cases[c]),
                run_case(two, cases[c]));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, T5,
                         ::testing::ValuesIn(runs_of({"t5_v1_1", "ul2", "mt5", "umt5",
                                                      "t5_original", "flan_t5", "ul2_bf16",
                                                      "ul2_f16", "ul2_sharded"})),
                         run_name);

// umT5 files of the hub say tie_word_embeddings: false and are not scaled; transformers 5.23 itself
// always writes true, and scales. The same weights give logits larger by sqrt(d_model).
TEST(Umt5, HubConfigIsNotScaled) {
  const test::TempFolder scratch;
  const std::filesystem::path folder = scratch / "umt5";
  std::filesystem::copy(model_dir("umt5"), folder, std::filesystem::copy_options::recursive);
  Json config = read_json_file(folder / "config.json");
  ASSERT_TRUE(config["tie_word_embeddings"].get<bool>());
  config["tie_word_embeddings"] = false;
  std::ofstream(folder / "config.json") << config.dump();

  const Golden golden = Golden::of_model("umt5");
  Rig rig(folder, {Isa::scalar, MatmulBackend::native}, 1);
  Json item = golden.json()["cases"][0];
  item["beams"] = Json::array();
  item["scores"] = Json::array();
  const LanguageRun run = run_case(rig, item);
  const float scale = std::sqrt(static_cast<float>(config["d_model"].get<int>()));
  for (const char* stage : {"logits.0", "logits.7"}) {
    std::vector<float> expected;
    for (float x : golden.values(std::string("case0/") + stage)) expected.push_back(x * scale);
    expect_stage("umt5 of the hub", stage, run.stages.at(stage), expected);
  }
}

}  // namespace
}  // namespace pali::parity
