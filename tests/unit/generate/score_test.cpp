// Scoring given texts of different lengths in one batch.
#include <gtest/gtest.h>

#include "table_decoder.hpp"

namespace pali {
namespace {

using test::Fixture;
using test::TableDecoder;

TEST(Score, EveryTokenHasTheLogprobOfItsOwnHistory) {
  const test::Table table = test::hashed_table(17, 9);
  const std::vector<std::vector<int32_t>> targets = {{4, 5, 6, 1},       {},           {1},
                                                     {4, 5, 2, 8, 3, 1}, {4, 5, 6, 1}, {7, 7}};
  Fixture fixture;
  TableDecoder decoder(table, 9, 1);
  const std::vector<std::vector<float>> found =
      score_targets(fixture.context, decoder, {0, 1}, targets);
  ASSERT_EQ(found.size(), targets.size());
  for (size_t i = 0; i < targets.size(); ++i) {
    ASSERT_EQ(found[i].size(), targets[i].size());
    std::vector<int32_t> before;
    for (size_t t = 0; t < targets[i].size(); ++t) {
      const size_t id = static_cast<size_t>(targets[i][t]);
      EXPECT_NEAR(found[i][t], test::log_softmax(table(0, before))[id], 1e-5) << i << " " << t;
      before.push_back(targets[i][t]);
    }
  }
  EXPECT_EQ(decoder.batches, (std::vector<int64_t>{5, 4, 3, 3, 1, 1}));
}

TEST(Score, HandsOutTheLogitsOfEveryToken) {
  const test::Table table = test::hashed_table(17, 9);
  const std::vector<std::vector<int32_t>> targets = {{4, 5, 1}, {}, {1}, {4, 2, 8, 1}};
  Fixture fixture;
  TableDecoder decoder(table, 9, 1);
  std::vector<std::vector<std::vector<float>>> seen(targets.size());
  score_targets(fixture.context, decoder, {0, 1}, targets,
                [&](size_t i, std::span<const float> logits) {
                  seen.at(i).emplace_back(logits.begin(), logits.end());
                });
  for (size_t i = 0; i < targets.size(); ++i) {
    ASSERT_EQ(seen[i].size(), targets[i].size());
    for (size_t t = 0; t < targets[i].size(); ++t) {
      const auto past = targets[i].begin();
      EXPECT_EQ(seen[i][t], table(0, {past, past + static_cast<std::ptrdiff_t>(t)}));
    }
  }
}

TEST(Score, NothingToScoreTakesNoStep) {
  Fixture fixture;
  TableDecoder decoder(test::hashed_table(1, 9), 9, 1);
  EXPECT_TRUE(score_targets(fixture.context, decoder, {0, 1}, {}).empty());
  const std::vector<std::vector<int32_t>> empty(3);
  EXPECT_EQ(score_targets(fixture.context, decoder, {0, 1}, empty).size(), 3u);
  EXPECT_EQ(decoder.steps, 0);
}

TEST(Score, AGreedyAnswerScoresWhatGreedySearchSaid) {
  const test::Table table = test::hashed_table(23, 9, 1);
  Fixture fixture;
  TableDecoder first(table, 9, 1), second(table, 9, 1);
  GenerationOptions options;
  options.max_tokens = 10;
  const GenerationRun run = test::run_of(options);
  const Hypothesis answer =
      generate_greedy(fixture.context, first, {0, 1}, std::span(&run, 1)).at(0);
  const std::vector<std::vector<int32_t>> targets = {answer.tokens};
  const std::vector<float> scored = score_targets(fixture.context, second, {0, 1}, targets).at(0);
  ASSERT_EQ(scored.size(), answer.token_logprobs.size());
  for (size_t i = 0; i < scored.size(); ++i) {
    EXPECT_NEAR(scored[i], answer.token_logprobs[i], 1e-6);
  }
}

}  // namespace
}  // namespace pali
