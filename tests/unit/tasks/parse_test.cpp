#include "tasks/parse.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace pali {
namespace {

// 999 x 1998 pixels: a coordinate is a pixel across and two pixels down.
Detections parse(std::string_view text, std::string_view fallback = "thing") {
  return parse_detections(text, 999, 1998, fallback, {}, {});
}

// "label x0 y0 x1 y1" of every box, then the count of invalid groups.
std::string told(const Detections& found) {
  std::string out;
  for (const Box& box : found.boxes) {
    out += box.label;
    for (const double v : {box.x0, box.y0, box.x1, box.y1}) {
      out += " " + std::to_string(std::lround(v));
    }
    out += " | ";
  }
  return out + std::to_string(found.invalid);
}

TEST(ParseDetections, NumbersThenLabel) {
  const Detections found = parse("10 20 30 40 hot dog ; 0 0 999 999 cat");
  EXPECT_EQ(told(found), "hot dog 20 20 40 60 | cat 0 0 999 1998 | 0");
  EXPECT_FALSE(found.boxes[0].score.has_value());
}

TEST(ParseDetections, EveryFormThatModelsWrite) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"10 20 30 40 cat", "cat 20 20 40 60 | 0"},
      {"10 20 30 40", "thing 20 20 40 60 | 0"},
      {"10 20 30 40;1 2 3 4", "thing 20 20 40 60 | thing 2 2 4 6 | 0"},
      {"cat 10 20 30 40", "cat 20 20 40 60 | 0"},
      {"cat: 10, 20, 30, 40", "cat 20 20 40 60 | 0"},
      {"[10,20,30,40] cat", "cat 20 20 40 60 | 0"},
      {"10 20 30 40 cat,", "cat 20 20 40 60 | 0"},
      {"  10\t20\n30 40   big   cat  ", "big cat 20 20 40 60 | 0"},
      // no semicolon
      {"10 20 30 40 cat 1 2 3 4 dog", "cat 20 20 40 60 | dog 2 2 4 6 | 0"},
      {"cat 10 20 30 40 dog 1 2 3 4", "cat 20 20 40 60 | dog 2 2 4 6 | 0"},
      {"10 20 30 40 1 2 3 4", "thing 20 20 40 60 | thing 2 2 4 6 | 0"},
      // numbers in labels
      {"10 20 30 40 7up", "7up 20 20 40 60 | 0"},
      {"10 20 30 40 route 66", "route 66 20 20 40 60 | 0"},
      {"10 20 30 40 66", "66 20 20 40 60 | 0"},
      {"player 7 10 20 30 40", "player 7 20 20 40 60 | 0"},
      {"10 20 30 40 call 5000 6000 7000 8000", "call 5000 6000 7000 8000 20 20 40 60 | 0"},
      // mask tokens and sentinels are no label
      {"10 20 30 40 <mask_token_81> <mask_token_3>", "thing 20 20 40 60 | 0"},
      {"10 20 30 40 caf\xc3\xa9 \xe5\x9b\xbe", "caf\xc3\xa9 \xe5\x9b\xbe 20 20 40 60 | 0"},
      // degenerate boxes are boxes
      {"5 5 5 5 dot", "dot 5 10 5 10 | 0"},
      {"010 020 0030 040 cat", "cat 20 20 40 60 | 0"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(told(parse(text)), expected) << text;
}

TEST(ParseDetections, NothingFound) {
  for (const char* text : {"", "none", " ; ;; ", "nothing to see", "<extra_id_0>", "\n"}) {
    EXPECT_EQ(told(parse(text)), "0") << text;
  }
}

TEST(ParseDetections, GroupsThatAreNoBoxAreCounted) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"10 20 30 cat", "1"},
      {"10 20 30 1000 cat", "1"},
      {"30 20 10 40 cat", "1"},  // upside down
      {"10 40 30 20 cat", "1"},
      {"99999999999999999999999 1 2 3 cat", "1"},
      {"-1 2 3 4 cat", "1"},
      {"1.5 2 3 4 cat", "1"},
      {"10 20 cat ; 1 2 3 4 dog ; 5 6", "dog 2 2 4 6 | 2"},
      {"30 20 10 40 cat 1 2 3 4 dog", "dog 2 2 4 6 | 1"},
      {"1 2 3 4", "thing 2 2 4 6 | 0"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(told(parse(text)), expected) << text;
}

