// Other encoders before the same language model: a classifier's ViT and CLIP's vision tower,
// composed as `pali convert --vision` does, against transformers; on every way.
#include <gtest/gtest.h>

#include <filesystem>

#include "pali/pali.hpp"
#include "parity/composed.hpp"
#include "support/temp_folder.hpp"

namespace pali::parity {
namespace {

namespace fs = std::filesystem;

class Encoders : public ::testing::TestWithParam<Run> {
 protected:
  // The folder's tower and projector before the language model that its golden names.
  fs::path composed(const std::string& name, int64_t resolution = 0) const {
    ConvertOptions options;
    options.vision = model_dir(name);
    options.language = model_dir(Golden::of_model(name).json()["language"].get<std::string>());
    options.projector = model_dir(name) / "projector.safetensors";
    options.resolution = resolution;
    options.output = folder_ / "composed.safetensors";
    EXPECT_TRUE(convert(options).warnings.empty());
    return options.output;
  }

 private:
  test::TempFolder folder_;
};

TEST_P(Encoders, AgreeWithTheReference) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  Rig rig(composed(name), way, 1);
  expect_composed(name, Golden::of_model(name), rig);
}

TEST_P(Encoders, SameBitsOnTwoThreads) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const fs::path model = composed(name);
  Rig one(model, way, 1), two(model, way, 2);
  const Golden golden = Golden::of_model(name);
  for (const Json& item : golden.json()["cases"]) {
    const Composed a = run_case(one, item), b = run_case(two, item);
    expect_same_stages(name, a.vision, b.vision);
    expect_same(name, a.language, b.language);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Encoders,
                         ::testing::ValuesIn(runs_of({"vit", "clip", "vit_bf16", "clip_bf16"})),
                         run_name);

class EncodersInBf16 : public Encoders {};

TEST_P(EncodersInBf16, StayNearF32) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const fs::path model = composed(name);
  Rig one(model, way, 1), two(model, way, 2);
  expect_near_f32(name, Golden::of_model(name), one, two);
}

std::vector<Run> bf16_runs() {
  std::vector<Run> runs = runs_of({"vit_bf16", "clip_bf16"});
  for (Run& run : runs) run.way.compute = ComputeType::bf16;
  return runs;
}

INSTANTIATE_TEST_SUITE_P(Models, EncodersInBf16, ::testing::ValuesIn(bf16_runs()), run_name);

// The tower alone; and what the folder, a file converted from it and a composed model give alike.
class EncoderAlone : public Encoders {};

TEST_P(EncoderAlone, GivesItsTokensInEveryForm) {
  const auto& [name, way] = GetParam();
  const Golden golden = Golden::of_model(name);
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  const EngineOptions options = engine_options(way, 1);
  const Engine folder = Engine::open(model_dir(name), options);
  EXPECT_EQ(folder.info().family, name);
  const TokenEmbeddings tokens = folder.embed_tokens(image);
  EXPECT_EQ(tokens.rows, 10) << "the class token is one of them";
  expect_stage(name, "vision.tokens", tokens.values, golden.values("case0/image0/vision.tokens"));

  test::TempFolder place;
  ConvertOptions copy;
  copy.source = model_dir(name);
  copy.output = place / "tower.safetensors";
  convert(copy);
  EXPECT_EQ(Engine::open(copy.output, options).embed_tokens(image).values, tokens.values);
  const fs::path whole = composed(name);
  EXPECT_EQ(inspect(whole).family, "pali3-" + name);
  EXPECT_EQ(Engine::open(whole, options).embed_tokens(image).values, tokens.values);

  // Another resolution: when opened, and when composed.
  const int64_t side = golden.json()["resized"]["resolution"].get<int64_t>();
  EngineOptions resized = options;
  resized.resolution = side;
  const auto expected = golden.values("resized/vision.tokens");
  expect_stage(name + " resized", "vision.tokens",
               Engine::open(model_dir(name), resized).embed_tokens(image).values, expected);
  expect_stage(name + " resized", "vision.tokens",
               Engine::open(composed(name, side), options).embed_tokens(image).values, expected);
}

INSTANTIATE_TEST_SUITE_P(Models, EncoderAlone, ::testing::Values(Run{"vit", {}}, Run{"clip", {}}),
                         run_name);

}  // namespace
}  // namespace pali::parity
