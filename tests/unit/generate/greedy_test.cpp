// Greedy search and sampling over several requests at once.
#include <gtest/gtest.h>

#include <algorithm>

#include "table_decoder.hpp"

namespace pali {
namespace {

using test::Fixture;
using test::hashed_table;
using test::run_of;
using test::TableDecoder;

constexpr SpecialTokens kSpecial{0, 1};
constexpr int kVocab = 9;

GenerationOptions options_of(int max_tokens, double temperature = 0, uint64_t seed = 0) {
  GenerationOptions options;
  options.max_tokens = max_tokens;
  options.temperature = temperature;
  options.seed = seed;
  return options;
}

// Argmax by hand; the lower id wins.
std::vector<int32_t> follow(const test::Table& table, int request, int max_tokens) {
  std::vector<int32_t> tokens;
  while (tokens.size() < static_cast<size_t>(max_tokens) &&
         (tokens.empty() || tokens.back() != kSpecial.end)) {
    const std::vector<float> logits = table(request, tokens);
    tokens.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  return tokens;
}

std::vector<Hypothesis> generate(const test::Table& table, const std::vector<GenerationRun>& runs) {
  Fixture fixture;
  TableDecoder decoder(table, kVocab, static_cast<int>(runs.size()));
  return generate_greedy(fixture.context, decoder, kSpecial, runs);
}

TEST(Greedy, FollowsTheBestTokenOfEveryStep) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    const test::Table table = hashed_table(seed, kVocab, 1.0);
    const Hypothesis found = generate(table, {run_of(options_of(12))}).at(0);
    EXPECT_EQ(found.tokens, follow(table, 0, 12)) << seed;
    double sum = 0;
    ASSERT_EQ(found.token_logprobs.size(), found.tokens.size());
    for (size_t i = 0; i < found.tokens.size(); ++i) {
      const std::vector<int32_t> before(found.tokens.begin(),
                                        found.tokens.begin() + static_cast<std::ptrdiff_t>(i));
      const double expected =
          test::log_softmax(table(0, before))[static_cast<size_t>(found.tokens[i])];
      EXPECT_NEAR(found.token_logprobs[i], expected, 1e-5);
      sum += expected;
    }
    EXPECT_NEAR(found.logprob, sum, 1e-4);
    EXPECT_NEAR(found.score, sum / static_cast<double>(found.tokens.size()), 1e-4);
    EXPECT_EQ(found.finish, found.tokens.back() == 1 ? FinishReason::stop : FinishReason::length);
  }
}

TEST(Greedy, TheEndTokenCountsAgainstMaxTokens) {
  // 5, then the end token.
  const test::Table table = [](int, const std::vector<int32_t>& tokens) {
    std::vector<float> logits(kVocab, 0.0f);
    logits[tokens.empty() ? 5 : 1] = 9.0f;
    return logits;
  };
  const Hypothesis whole = generate(table, {run_of(options_of(2))}).at(0);
  EXPECT_EQ(whole.tokens, (std::vector<int32_t>{5, 1}));
  EXPECT_EQ(whole.finish, FinishReason::stop);
  const Hypothesis cut = generate(table, {run_of(options_of(1))}).at(0);
  EXPECT_EQ(cut.tokens, (std::vector<int32_t>{5}));
  EXPECT_EQ(cut.finish, FinishReason::length);
}

TEST(Greedy, TiesGoToTheLowerId) {
  const test::Table table = [](int, const std::vector<int32_t>&) {
    return std::vector<float>{0, 0, 2, 1, 2, 2, 0, 0, 0};
  };
  EXPECT_EQ(generate(table, {run_of(options_of(3))}).at(0).tokens, (std::vector<int32_t>{2, 2, 2}));
}

TEST(Greedy, StartsFromTheStartToken) {
  Fixture fixture;
  TableDecoder decoder(hashed_table(1, kVocab), kVocab, 2);
  const std::vector<GenerationRun> runs(2, run_of(options_of(3)));
  generate_greedy(fixture.context, decoder, {7, 1}, runs);
  EXPECT_EQ(decoder.first_fed, (std::vector<int32_t>{7, 7}));
}

TEST(Greedy, RequestsOfABatchAreIndependentAndLeaveWhenTheyEnd) {
  const test::Table table = hashed_table(5, kVocab, 1.5);
  Fixture fixture;
  TableDecoder decoder(table, kVocab, 6);
  std::vector<GenerationRun> runs;
  for (int r = 0; r < 6; ++r) runs.push_back(run_of(options_of(3 + 2 * r)));
  const std::vector<Hypothesis> found = generate_greedy(fixture.context, decoder, kSpecial, runs);
  std::vector<int64_t> expected_batches(13, 0);
  for (int r = 0; r < 6; ++r) {
    const std::vector<int32_t> alone = follow(table, r, 3 + 2 * r);
    EXPECT_EQ(found[static_cast<size_t>(r)].tokens, alone) << r;
    for (size_t step = 0; step < alone.size(); ++step) ++expected_batches[step];
  }
  while (expected_batches.back() == 0) expected_batches.pop_back();
  EXPECT_EQ(decoder.batches, expected_batches);
}

TEST(Greedy, SamplersAndGreedyNeighboursDoNotDisturbEachOther) {
  const test::Table table = hashed_table(8, kVocab, 0.5);
  // The same request everywhere, so that only options and neighbours differ.
  const test::Table same = [&](int, const std::vector<int32_t>& t) { return table(0, t); };
  const GenerationRun greedy = run_of(options_of(10)), drawn = run_of(options_of(10, 1.2, 42));
  const Hypothesis greedy_alone = generate(same, {greedy}).at(0);
  const Hypothesis drawn_alone = generate(same, {drawn}).at(0);
  const std::vector<Hypothesis> mixed = generate(same, {greedy, drawn, greedy, greedy, drawn});
  for (const size_t r : {0, 2, 3}) EXPECT_EQ(mixed[r].tokens, greedy_alone.tokens);
  for (const size_t r : {1, 4}) {
    EXPECT_EQ(mixed[r].tokens, drawn_alone.tokens);
    EXPECT_EQ(mixed[r].token_logprobs, drawn_alone.token_logprobs);
  }
}

TEST(Greedy, SeedsChangeTheDrawsAndTinyTemperaturesDoNot) {
  const test::Table table = hashed_table(9, kVocab, -2);
  std::vector<GenerationRun> runs;
  for (uint64_t seed = 0; seed < 8; ++seed) runs.push_back(run_of(options_of(10, 1.0, seed)));
  const test::Table same = [&](int, const std::vector<int32_t>& t) { return table(0, t); };
  const std::vector<Hypothesis> drawn = generate(same, runs);
  int different = 0;
  for (const Hypothesis& hypothesis : drawn) different += hypothesis.tokens != drawn[0].tokens;
  EXPECT_GT(different, 4);
  EXPECT_EQ(generate(table, {run_of(options_of(10, 1e-4, 3))}).at(0).tokens, follow(table, 0, 10));
}

TEST(Greedy, StreamsEveryTokenInOrder) {
  const test::Table table = hashed_table(5, kVocab, 1.0);
  std::vector<int32_t> seen;
  GenerationRun run = run_of(options_of(12));
  run.on_token = [&](int32_t id, float logprob) {
    EXPECT_LE(logprob, 0);
    seen.push_back(id);
    return true;
  };
  EXPECT_EQ(generate(table, {run}).at(0).tokens, seen);
  EXPECT_FALSE(seen.empty());
}

TEST(Greedy, ACallbackThatSaysNoCancelsItsOwnRequestOnly) {
  const test::Table table = hashed_table(3, kVocab, -8);
  int calls = 0;
  GenerationRun stubborn = run_of(options_of(9));
  stubborn.on_token = [&](int32_t, float) { return ++calls < 3; };
  const std::vector<Hypothesis> found = generate(table, {stubborn, run_of(options_of(9))});
  EXPECT_EQ(found[0].finish, FinishReason::cancelled);
  EXPECT_EQ(found[0].tokens.size(), 3u);
  EXPECT_EQ(found[1].finish, FinishReason::length);
  EXPECT_EQ(found[1].tokens.size(), 9u);
}

TEST(Greedy, StopTokensAreAskedBeforeEveryStep) {
  const test::Table table = hashed_table(3, kVocab, -8);
  std::stop_source stop;
  GenerationRun run = run_of(options_of(50));
  run.stop = stop.get_token();
  run.on_token = [&, n = 0](int32_t, float) mutable {
    if (++n == 4) stop.request_stop();
    return true;
  };
  const Hypothesis found = generate(table, {run}).at(0);
  EXPECT_EQ(found.finish, FinishReason::cancelled);
  EXPECT_EQ(found.tokens.size(), 4u);

  Fixture fixture;
  TableDecoder decoder(table, kVocab, 1);
  const Hypothesis none =
      generate_greedy(fixture.context, decoder, kSpecial, std::span(&run, 1)).at(0);
  EXPECT_EQ(none.finish, FinishReason::cancelled);
  EXPECT_TRUE(none.tokens.empty());
  EXPECT_EQ(decoder.steps, 0);
}

TEST(Greedy, AConstrainedRequestLeavesItsNeighboursAlone) {
  const test::Table table = test::hashed_table(5, 8);
  GenerationOptions options;
  options.max_tokens = 5;
  const std::vector<int32_t> odd = {1, 3, 5};
  std::vector<GenerationRun> runs(3, test::run_of(options));
  runs[1].allowed = [&](std::span<const int32_t>) { return std::span<const int32_t>(odd); };
  test::Fixture fixture;
  test::TableDecoder decoder(table, 8, 3);
  const std::vector<Hypothesis> found = generate_greedy(fixture.context, decoder, {0, 1}, runs);
  runs[1].allowed = nullptr;
  test::TableDecoder again(table, 8, 3);
  const std::vector<Hypothesis> free = generate_greedy(fixture.context, again, {0, 1}, runs);
  EXPECT_EQ(found[0].tokens, free[0].tokens);
  EXPECT_EQ(found[2].tokens, free[2].tokens);
  for (const int32_t id : found[1].tokens) EXPECT_EQ(id % 2, 1);
  ASSERT_FALSE(found[1].tokens.empty());
}

}  // namespace
}  // namespace pali
