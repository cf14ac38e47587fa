// Weights made up for benchmarks run, and the presets of models/configs are what they say.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "model/configs/family.hpp"
#include "support/paths.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

namespace fs = std::filesystem;

TEST(RandomCheckpoint, RunsAndComesFromTheSeed) {
  TempFolder folder;
  write_text(folder / "config.json", pali3_json());
  for (const DType dtype : {DType::f32, DType::bf16, DType::i8, DType::i4}) {
    const Checkpoint again = random_checkpoint(folder / "config.json", dtype, 3);
    Checkpoint checkpoint = random_checkpoint(folder / "config.json", dtype, 3);
    // Never narrower than conversion makes it.
    EXPECT_EQ(checkpoint.table.matrix("lm.embed").dtype, dtype == DType::i4 ? DType::i8 : dtype);
    EXPECT_EQ(checkpoint.table.matrix("projector.weight").dtype,
              is_quantised(dtype) ? DType::bf16 : dtype);
    EXPECT_EQ(checkpoint.table.matrix("lm.encoder.blocks.0.mlp.up.weight").dtype, dtype);
    checkpoint.table.load(checkpoint.store);
    EXPECT_EQ(checkpoint.table.matrix("lm.encoder.norm.weight").dtype, DType::f32);
    EXPECT_EQ(checkpoint.table.values("lm.embed"), again.table.values("lm.embed"));
    ModelOptions options;
    options.policy = {MatmulBackend::native, ComputeType::f32, Isa::scalar};
    const Model model = build_model(std::move(checkpoint), options);
    TestContext run;
    const Tensor tokens = model.vision->run(run.context, random_matrix(3, 17 * 17, 1).view());
    const Tensor prefix = model.projector->run(run.context, tokens.view());
    const std::vector<ConstMat> prefixes{prefix.view()};
    auto decoder = model.language->start(run.context, prefixes, {2, 1});
    int32_t id = model.language->start_token();
    for (int t = 0; t < 2; ++t) {
      ScoredToken best;
      decoder->head().argmax(run.context, decoder->step(run.context, {&id, 1}), {&best, 1});
      EXPECT_TRUE(std::isfinite(best.logprob));
      id = best.id;
    }
  }
  EXPECT_EQ(caught([&] { random_checkpoint(folder / "config.json", DType::f16, 1); }).code,
            ErrorCode::unsupported);
  EXPECT_EQ(caught([&] { random_checkpoint(folder / "none.json", DType::f32, 1); }).code,
            ErrorCode::not_found);
}

// Terabytes are refused before the first byte is allocated: writing to them would end the process.
TEST(RandomCheckpoint, MoreThanTheMachineHasIsAnError) {
  TempFolder folder;
  Json config = Json::parse(t5_json());
  config["d_model"] = 65536;
  config["d_ff"] = 262144;
  config["num_layers"] = config["num_decoder_layers"] = 1024;
  write_text(folder / "config.json", config.dump());
  const Caught error = caught([&] { random_checkpoint(folder / "config.json", DType::bf16, 1); });
  EXPECT_EQ(error.code, ErrorCode::out_of_memory) << error.what;
  // Two stacks of 1024 layers, three matrices each: 2 * 1024 * 3 * 2^34 * 2 bytes and a little.
  EXPECT_NE(error.what.find("need 21"), std::string::npos) << error.what;
  EXPECT_NE(error.what.find(" GB of memory are available"), std::string::npos) << error.what;
}

// Parameters of every preset, from its rows: nothing is allocated.
TEST(Presets, HaveTheSizesOfTheirModels) {
  // Millions, by arithmetic from the sizes that the papers print: ViT-G/14 1842.8 and its pooling
  // head 38.4; T5-XL; ViT-G/14 and T5-XL with mT5's vocabulary. So400m/14 with Gemma and Gemma 2;
  // 448 and 896 px add rows of positions. T5Gemma 2: So400m/14 at 896 px 416.9, embeddings of
  // Gemma 3 (167.8, 302.0, 671.1), its blocks twice (100.3, 697.9, 3209.0), and the projector.
  const std::map<std::string, double> expected = {
      {"siglip-g-14-224", 1881.1},     {"ul2-xl", 2849.8},           {"pali3-5b", 5076.6},
      {"siglip-so400m-14-224", 877.4}, {"paligemma-3b-224", 2923.5}, {"paligemma-3b-448", 2924.4},
      {"paligemma-3b-896", 2927.9},    {"paligemma2-3b", 3032.2},    {"paligemma2-3b-448", 3033.1},
      {"paligemma2-3b-896", 3036.7},   {"paligemma2-10b", 9662.6},   {"paligemma2-28b", 27650.5},
      {"t5gemma2-270m", 786.0},        {"t5gemma2-1b", 2116.0},      {"t5gemma2-4b", 7508.9}};
  std::map<std::string, double> found;
  for (const auto& entry : fs::directory_iterator(test::source("models/configs"))) {
    ConfigFiles files;
    files.where = entry.path().string();
    files.config = read_json_file(entry.path());
    const Family family = read_family(files);
    int64_t elements = 0;
    for (const TensorRule& rule : family.rules) {
      if (rule.optional && !family.config.language->separate_head) continue;
      int64_t product = 1;
      for (const int64_t size : rule.shape) product *= size;
      elements += product;
    }
    found[entry.path().stem().string()] = std::round(static_cast<double>(elements) / 1e5) / 10;
  }
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace pali::test
