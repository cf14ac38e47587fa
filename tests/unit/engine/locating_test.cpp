// A model that is built to answer with known <loc> and <seg> tokens (tools/golden/make_boxes.py):
// what the library makes of them, in pixels of pictures of several sizes, against big_vision's
// arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

#include "io/json.hpp"
#include "unit/engine/fixtures.hpp"

namespace pali::testing {
namespace {

class Locating : public ::testing::Test {
 protected:
  static Engine open(const std::filesystem::path& path = model("paligemma_boxes")) {
    EngineOptions options = threads(1);
    options.mask_decoder = test::data("masks/vae-oid.npz");
    return Engine::open(path, options);
  }
  static Request request(Task task, Image image) {
    Request request;
    request.task = task;
    request.images = {std::move(image)};
    request.prompt = "cat ; dog";
    request.generation.max_tokens = 80;
    return request;
  }
  // The result against the golden of a picture of that size.
  void expect_boxes(const Result& found, const Json& place, bool masks) {
    const Json& boxes = place["boxes"];
    ASSERT_EQ(found.boxes.size(), boxes.size());
    EXPECT_EQ(found.invalid_boxes, 1);
    for (size_t i = 0; i < boxes.size(); ++i) {
      const Box& box = found.boxes[i];
      const Json& expected = boxes[i];
      EXPECT_EQ(box.label, expected["label"].get<std::string>());
      const double corners[] = {box.x0, box.y0, box.x1, box.y1};
      for (size_t c = 0; c < 4; ++c) {
        EXPECT_NEAR(corners[c], expected["box"][c].get<double>(), 1e-9) << i << ", corner " << c;
      }
      ASSERT_EQ(box.mask.has_value(), masks);
      if (!masks) continue;
      EXPECT_EQ(box.mask->width, place["width"].get<int>());
      EXPECT_EQ(box.mask->height, place["height"].get<int>());
      // Nearer to the threshold than decoders agree (tests/unit/tasks/mask_test.cpp), rounding
      // decides.
      if (expected["nearest_to_zero"].get<double>() < 1e-4) continue;
      ++masks_compared_;
      EXPECT_EQ(box.mask->counts, expected["counts"].get<std::vector<uint32_t>>());
    }
  }
  int masks_compared_ = 0;
  const Json golden_ = read_json_file(model("paligemma_boxes") / "golden.json");
};

TEST_F(Locating, BoxesAndMasksOfEveryShapeOfPicture) {
  const Engine engine = open();
  for (const Json& place : golden_["places"]) {
    const int width = place["width"], height = place["height"];
    SCOPED_TRACE(std::to_string(width) + " x " + std::to_string(height));
    const Result boxes = engine.run(request(Task::detect, picture(1, width, height)));
    EXPECT_EQ(boxes.tokens, golden_["tokens"].get<std::vector<int32_t>>());
    expect_boxes(boxes, place, /*masks=*/false);
    expect_boxes(engine.run(request(Task::segment, picture(1, width, height))), place, true);
  }
  EXPECT_GE(masks_compared_, 6);
}

TEST_F(Locating, ScoreIsTheMeanProbabilityOfTheCorners) {
  const Result found = open().run(request(Task::detect, picture(1)));
  ASSERT_EQ(found.boxes.size(), 2u);
  const Json& tokens = golden_["token_logprobs"];
  // Four corners, 16 codes, three letters and a separator lie before the second box.
  for (const size_t box : {size_t{0}, size_t{1}}) {
    double sum = 0;
    for (size_t i = 0; i < 4; ++i) sum += tokens[24 * box + i].get<double>();
    ASSERT_TRUE(found.boxes[box].score.has_value());
    EXPECT_LT(*found.boxes[box].score, 0.99);
    EXPECT_NEAR(*found.boxes[box].score, std::exp(sum / 4), 1e-4);
  }
}

TEST_F(Locating, ConvertedFileSaysTheSame) {
  const TempFolder folder;
  ConvertOptions options;
  options.source = model("paligemma_boxes");
  options.output = folder / "boxes.safetensors";
  convert(options);
  const Json& place = golden_["places"][0];
  const Engine engine = open(options.output);
  const Image image = picture(1, place["width"], place["height"]);
  expect_boxes(engine.run(request(Task::segment, image)), place, true);
}

// An encoder that sees the middle square of a picture twice as wide as it is high, or the reverse:
// boxes lie in that square, in pixels of the whole picture.
TEST_F(Locating, BoxesOfAnEncoderThatCrops) {
  const TempFolder folder;
  std::filesystem::copy(model("paligemma_boxes"), folder / "crops");
  const std::filesystem::path config = folder / "crops" / "preprocessor_config.json";
  Json how = read_json_file(config);
  const Json side = how["size"]["height"];
  how["size"] = {{"shortest_edge", side}};
  how["crop_size"] = {{"height", side}, {"width", side}};
  how["do_center_crop"] = true;
  std::ofstream(config) << how;
  const Engine engine = open(folder / "crops");
  const Json& place = golden_["places"][0];
  for (const auto& [width, height] : {std::pair(80, 40), std::pair(40, 80), std::pair(40, 40)}) {
    SCOPED_TRACE(std::to_string(width) + " x " + std::to_string(height));
    const Result found = engine.run(request(Task::detect, picture(1, width, height)));
    EXPECT_EQ(found.tokens, golden_["tokens"].get<std::vector<int32_t>>());
    ASSERT_EQ(found.boxes.size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      const Box& box = found.boxes[i];
      const double corners[] = {box.x0, box.y0, box.x1, box.y1};
      for (size_t c = 0; c < 4; ++c) {
        const char* const along = c % 2 == 0 ? "width" : "height";
        const double part = place["boxes"][i]["box"][c].get<double>() / place[along].get<double>();
        const double begin = ((c % 2 == 0 ? width : height) - 40) / 2;
        EXPECT_NEAR(corners[c], begin + 40 * part, 1e-9) << i << ", corner " << c;
      }
    }
  }
}

// What the model would say has corners in the wrong order in its third group; allowed to say what
// is well-formed alone, it has none.
TEST_F(Locating, ConstrainedAnswersAreWellFormed) {
  const Engine engine = open();
  const Json& place = golden_["places"][0];
  for (const Task task : {Task::detect, Task::segment}) {
    for (const int tokens : {5, 6, 21, 22, 40, 80}) {
      if (task == Task::segment && tokens < 21) continue;
      for (const int beams : {1, 3}) {
        SCOPED_TRACE(std::to_string(tokens) + " tokens, beams " + std::to_string(beams));
        Request asked = request(task, picture(1, place["width"], place["height"]));
        asked.generation.constrain = true;
        asked.generation.max_tokens = tokens;
        asked.generation.beams = beams;
        const Result found = engine.run(asked);
        EXPECT_EQ(found.invalid_boxes, 0);
        EXPECT_FALSE(found.boxes.empty());
        for (size_t c = 0; c < 4; ++c) {
          EXPECT_EQ(found.tokens[c], golden_["tokens"][c].get<int32_t>());
        }
      }
    }
  }
  Request asked = request(Task::segment, picture(1, place["width"], place["height"]));
  asked.generation.constrain = true;
  const Result found = engine.run(asked);
  ASSERT_GE(found.boxes.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found.boxes[i].mask->counts,
              place["boxes"][i]["counts"].get<std::vector<uint32_t>>());
  }
}

}  // namespace
}  // namespace pali::testing
