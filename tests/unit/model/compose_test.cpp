// A PaLI-3 put together from its parts.
#include <gtest/gtest.h>

#include <cstring>

#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "support/paths.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = test::data("models");

ComposeOptions parts() {
  ComposeOptions options;
  options.vision = kModels / "pali3_parts" / "vision";
  options.language = kModels / "pali3_parts" / "language";
  options.projector = kModels / "pali3_parts" / "projector.safetensors";
  return options;
}

TEST(Compose, PartsMakeTheModelTheyWereTakenFrom) {
  const Checkpoint whole = open_checkpoint(kModels / "pali3");
  const Checkpoint composed = compose_checkpoint(parts());
  EXPECT_TRUE(composed.warnings.empty()) << composed.warnings[0];
  ASSERT_EQ(composed.table.bound().size(), whole.table.bound().size());
  for (const auto& [name, tensor] : whole.table.bound()) {
    EXPECT_EQ(composed.table.values(name), whole.table.values(name)) << name;
  }
  EXPECT_EQ(composed.config.prompts.vqa, whole.config.prompts.vqa);
  ASSERT_TRUE(composed.tokenizer.has_value());
  EXPECT_EQ(composed.tokenizer->size(), whole.tokenizer->size());
  // Written and read again it is the same.
  TempFolder folder;
  write_checkpoint(composed, std::nullopt, folder / "m.safetensors");
  const Checkpoint read = open_checkpoint(folder / "m.safetensors");
  for (const auto& [name, tensor] : whole.table.bound()) {
    EXPECT_EQ(read.table.values(name), whole.table.values(name)) << name;
  }
  EXPECT_EQ(read.config.vision->image_size, whole.config.vision->image_size);
}

// A converted file serves as a part too, and a two-tower SigLIP gives its vision half.
TEST(Compose, TakesConvertedFilesAndTwoTowers) {
  TempFolder folder;
  ComposeOptions options = parts();
  options.projector.clear();
  options.vision = folder / "vision.safetensors";
  write_checkpoint(open_checkpoint(kModels / "siglip_two_tower"), std::nullopt, options.vision);
  const Checkpoint source = open_checkpoint(kModels / "siglip_two_tower");
  const Checkpoint composed = compose_checkpoint(options);
  EXPECT_FALSE(composed.config.vision->pooling_head);
  EXPECT_FALSE(composed.config.text_tower.has_value());
  EXPECT_EQ(composed.table.values("vision.patch.weight"),
            source.table.values("vision.patch.weight"));
  EXPECT_EQ(composed.table.values("vision.blocks.1.mlp.down.weight"),
            source.table.values("vision.blocks.1.mlp.down.weight"));
}

// Of two composed models, the tower of one and the language model of the other.
TEST(Compose, TakesFromEachPartWhatItIsGivenFor) {
  TempFolder folder;
  ComposeOptions options = parts();
  options.projector.clear();
  options.vision = kModels / "siglip_vision";
  options.seed = 3;
  const Checkpoint other = compose_checkpoint(options);
  options.vision = kModels / "vit";
  options.language = folder / "other.safetensors";
  write_checkpoint(other, std::nullopt, options.language);
  options.seed = 4;
  const Checkpoint composed = compose_checkpoint(options);
  const Checkpoint tower = open_checkpoint(kModels / "vit");
  for (const auto& [name, tensor] : composed.table.bound()) {
    if (name.starts_with("projector.")) continue;
    const bool seen = name.starts_with("vision.");
    EXPECT_EQ(composed.table.values(name), (seen ? tower : other).table.values(name)) << name;
  }
  EXPECT_NE(composed.table.values("projector.weight"), other.table.values("projector.weight"));
}

TEST(Compose, ARandomProjectorComesFromTheSeedAndIsSaid) {
  ComposeOptions options = parts();
  options.projector.clear();
  options.seed = 5;
  const Checkpoint a = compose_checkpoint(options), b = compose_checkpoint(options);
  ASSERT_EQ(a.warnings.size(), 1u);
  EXPECT_NE(a.warnings[0].find("random"), std::string::npos);
  EXPECT_EQ(a.table.values("projector.weight"), b.table.values("projector.weight"));
  options.seed = 6;
  EXPECT_NE(compose_checkpoint(options).table.values("projector.weight"),
            a.table.values("projector.weight"));
}

