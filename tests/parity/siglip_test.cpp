// SigLIP's towers against transformers, stage by stage, and the two-tower logits, on every way;
// resized position embeddings against big_vision's formula.
#include <gtest/gtest.h>

#include <cmath>

#include "image/image.hpp"
#include "parity/golden.hpp"
#include "parity/language.hpp"
#include "parity/rig.hpp"
#include "text/tokenizer.hpp"

namespace pali::parity {
namespace {

class Siglip : public ::testing::TestWithParam<Run> {};

// All stages of all images and texts, named as the golden names them.
Stages run_towers(Rig& rig, const Golden& golden) {
  const Model& model = rig.model();
  const Json& json = golden.json();
  Stages extra;
  std::vector<std::vector<float>> images, texts;
  for (size_t j = 0; j < json["images"].size(); ++j) {
    rig.set_prefix("image" + std::to_string(j) + "/");
    const Image image = Image::from_file(image_file(json["images"][j].get<std::string>()));
    const Tensor pixels = preprocess(image, model.checkpoint.config.preprocessing);
    const Tensor tokens = model.vision->run(rig.context(), pixels.view());
    if (model.vision->has_pooling_head()) {
      images.push_back(flat(model.vision->pool(rig.context(), tokens.view()).view()));
    }
  }
  if (json.contains("texts")) {
    for (size_t j = 0; j < json["texts"].size(); ++j) {
      rig.set_prefix("text" + std::to_string(j) + "/");
      const auto tokens =
          siglip_encode(rig.tokenizer(), json["texts"][j]["text"].get<std::string>(),
                        model.text_tower->length(), 1);
      EXPECT_EQ(tokens, ids(json["texts"][j]["input_ids"]));
      texts.push_back(flat(model.text_tower->run(rig.context(), tokens).view()));
    }
  }
  rig.set_prefix("");
  Stages stages = rig.take_stages();
  std::vector<float>& logits = stages["logits_per_image"];
  std::vector<float>& probabilities = stages["probabilities"];
  for (const auto& image : images) {
    for (const auto& text : texts) {
      const double logit = siglip_logit(image, text, model.logit_scale, model.logit_bias);
      logits.push_back(static_cast<float>(logit));
      probabilities.push_back(static_cast<float>(1 / (1 + std::exp(-logit))));
    }
  }
  return stages;
}

TEST_P(Siglip, AgreesWithTransformers) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1);
  const Stages stages = run_towers(rig, golden);
  for (const std::string& stage : golden.names("")) {
    if (stage == "image_embeds" || stage == "text_embeds") continue;  // normalised ones
    if (stage.starts_with("resized/")) continue;                      // below
    const auto found = stages.find(stage);
    ASSERT_NE(found, stages.end()) << name << ": stage " << stage << " was not traced";
    expect_stage(name, stage, found->second, golden.values(stage));
  }
}

TEST_P(Siglip, SameBitsOnTwoThreads) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig one(model_dir(name), way, 1), two(model_dir(name), way, 2);
  expect_same_stages(name, run_towers(one, golden), run_towers(two, golden));
}

INSTANTIATE_TEST_SUITE_P(Models, Siglip,
                         ::testing::ValuesIn(runs_of({"siglip_vision", "siglip_two_tower"})),
                         run_name);

// The tower at another resolution: 73 px, 5 x 5 patches, from a checkpoint of 3 x 3.
TEST(SiglipResized, RunsAtAnotherResolution) {
  const Golden golden = Golden::of_model("siglip_vision");
  const Json& resized = golden.json()["resized"];
  const Way way{Isa::scalar, MatmulBackend::native};
  Rig rig(model_dir("siglip_vision"), way, 1, resized["resolution"].get<int64_t>());
  Preprocessing how = rig.model().checkpoint.config.preprocessing;
  how.size = rig.model().vision->image_size();
  const Image image = Image::from_file(image_file(resized["image"].get<std::string>()));
  rig.model().vision->run(rig.context(), preprocess(image, how).view());
  const Stages stages = rig.take_stages();
  for (const char* stage : {"vision.embed", "vision.tokens"}) {
    expect_stage("siglip_vision resized", stage, stages.at(stage),
                 golden.values(std::string("resized/") + stage));
  }
  EngineOptions options = engine_options(way, 1);
  options.resolution = resized["resolution"].get<int64_t>();
  expect_stage("siglip_vision resized", "vision.tokens",
               Engine::open(model_dir("siglip_vision"), options).embed_tokens(image).values,
               golden.values("resized/vision.tokens"));
}

TEST(Positions, ResizeAsBigVision) {
  const Golden golden = Golden::of_files("posemb.golden.json", "posemb.golden.safetensors");
  int count = 0;
  for (const Json& item : golden.json()["cases"]) {
    const auto in = item["in"].get<std::vector<int64_t>>(),
               out = item["out"].get<std::vector<int64_t>>();
    if (in[0] != in[1] || out[0] != out[1]) continue;  // the engine's grids are square
    const std::string name = item["name"].get<std::string>();
    const StoredTensor& stored = golden.tensor(name + "/in");
    const int64_t width = stored.shape.back();
    const Tensor resized =
        resize_positions({golden.values(name + "/in").data(), in[0] * in[1], width}, in[0], out[0]);
    ASSERT_EQ(resized.rows(), out[0] * out[1]) << name;
    std::vector<float> found;
    for (const Json& row : item["rows"]) {
      const auto part = flat(resized.view().rows_from(row.get<int64_t>() * out[1], out[1]));
      found.insert(found.end(), part.begin(), part.end());
    }
    const double error = relative_error(found, golden.values(name + "/out"));
    record("resized positions", error);
    EXPECT_LE(error, 1e-6) << name;  // three f32 roundings
    ++count;
  }
  EXPECT_EQ(count, 7);
}

}  // namespace
}  // namespace pali::parity
