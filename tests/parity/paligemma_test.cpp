// PaliGemma 1 and 2, and T5Gemma 2, against transformers: image -> tokens -> projector -> prefix ->
// text; no image, one and two; on every way.
#include <gtest/gtest.h>

#include "engine/state.hpp"
#include "image/image.hpp"
#include "parity/language.hpp"

namespace pali::parity {
namespace {

class PaliGemma : public ::testing::TestWithParam<Run> {};

struct PaliGemmaRun {
  Stages vision;  // image{j}/...
  std::vector<int32_t> ids;
  LanguageRun language;
};

PaliGemmaRun run_case(Rig& rig, const Json& item) {
  const Model& model = rig.model();
  PaliGemmaRun out;
  std::vector<Tensor> parts;
  for (size_t j = 0; j < item["images"].size(); ++j) {
    rig.set_prefix("image" + std::to_string(j) + "/");
    const Image image = Image::from_file(image_file(item["images"][j].get<std::string>()));
    const Tensor pixels = preprocess(image, model.checkpoint.config.preprocessing);
    const Tensor tokens = model.vision->run(rig.context(), pixels.view());
    parts.push_back(model.projector->run(rig.context(), tokens.view()));
  }
  rig.set_prefix("");
  out.vision = rig.take_stages();

  out.ids = prompt_ids(rig.tokenizer(), model.checkpoint.config, item["prompt"].get<std::string>(),
                       parts.size());
  int64_t rows = static_cast<int64_t>(out.ids.size());
  for (const Tensor& part : parts) rows += part.rows() - 1;
  Tensor prefix(rows, rig.language().width());
  int64_t at = 0;
  size_t image = 0;
  for (const int32_t id : out.ids) {
    if (id != kImagePlace) {
      rig.language().embed(std::span(&id, 1), prefix.view().rows_from(at++, 1));
      continue;
    }
    const Tensor& part = parts[image++];
    for (int64_t i = 0; i < part.rows(); ++i) {
      std::copy_n(part.row(i), part.cols(), prefix.row(at++));
    }
  }
  out.language = run_language(rig, prefix.view(), item);
  return out;
}

// The processor's ids with each run of an image's placeholders as one place.
std::vector<int32_t> expected_ids(const Json& item) {
  if (item.contains("image_token")) {
    const auto image = item["image_token"].get<int32_t>();
    const auto tokens = item["tokens_per_image"].get<int>();
    std::vector<int32_t> out;
    int seen = 0;
    for (const int32_t id : ids(item["input_ids"])) {
      if (id != image) {
        out.push_back(id);
      } else if (seen++ % tokens == 0) {
        out.push_back(kImagePlace);
      }
    }
    return out;
  }
  std::vector<int32_t> out(item["images"].size(), kImagePlace);
  const std::vector<int32_t> text = ids(item["text_ids"]);
  out.insert(out.end(), text.begin(), text.end());
  return out;
}

TEST_P(PaliGemma, AgreesWithTheReference) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    const std::string where = name + " case " + std::to_string(c);
    const PaliGemmaRun run = run_case(rig, cases[c]);
    EXPECT_EQ(run.ids, expected_ids(cases[c])) << where;
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

TEST_P(PaliGemma, SameBitsOnTwoThreads) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig one(model_dir(name), way, 1), two(model_dir(name), way, 2);
  const Json& cases = golden.json()["cases"];
  for (size_t c = 0; c < cases.size(); ++c) {
    const PaliGemmaRun a = run_case(one, cases[c]), b = run_case(two, cases[c]);
    expect_same_stages(name, a.vision, b.vision);
    expect_same(name, a.language, b.language);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PaliGemma,
                         ::testing::ValuesIn(runs_of({"paligemma", "paligemma_bf16", "paligemma2",
                                                      "paligemma2_bf16", "t5gemma2",
                                                      "t5gemma2_bf16"})),
                         run_name);

// bf16 products: the weights are bf16 already, so each product adds the rounding of its input
// alone, 2^-9 of it at most, and sums are f32. Norms keep a relative error and the residual stream
// adds the errors of what is added to it; so a stage is off by at most 2^-9 for each product that
// lies behind one another on the way to it: the patches, four in a block (q k v, o, gate and up,
// down) and the projector.
class PaliGemmaInBf16 : public ::testing::TestWithParam<Run> {};

TEST_P(PaliGemmaInBf16, StaysWithinItsRoundings) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  Rig rig(model_dir(name), way, 1), two(model_dir(name), way, 2);
  const ModelConfig& config = rig.model().checkpoint.config;
  const LanguageConfig& language = *config.language;
  Json item = golden.json()["cases"][0];
  item["beams"] = item["scores"] = Json::array();
  const PaliGemmaRun run = run_case(rig, item), again = run_case(two, item);
  expect_same_stages(name + " on two threads", run.vision, again.vision);
  expect_same(name + " on two threads", run.language, again.language);

  const bool encodes = language.encoder_layers > 0;
  const int64_t projected = 1 + 4 * config.vision->layers + 1;
  const int64_t prefix =
      projected + 4 * (encodes ? language.encoder_layers : language.decoder_layers);
  const int64_t logits = prefix + (encodes ? 4 * language.decoder_layers : 0) + 1;
  struct Row {
    std::string stage;
    int64_t products;
  };
  for (const auto& [stage, products] :
       {Row{"image0/projected", projected},
        Row{encodes ? "encoder.memory" : "prefix.hidden", prefix}, Row{"logits.0", logits}}) {
    const Stages& stages = stage.starts_with("image") ? run.vision : run.language.stages;
    const double error = relative_error(stages.at(stage), golden.values("case0/" + stage));
    record("bf16 products " + name + " " + stage, error);
    EXPECT_LE(error, static_cast<double>(products) / 512) << stage;
  }
}

std::vector<Run> bf16_runs() {
  std::vector<Run> runs = runs_of({"paligemma_bf16", "paligemma2_bf16", "t5gemma2_bf16"});
  for (Run& run : runs) run.way.compute = ComputeType::bf16;
  return runs;
}

INSTANTIATE_TEST_SUITE_P(Models, PaliGemmaInBf16, ::testing::ValuesIn(bf16_runs()), run_name);

}  // namespace
}  // namespace pali::parity
