// A PaLI-3 put together from its parts.
#include <gtest/gtest.h>

#include <cstring>

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
