// Bits flipped and files cut short, at fixed places, in every file of a model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "fuzz/damage.hpp"
#include "support/paths.hpp"

namespace pali {
namespace {

using test::DamagedModel;
using test::open_and_use;
using test::Outcome;

const std::filesystem::path kModels = test::data("models");

std::string flip(std::string bytes, size_t bit) {
  bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
  return bytes;
}

size_t header_bytes(const std::string& safetensors) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(safetensors[i]);
  return static_cast<size_t>(length) + 8;
}

// `flips` bits of the first `reach` bytes of a file, `cuts` truncations of the whole of it.
// Returns how often each thing came of it.
std::map<Outcome, int> damage(const DamagedModel& model, const std::string& file, size_t reach,
                              int flips, int cuts) {
  const std::string good = model.read(file);
  std::map<Outcome, int> outcomes;
  test::Places places(file.size());
  for (int i = 0; i < flips; ++i) {
    const size_t bit = places.next(std::min(reach, good.size()) * 8);
    model.write(file, flip(good, bit));
    ++outcomes[open_and_use(model.path(), file + ", bit " + std::to_string(bit))];
  }
  for (int i = 0; i < cuts; ++i) {
    const size_t length = good.size() * static_cast<size_t>(i) / static_cast<size_t>(cuts);
    model.write(file, good.substr(0, length));
    ++outcomes[open_and_use(model.path(), file + " cut to " + std::to_string(length))];
  }
  model.write(file, good);
  return outcomes;
}

class ModelFolder : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    test::limit_address_space();
    ASSERT_EQ(open_and_use(model_.path(), "undamaged"), Outcome::answer);
  }
  DamagedModel model_{kModels / GetParam()};
};

TEST_P(ModelFolder, Config) {
  auto outcomes = damage(model_, "config.json", 1 << 20, 200, 50);
  EXPECT_GE(outcomes[Outcome::error], 50 + 20);
  EXPECT_GT(outcomes[Outcome::answer], 0);
}

TEST_P(ModelFolder, SmallFiles) {
  for (const char* file :
       {"generation_config.json", "preprocessor_config.json", "tokenizer_config.json"}) {
    if (!std::filesystem::exists(model_.path() / file)) continue;
    auto outcomes = damage(model_, file, 1 << 20, 60, 20);
    EXPECT_GE(outcomes[Outcome::error], 20) << file;
  }
}

TEST_P(ModelFolder, Tokenizer) {
  const bool gemma = std::filesystem::exists(model_.path() / "tokenizer.model");
  auto outcomes = damage(model_, gemma ? "tokenizer.model" : "spiece.model", 1 << 20, 200, 50);
  EXPECT_GT(outcomes[Outcome::error], 50);
}

TEST_P(ModelFolder, WeightsHeader) {
  const size_t header = header_bytes(model_.read("model.safetensors"));
  auto outcomes = damage(model_, "model.safetensors", header, 200, 50);
  EXPECT_GE(outcomes[Outcome::error], 50 + 150);
}

TEST_P(ModelFolder, Weights) {
  const std::string good = model_.read("model.safetensors");
  const size_t header = header_bytes(good);
  test::Places places(7);
  for (int i = 0; i < 200; ++i) {
    const size_t bit = header * 8 + places.next((good.size() - header) * 8);
    model_.write("model.safetensors", flip(good, bit));
    open_and_use(model_.path(), "weight bit " + std::to_string(bit));
  }
  // Nothing but the largest exponent: infinities and NaN everywhere.
  model_.write("model.safetensors",
               good.substr(0, header) + std::string(good.size() - header, '\x7f'));
  open_and_use(model_.path(), "huge weights");
  model_.write("model.safetensors",
               good.substr(0, header) + std::string(good.size() - header, '\xff'));
  EXPECT_EQ(open_and_use(model_.path(), "weights that are no numbers"), Outcome::error);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelFolder,
                         testing::Values("pali3", "umt5", "siglip_two_tower", "paligemma2",
                                         "t5gemma2"));

TEST(ModelShards, Index) {
  test::limit_address_space();
  const DamagedModel model(kModels / "pali3_sharded");
  ASSERT_EQ(open_and_use(model.path(), "undamaged"), Outcome::answer);
  auto outcomes = damage(model, "model.safetensors.index.json", 1 << 20, 200, 50);
  EXPECT_GE(outcomes[Outcome::error], 50 + 100);
  for (const auto& entry : std::filesystem::directory_iterator(kModels / "pali3_sharded")) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("model-")) continue;
    outcomes = damage(model, name, header_bytes(model.read(name)), 40, 20);
    EXPECT_GE(outcomes[Outcome::error], 20 + 20) << name;
  }
}

TEST(ModelFile, ConvertedCheckpoint) {
  test::limit_address_space();
  for (const char* name : {"pali3", "siglip_two_tower", "paligemma", "t5gemma2"}) {
    const test::TempFolder folder;
    ConvertOptions options;
    options.source = kModels / name;
    options.output = folder / "model.safetensors";
    convert(options);
    const std::string good = test::slurp(options.output);
    ASSERT_EQ(open_and_use(options.output, "undamaged"), Outcome::answer);
    test::Places places(11);
    for (int i = 0; i < 200; ++i) {
      const size_t bit = places.next(header_bytes(good) * 8);
      folder.write("model.safetensors", flip(good, bit));
      open_and_use(options.output, std::string(name) + ", bit " + std::to_string(bit));
    }
    for (size_t i = 0; i < 50; ++i) {
      folder.write("model.safetensors", good.substr(0, good.size() * i / 50));
      EXPECT_EQ(open_and_use(options.output, "cut " + std::to_string(i)), Outcome::error);
    }
  }
}

}  // namespace
}  // namespace pali
