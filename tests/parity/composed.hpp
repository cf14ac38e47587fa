// What the tests of composed models share: images through tower and projector, then the language
// model.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "image/image.hpp"
#include "parity/language.hpp"

namespace pali::parity {

struct Composed {
  Stages vision;  // image{j}/...
  LanguageRun language;
};

inline Composed run_case(Rig& rig, const Json& item) {
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

// Every case of the golden.
inline void expect_composed(const std::string& name, const Golden& golden, Rig& rig) {
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

// bf16 products (activations rounded too, sums in f32), the same on one thread and on two. 2^-9 an
// operand, two operands a product, three products deep in the residual stream of each of the
// layers: a few percent of the largest element at most.
inline void expect_near_f32(const std::string& name, const Golden& golden, Rig& one, Rig& two) {
  Json item = golden.json()["cases"][0];
  item["beams"] = item["scores"] = Json::array();
  const Composed run = run_case(one, item), again = run_case(two, item);
  expect_same_stages(name + " on two threads", run.vision, again.vision);
  expect_same(name + " on two threads", run.language, again.language);
  for (const std::string stage : {"image0/projected", "encoder.memory", "logits.0"}) {
    const Stages& stages = stage.starts_with("image") ? run.vision : run.language.stages;
    const double error = relative_error(stages.at(stage), golden.values("case0/" + stage));
    record("bf16 products " + stage.substr(stage.find('/') + 1), error);
    EXPECT_LT(error, 0.03) << stage;
  }
}

}  // namespace pali::parity
