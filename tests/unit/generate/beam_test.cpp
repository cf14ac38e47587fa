// Beam search: against every sequence there is, and against transformers' own answers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "table_decoder.hpp"

namespace pali {
namespace {

using test::Fixture;
using test::hashed_table;
using test::run_of;
using test::TableDecoder;

constexpr SpecialTokens kSpecial{0, 1};

GenerationOptions options_of(int beams, int n_best, double length_penalty, int max_tokens) {
  GenerationOptions options;
  options.beams = beams;
  options.n_best = n_best;
  options.length_penalty = length_penalty;
  options.max_tokens = max_tokens;
  return options;
}

std::vector<Hypothesis> search(const test::Table& table, int vocab,
                               const GenerationOptions& options) {
  Fixture fixture;
  TableDecoder decoder(table, vocab, 1);
  return generate_beam(fixture.context, decoder, kSpecial, run_of(options));
}

// Every sequence that ends with the end token or is max_tokens long, with its log-probability.
void enumerate(const test::Table& table, int max_tokens, std::vector<int32_t>& tokens,
               double logprob, std::vector<std::pair<double, std::vector<int32_t>>>& out) {
  if (tokens.size() == static_cast<size_t>(max_tokens) ||
      (!tokens.empty() && tokens.back() == kSpecial.end)) {
    out.emplace_back(logprob, tokens);
    return;
  }
  const std::vector<double> next = test::log_softmax(table(0, tokens));
  for (size_t id = 0; id < next.size(); ++id) {
    tokens.push_back(static_cast<int32_t>(id));
    enumerate(table, max_tokens, tokens, logprob + next[id], out);
    tokens.pop_back();
  }
}

TEST(Beam, WideBeamsFindTheBestOfAllSequences) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const int vocab = 3 + static_cast<int>(seed % 2), max_tokens = 4;
    for (const double penalty : {0.0, 1.0}) {
      const test::Table table = hashed_table(seed, vocab, 0.5);
      std::vector<std::pair<double, std::vector<int32_t>>> all;
      std::vector<int32_t> tokens;
      enumerate(table, max_tokens, tokens, 0, all);
      const auto score = [&](const auto& sequence) {
        return sequence.first / std::pow(static_cast<double>(sequence.second.size()), penalty);
      };
      std::sort(all.begin(), all.end(),
                [&](const auto& a, const auto& b) { return score(a) > score(b); });
      // As many beams as there are sequences: nothing is ever cut off.
      const int beams = static_cast<int>(all.size());
      const std::vector<Hypothesis> found =
          search(table, vocab, options_of(beams, beams, penalty, max_tokens));
      ASSERT_EQ(found.size(), all.size());
      for (size_t i = 0; i < all.size(); ++i) {
        EXPECT_NEAR(found[i].score, score(all[i]), 1e-5);
        EXPECT_NEAR(found[i].logprob, all[i].first, 1e-4);
        if (i + 1 < all.size() && score(all[i]) - score(all[i + 1]) > 1e-5 &&
            (i == 0 || score(all[i - 1]) - score(all[i]) > 1e-5)) {
          EXPECT_EQ(found[i].tokens, all[i].second) << "seed " << seed << ", place " << i;
        }
      }
    }
  }
}

struct Expected {
  std::vector<int32_t> tokens;
  double score;
};
struct ReferenceCase {
  uint32_t seed;
  int vocab;
  double end_bias;
  int beams, n_best;
  double length_penalty;
  int max_tokens;
  std::vector<Expected> hypotheses;
};