TEST(Compose, ResolutionResizesThePositions) {
  ComposeOptions options = parts();
  options.resolution = 75;
  const Checkpoint composed = compose_checkpoint(options);
  EXPECT_EQ(composed.config.vision->image_size, 75);
  EXPECT_EQ(composed.config.preprocessing.size, 75);
  const Checkpoint vision = open_checkpoint(options.vision);
  const std::vector<float> stored = vision.table.values("vision.pos");
  const Tensor expected = resize_positions({stored.data(), 9, 24}, 3, 5);
  EXPECT_EQ(composed.table.values("vision.pos"), flat(expected.view()));
  for (const int64_t bad : {int64_t{1}, int64_t{-14}, int64_t{1} << 40}) {
    options.resolution = bad;
    EXPECT_EQ(caught([&] { compose_checkpoint(options); }).code, ErrorCode::invalid_argument);
  }
}

// A tower with a class token: its row of the positions stays, and the config says where it goes.
TEST(Compose, KeepsTheClassTokenOfOtherEncoders) {
  for (const char* name : {"vit", "clip"}) {
    ComposeOptions options = parts();
    options.vision = kModels / name;
    options.projector.clear();
    options.resolution = 48;
    const Checkpoint composed = compose_checkpoint(options);
    const Checkpoint tower = open_checkpoint(kModels / name);
    EXPECT_EQ(composed.config.family, std::string("pali3-") + name);
    EXPECT_EQ(composed.config.projector->skip, name == std::string("clip") ? 1 : 0);
    EXPECT_EQ(composed.config.preprocessing.size, 48);
    EXPECT_EQ(composed.config.preprocessing.resized, 48);
    EXPECT_EQ(composed.config.preprocessing.fit, tower.config.preprocessing.fit);
    EXPECT_EQ(composed.table.values("vision.class"), tower.table.values("vision.class"));
    std::vector<float> stored = tower.table.values("vision.pos");
    std::vector<float> found = composed.table.values("vision.pos");
    ASSERT_EQ(found.size(), 26u * 24);
    const Tensor expected = resize_positions({stored.data() + 24, 9, 24}, 3, 5);
    stored.resize(24);
    EXPECT_EQ(std::vector<float>(found.begin(), found.begin() + 24), stored);
    EXPECT_EQ(std::vector<float>(found.begin() + 24, found.end()), flat(expected.view()));

    // Composed once more, with another language model: what was chosen stays.
    TempFolder folder;
    options.vision = folder / "first.safetensors";
    write_checkpoint(composed, std::nullopt, options.vision);
    options.resolution = 0;
    const Checkpoint again = compose_checkpoint(options);
    EXPECT_EQ(again.config.family, composed.config.family);
    EXPECT_EQ(again.config.projector->skip, composed.config.projector->skip);
    EXPECT_EQ(again.table.values("vision.pos"), found);
  }
}

// The folder's own config.json may say which tokens go on.
TEST(Compose, TakesTheStrategyOfTheVisionFolder) {
  TempFolder folder;
  ComposeOptions options = parts();
  options.projector.clear();
  options.vision = folder / "clip";
  std::filesystem::copy(kModels / "clip", options.vision);
  Json config = read_json_file(kModels / "clip" / "config.json");
  config["vision_feature_select_strategy"] = "full";
  write_text(options.vision / "config.json", config.dump());
  EXPECT_EQ(compose_checkpoint(options).config.projector->skip, 0);
  config["vision_feature_select_strategy"] = "some";
  write_text(options.vision / "config.json", config.dump());
  EXPECT_EQ(caught([&] { compose_checkpoint(options); }).code, ErrorCode::unsupported);
}

TEST(Compose, RefusesPartsThatDoNotFit) {
  TempFolder folder;
  ComposeOptions options = parts();
  options.vision = kModels / "ul2";
  EXPECT_EQ(caught([&] { compose_checkpoint(options); }).code, ErrorCode::invalid_argument);
  options = parts();
  options.language = kModels / "siglip_vision";
  EXPECT_EQ(caught([&] { compose_checkpoint(options); }).code, ErrorCode::invalid_argument);
  options = parts();
  options.language = kModels / "ul2";  // another width than the projector's
  const Caught error = caught([&] { compose_checkpoint(options); });
  EXPECT_EQ(error.code, ErrorCode::corrupt_file);
  EXPECT_NE(error.what.find("projector/weight"), std::string::npos) << error.what;
  options = parts();
  const std::vector<SafetensorsOutput> other{
      {"x", DType::f32, {1}, [](std::span<std::byte> out) { std::memset(out.data(), 0, 4); }}};
  options.projector = folder / "p.safetensors";
  write_safetensors(options.projector, other, {});
  EXPECT_EQ(caught([&] { compose_checkpoint(options); }).code, ErrorCode::corrupt_file);
}

}  // namespace
}  // namespace pali::test