TEST(ParseDetections, PixelsAreOfTheWholeSide) {
  const Box box = parse_detections("0 0 999 500 x", 640, 480, "", {}, {}).boxes.at(0);
  EXPECT_DOUBLE_EQ(box.y1, 480);
  EXPECT_DOUBLE_EQ(box.x1, 640 * 500 / 999.0);
}

TEST(ParseDetections, ScoreIsTheGeometricMeanOfTheNumbersTokens) {
  //                         0123456789012345678901234567
  const std::string text = "10 200 30 400 cat ; 1 2 3 4";
  // tokens: "10" " 2" "00" " 30" " 400" " cat" " ;" " 1" " 2" " 3" " 4"
  const std::vector<size_t> ends = {2, 4, 6, 9, 13, 17, 19, 21, 23, 25, 27};
  const std::vector<float> logprobs = {-0.1f, -0.2f, -0.3f, -0.4f, -0.5f, -9, -9, 0, 0, 0, -2};
  const Detections found = parse_detections(text, 10, 10, "", ends, logprobs);
  ASSERT_EQ(found.boxes.size(), 2u);
  EXPECT_NEAR(found.boxes[0].score.value(), std::exp(-0.3), 1e-6);
  EXPECT_NEAR(found.boxes[1].score.value(), std::exp(-0.5), 1e-6);
}

TEST(ParseDetections, OddTokenSpansAreSafe) {
  const std::string text = "10 20 30 40 cat";
  const std::vector<size_t> far = {100, 3, std::numeric_limits<size_t>::max(), 0};
  const std::vector<float> nan = {std::nanf(""), 0, 0, 0};
  EXPECT_EQ(parse_detections(text, 9, 9, "", far, nan).boxes.size(), 1u);
  const std::vector<size_t> one = {text.size()};
  EXPECT_FALSE(parse_detections(text, 9, 9, "", one, nan).boxes.at(0).score.has_value());
  // Fewer probabilities than tokens: what is there counts.
  const std::vector<size_t> ends = {2, 5, 8, 11, 15};
  const std::vector<float> two = {-1, -1};
  EXPECT_NEAR(parse_detections(text, 9, 9, "", ends, two).boxes.at(0).score.value(), std::exp(-1),
              1e-6);
}

TEST(ParseDetections, AnyBytesGiveSoundBoxes) {
  std::mt19937 random(7);
  const std::string alphabet = "0123456789 9 9 9;;,[]()<>-.ab\n\t\xc3\xa9\xff";
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = random() % 60; i > 0; --i) text += alphabet[random() % alphabet.size()];
    if (round % 10 == 0) text += '\0';
    std::vector<size_t> ends;
    std::vector<float> logprobs;
    for (size_t at = 0; at < text.size(); at += 1 + random() % 4) {
      ends.push_back(at);
      logprobs.push_back(-static_cast<float>(random() % 100) / 10);
    }
    const Detections found = parse_detections(text, 640, 480, "thing", ends, logprobs);
    EXPECT_GE(found.invalid, 0);
    for (const Box& box : found.boxes) {
      EXPECT_FALSE(box.label.empty()) << text;
      EXPECT_TRUE(0 <= box.x0 && box.x0 <= box.x1 && box.x1 <= 640) << text;
      EXPECT_TRUE(0 <= box.y0 && box.y0 <= box.y1 && box.y1 <= 480) << text;
      EXPECT_TRUE(!box.score || (*box.score >= 0 && *box.score <= 1)) << text;
    }
  }
}

TEST(ParseDetections, AMegabyteIsReadAtOnce) {
  std::string text;
  while (text.size() < (1 << 20)) text += "1 2 3 4 a b c 7 ; ";
  EXPECT_EQ(parse(text).boxes.size(), text.size() / 18);
  EXPECT_EQ(parse(std::string(1 << 20, '9')).invalid, 1);
  EXPECT_EQ(parse(std::string(1 << 20, ';')).invalid, 0);
}

}  // namespace
}  // namespace pali