// What transformers 5.23 answers on hashed_table(seed, vocab, end_bias): generate(num_beams,
// num_return_sequences, length_penalty, max_new_tokens, early_stopping=False) of a model whose
// forward() returns the table's logits.
const ReferenceCase kReference[] = {
    {1, 7, 0, 2, 2, 1, 6, {{{2, 6, 6, 6, 3, 1}, -0.607733}, {{2, 6, 6, 6, 3, 2}, -0.629399}}},
    {2,
     7,
     1,
     3,
     3,
     1,
     8,
     {{{6, 4, 0, 1}, -0.611799}, {{6, 0, 1}, -0.651215}, {{6, 4, 2, 0, 5, 1}, -0.719009}}},
    {3,
     11,
     2,
     4,
     4,
     1,
     8,
     {{{1}, -0.249731},
      {{4, 0, 1}, -1.205026},
      {{4, 5, 3, 1}, -1.250989},
      {{4, 10, 5, 1}, -1.346873}}},
    {4,
     11,
     2,
     4,
     4,
     2,
     8,
     {{{6, 9, 4, 9, 10, 10, 5, 4}, -0.131343},
      {{6, 9, 7, 5, 10, 4, 1}, -0.137981},
      {{6, 9, 4, 9, 7, 6, 6, 2}, -0.138364},
      {{6, 9, 4, 9, 7, 6, 9, 8}, -0.139078}}},
    {5, 11, 1.5, 4, 2, 0.5, 10, {{{10, 1}, -1.016596}, {{1}, -1.683351}}},
    {6,
     9,
     3,
     4,
     4,
     0,
     8,
     {{{6, 1}, -1.244616}, {{1}, -1.681451}, {{3, 1}, -1.953188}, {{3, 5, 1}, -3.246422}}},
    {7,
     9,
     2,
     4,
     4,
     -1,
     8,
     {{{1}, -0.607679}, {{4, 1}, -3.244943}, {{2, 1}, -4.143729}, {{4, 2, 1}, -12.807129}}},
    {8,
     13,
     1,
     5,
     5,
     1,
     5,
     {{{5, 3, 10, 4, 2}, -0.869146},
      {{5, 3, 10, 4, 1}, -0.931546},
      {{5, 3, 2, 12, 5}, -0.992811},
      {{5, 3, 2, 1}, -1.041947},
      {{5, 3, 0, 5, 4}, -1.051167}}},
    {9,
     17,
     2.5,
     8,
     8,
     1,
     12,
     {{{1}, -0.497442},
      {{8, 1}, -1.463213},
      {{14, 1}, -1.469393},
      {{3, 1}, -1.580170},
      {{12, 15, 1}, -1.584908},
      {{12, 8, 1}, -1.878846},
      {{15, 13, 1}, -1.881912},
      {{8, 12, 1}, -1.925893}}},
    {10,
     12,
     4,
     4,
     4,
     1,
     12,
     {{{1}, -0.054400}, {{2, 6, 1}, -1.942240}, {{3, 1}, -1.999929}, {{4, 3, 1}, -2.151632}}},
    {11,
     9,
     -8,
     3,
     3,
     1,
     4,
     {{{7, 5, 5, 6}, -0.684148}, {{7, 5, 2, 6}, -0.744542}, {{7, 5, 2, 8}, -0.854042}}},
    {12,
     20,
     2,
     6,
     3,
     1.3,
     16,
     {{{11, 9, 6, 15, 11, 15, 15, 15, 3, 19, 2, 7, 4, 1}, -0.623373},
      {{11, 9, 6, 15, 11, 15, 15, 15, 3, 19, 2, 7, 10, 3, 1}, -0.633824},
      {{11, 9, 6, 15, 11, 15, 15, 9, 17, 4, 16, 3, 1}, -0.635977}}},
};

TEST(Beam, HypothesesAreThoseOfTransformers) {
  for (const ReferenceCase& expected : kReference) {
    const std::vector<Hypothesis> found = search(
        hashed_table(expected.seed, expected.vocab, expected.end_bias), expected.vocab,
        options_of(expected.beams, expected.n_best, expected.length_penalty, expected.max_tokens));
    ASSERT_EQ(found.size(), expected.hypotheses.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].tokens, expected.hypotheses[i].tokens)
          << "seed " << expected.seed << ", place " << i;
      EXPECT_NEAR(found[i].score, expected.hypotheses[i].score, 1e-5);
    }
  }
}

TEST(Beam, LogprobsAndFinishBelongToTheTokens) {
  const test::Table table = hashed_table(8, 13, 1);
  for (const Hypothesis& found : search(table, 13, options_of(5, 5, 1, 5))) {
    ASSERT_EQ(found.token_logprobs.size(), found.tokens.size());
    std::vector<int32_t> before;
    double sum = 0;
    for (size_t i = 0; i < found.tokens.size(); ++i) {
      const double expected =
          test::log_softmax(table(0, before))[static_cast<size_t>(found.tokens[i])];
      EXPECT_NEAR(found.token_logprobs[i], expected, 1e-5);
      sum += expected;
      before.push_back(found.tokens[i]);
    }
    EXPECT_NEAR(found.logprob, sum, 1e-4);
    EXPECT_EQ(found.finish, found.tokens.back() == 1 ? FinishReason::stop : FinishReason::length);
  }
}

TEST(Beam, FewerHypothesesAreTheFirstOfMore) {
  const test::Table table = hashed_table(9, 17, 2.5);
  const std::vector<Hypothesis> all = search(table, 17, options_of(8, 8, 1, 12));
  for (int n = 1; n < 8; ++n) {
    const std::vector<Hypothesis> some = search(table, 17, options_of(8, n, 1, 12));
    ASSERT_EQ(some.size(), static_cast<size_t>(n));
    for (size_t i = 0; i < some.size(); ++i) EXPECT_EQ(some[i].tokens, all[i].tokens);
  }
}

TEST(Beam, ASingleBeamIsGreedyWhereNothingEnds) {
  const test::Table table = hashed_table(4, 11, -8);
  Fixture fixture;
  TableDecoder decoder(table, 11, 1);
  const GenerationRun run = run_of(options_of(1, 1, 1, 7));
  const std::vector<Hypothesis> greedy =
      generate_greedy(fixture.context, decoder, kSpecial, std::span(&run, 1));
  EXPECT_EQ(search(table, 11, run.options).at(0).tokens, greedy.at(0).tokens);
}

