#include "tasks/locations.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

namespace pali {
namespace {

// Ids 0 .. 255 are bytes of text, then <loc>, then <seg>.
constexpr LocationIds kIds{256, 256 + kLocations};

struct Answer {
  std::vector<int32_t> ids;
  std::string text;
  std::vector<size_t> ends;
  std::vector<float> logprobs;

  Answer& say(std::string_view words) {
    for (const char c : words) add(static_cast<uint8_t>(c), std::string(1, c));
    return *this;
  }
  Answer& loc(std::initializer_list<int> values) {
    for (const int v : values) add(kIds.loc + v, "<loc>");
    return *this;
  }
  Answer& seg(int count, int first = 0) {
    for (int i = 0; i < count; ++i) add(kIds.seg + (first + i) % kMaskCodes, "<seg>");
    return *this;
  }
  void add(int32_t id, const std::string& piece) {
    ids.push_back(id);
    text += piece;
    ends.push_back(text.size());
    logprobs.push_back(-0.25f * static_cast<float>(ids.size()));
  }
  // 1023 x 2046 pixels: a location is a pixel across and two pixels down.
  Located parse(bool masks = false) const {
    return parse_locations({ids, text, ends, logprobs}, kIds, 1023, 2046, "thing", masks);
  }
};

std::string told(const Located& found) {
  std::string out;
  for (const Box& box : found.boxes) {
    out += box.label;
    for (const double v : {box.x0, box.y0, box.x1, box.y1})
      out += " " + std::to_string(std::lround(v));
    out += " | ";
  }
  return out + std::to_string(found.invalid);
}

TEST(Locations, YThenXOver1023) {
  const Located found = Answer().loc({10, 20, 30, 1023}).say(" cat").parse();
  ASSERT_EQ(found.boxes.size(), 1u);
  const Box& box = found.boxes[0];
  EXPECT_EQ(box.label, "cat");
  EXPECT_DOUBLE_EQ(box.y0, 20);
  EXPECT_DOUBLE_EQ(box.x0, 20);
  EXPECT_DOUBLE_EQ(box.y1, 60);
  EXPECT_DOUBLE_EQ(box.x1, 1023);
  EXPECT_NEAR(box.score.value(), std::exp(-0.25 * (1 + 2 + 3 + 4) / 4), 1e-6);
}

TEST(Locations, GroupsAndLabels) {
  const auto one = [](Answer& answer) -> Answer& { return answer.loc({1, 2, 3, 4}); };
  Answer a, b, c, d, e, f, g;
  EXPECT_EQ(told(one(one(a).say(" big  cat ; ")).say(" dog").parse()),
            "big  cat 2 2 4 6 | dog 2 2 4 6 | 0");
  EXPECT_EQ(told(one(b).parse()), "thing 2 2 4 6 | 0");
  EXPECT_EQ(told(one(one(c).say(" cat ")).say(" dog").parse()), "cat 2 2 4 6 | dog 2 2 4 6 | 0");
  EXPECT_EQ(told(one(d.say("cat ")).say(" ; ").parse()), "cat 2 2 4 6 | 0");
  EXPECT_EQ(told(one(one(e)).say(" twins").parse()), "thing 2 2 4 6 | twins 2 2 4 6 | 0");
  EXPECT_EQ(told(f.loc({1}).say(" ").loc({2, 3}).say(" ").loc({4}).say("x").parse()),
            "x 2 2 4 6 | 0");
  EXPECT_EQ(told(g.say("no cats here ; none").parse()), "0");
  EXPECT_EQ(told(Answer().parse()), "0");
}

TEST(Locations, WhatIsNoBoxIsCounted) {
  EXPECT_EQ(told(Answer().loc({1, 2, 3}).say(" cat").parse()), "1");
  EXPECT_EQ(told(Answer().loc({1, 2, 3, 4, 5}).say(" cat").parse()), "thing 2 2 4 6 | 1");
  EXPECT_EQ(told(Answer().loc({3, 2, 1, 4}).say(" swapped").parse()), "1");
  EXPECT_EQ(told(Answer().loc({1, 2, 1, 4}).say(" flat").parse()), "1");
  EXPECT_EQ(told(Answer().loc({1, 2, 3, 2}).say(" thin").parse()), "1");
  EXPECT_EQ(told(Answer().loc({1, 2}).say(" a ").loc({3, 4}).say(" b").parse()), "2");
  EXPECT_EQ(told(Answer().loc({3, 2, 1, 4}).say(" bad ; ").loc({1, 2, 3, 4}).say(" good").parse()),
            "good 2 2 4 6 | 1");
}

TEST(Locations, MasksNeedSixteenCodes) {
  const Located found = Answer().loc({1, 2, 30, 40}).seg(16, 120).say(" cat").parse(true);
  ASSERT_EQ(told(found), "cat 2 2 40 60 | 0");
  ASSERT_EQ(found.codes.size(), 1u);
  EXPECT_EQ(found.codes[0][0], 120);
  EXPECT_EQ(found.codes[0][8], 0);
  for (const int count : {0, 1, 15, 17}) {
    EXPECT_EQ(told(Answer().loc({1, 2, 30, 40}).seg(count).say(" cat").parse(true)), "1") << count;
    EXPECT_EQ(told(Answer().loc({1, 2, 30, 40}).seg(count).say(" cat").parse()),
              "cat 2 2 40 60 | 0");
  }
  EXPECT_EQ(told(Answer().seg(16).parse(true)), "1");
  EXPECT_EQ(told(Answer().seg(16).parse()), "0");
  EXPECT_EQ(told(Answer().loc({1, 2, 30, 40}).seg(16).loc({1, 2, 3, 4}).seg(16).parse(true)),
            "thing 2 2 40 60 | thing 2 2 4 6 | 0");
}

TEST(Locations, AMaskNeedsAWholePixel) {
  const Answer answer = Answer().loc({100, 100, 101, 101}).seg(16);
  const AnswerTokens tokens{answer.ids, answer.text, answer.ends, answer.logprobs};
  EXPECT_EQ(parse_locations(tokens, kIds, 100, 100, "", true).invalid, 1);
  EXPECT_EQ(parse_locations(tokens, kIds, 100, 100, "", false).boxes.size(), 1u);
}

TEST(Locations, NoScoreWithoutProbabilities) {
  Answer answer = Answer().loc({1, 2, 3, 4}).say(" cat");
  answer.logprobs = {-1, -1};
  EXPECT_FALSE(answer.parse().boxes.at(0).score.has_value());
  answer.logprobs = {-1, -1, std::nanf(""), -1, 0};
  EXPECT_FALSE(answer.parse().boxes.at(0).score.has_value());
  answer.logprobs.assign(4, 1.0f);
  EXPECT_EQ(answer.parse().boxes.at(0).score.value(), 1.0);
}

// PALI_RANDOM_ANSWERS: how many; a million take half a minute under the sanitizers.
TEST(Locations, AnyTokensGiveSoundBoxes) {
  const char* given = std::getenv("PALI_RANDOM_ANSWERS");
  const int rounds = given == nullptr ? 20000 : std::atoi(given);
  std::mt19937 random(11);
  const auto below = [&](uint32_t limit) { return static_cast<int32_t>(random() % limit); };
  size_t boxes = 0;
  int64_t invalid = 0;
  for (int round = 0; round < rounds; ++round) {
    Answer answer;
    for (int32_t i = below(60); i > 0; --i) {
      const int32_t kind = below(20);
      if (kind < 8) {
        const int y = below(900), x = below(900);
        answer.loc({y, x, y + 1 + below(100), x + 1 + below(100)});
        if (kind < 4) answer.seg(kind == 0 ? below(20) : 16, below(kMaskCodes));
      } else if (kind < 10) {
        answer.loc({below(kLocations)});
      } else if (kind < 12) {
        answer.seg(below(18));
      } else if (kind < 15) {
        answer.say(kind == 12 ? ";" : kind == 13 ? " cat " : " ");
      } else {
        const auto id = kind < 18 ? below(1600) : static_cast<int32_t>(random());
        answer.add(id, std::string(static_cast<size_t>(below(3)), static_cast<char>(below(256))));
      }
    }
    // Offsets and probabilities that do not belong to the tokens.
    if (below(4) == 0) answer.ends.resize(static_cast<size_t>(below(30)), random());
    if (below(4) == 0) answer.logprobs.resize(static_cast<size_t>(below(30)), std::nanf(""));
    const bool masks = below(2) == 0;
    const Located found = parse_locations({answer.ids, answer.text, answer.ends, answer.logprobs},
                                          kIds, 640, 480, "thing", masks);
    boxes += found.boxes.size();
    invalid += found.invalid;
    ASSERT_EQ(found.codes.size(), masks ? found.boxes.size() : 0u);
    for (const Box& box : found.boxes) {
      ASSERT_FALSE(box.label.empty());
      ASSERT_TRUE(0 <= box.x0 && box.x0 < box.x1 && box.x1 <= 640);
      ASSERT_TRUE(0 <= box.y0 && box.y0 < box.y1 && box.y1 <= 480);
      ASSERT_TRUE(!box.score || (*box.score >= 0 && *box.score <= 1));
    }
    for (const MaskCodes& codes : found.codes) {
      for (const uint8_t code : codes) ASSERT_LT(code, kMaskCodes);
    }
  }
  EXPECT_GT(boxes, static_cast<size_t>(rounds));
  EXPECT_GT(invalid, rounds);
}

TEST(Locations, AMillionTokensAreReadAtOnce) {
  Answer answer;
  while (answer.ids.size() < 1000000) answer.loc({1, 2, 3, 4}).say(" a;");
  EXPECT_EQ(answer.parse().boxes.size(), answer.ids.size() / 7);
}

}  // namespace
}  // namespace pali