TEST(Beam, NeverHoldsMoreSequencesThanBeams) {
  Fixture fixture;
  TableDecoder decoder(hashed_table(2, 11, 1), 11, 1);
  generate_beam(fixture.context, decoder, {5, 1}, run_of(options_of(4, 1, 1, 9)));
  EXPECT_EQ(decoder.batches.front(), 1);
  EXPECT_EQ(decoder.largest_batch, 4);
  EXPECT_LE(decoder.steps, 9);
  EXPECT_EQ(decoder.first_fed, (std::vector<int32_t>{5}));
}

TEST(Beam, EqualScoresAreOrderedTheSameWayEveryTime) {
  const test::Table flat = [](int, const std::vector<int32_t>&) { return std::vector<float>(6); };
  const std::vector<Hypothesis> first = search(flat, 6, options_of(3, 3, 1, 3));
  ASSERT_EQ(first.size(), 3u);
  const std::vector<Hypothesis> second = search(flat, 6, options_of(3, 3, 1, 3));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(first[i].tokens, second[i].tokens);
}

TEST(Beam, StopBetweenStepsReturnsWhatThereIs) {
  std::stop_source stop;
  const test::Table inner = hashed_table(3, 11, -8);
  const test::Table table = [&](int request, const std::vector<int32_t>& tokens) {
    if (tokens.size() == 3) stop.request_stop();
    return inner(request, tokens);
  };
  Fixture fixture;
  TableDecoder decoder(table, 11, 1);
  GenerationRun run = run_of(options_of(4, 2, 1, 50));
  run.stop = stop.get_token();
  const std::vector<Hypothesis> found = generate_beam(fixture.context, decoder, kSpecial, run);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].finish, FinishReason::cancelled);
  EXPECT_EQ(found[0].tokens.size(), 4u);
  EXPECT_GE(found[0].score, found[1].score);
  EXPECT_EQ(decoder.steps, 4);

  TableDecoder untouched(table, 11, 1);
  const std::vector<Hypothesis> none = generate_beam(fixture.context, untouched, kSpecial, run);
  ASSERT_EQ(none.size(), 1u);
  EXPECT_TRUE(none[0].tokens.empty());
  EXPECT_EQ(none[0].finish, FinishReason::cancelled);
  EXPECT_EQ(untouched.steps, 0);
}

TEST(Beam, AVocabularySmallerThanTheBeamsIsNoTrouble) {
  const test::Table table = hashed_table(6, 2, 0);
  const std::vector<Hypothesis> found = search(table, 2, options_of(16, 16, 1, 3));
  EXPECT_EQ(found.size(), 4u);  // E, xE, xxE, xxx
}

// Only even ids, and the end (1) after the third token.
std::vector<int32_t> even_then_end(size_t length, int vocab) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocab; ++id) {
    if (id % 2 == 0 || (id == 1 && length >= 3)) ids.push_back(id);
  }
  return ids;
}

TEST(Beam, ConstrainedBeamsStayWithinWhatIsAllowed) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const int vocab = 7;
    GenerationRun run = run_of(options_of(4, 4, 1.0, 6));
    std::vector<int32_t> buffer;
    run.allowed = [&](std::span<const int32_t> so_far) {
      buffer = even_then_end(so_far.size(), vocab);
      return std::span<const int32_t>(buffer);
    };
    Fixture fixture;
    TableDecoder decoder(hashed_table(seed, vocab), vocab, 1);
    const std::vector<Hypothesis> found = generate_beam(fixture.context, decoder, kSpecial, run);
    ASSERT_EQ(found.size(), 4u);
    for (const Hypothesis& hypothesis : found) {
      double sum = 0;
      for (size_t i = 0; i < hypothesis.tokens.size(); ++i) {
        const std::vector<int32_t> may = even_then_end(i, vocab);
        EXPECT_TRUE(std::binary_search(may.begin(), may.end(), hypothesis.tokens[i]));
        sum += hypothesis.token_logprobs[i];
      }
      EXPECT_NEAR(hypothesis.logprob, sum, 1e-5);
    }
  }
}

// One id alone is allowed at every step: fewer than the beams want.
TEST(Beam, OneWayOnIsEnough) {
  GenerationRun run = run_of(options_of(3, 3, 1.0, 5));
  const int32_t path[] = {4, 2, 3, 1};
  run.allowed = [&](std::span<const int32_t> so_far) {
    return std::span<const int32_t>(path + so_far.size(), 1);
  };
  Fixture fixture;
  TableDecoder decoder(hashed_table(1, 6), 6, 1);
  const std::vector<Hypothesis> found = generate_beam(fixture.context, decoder, kSpecial, run);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].tokens, (std::vector<int32_t>{4, 2, 3, 1}));
  EXPECT_NEAR(found[0].logprob, 0, 1e-6);  // certain, among what is allowed
}

}  // namespace
}  // namespace pali
