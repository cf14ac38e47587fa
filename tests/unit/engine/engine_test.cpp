// What requests give, and what they are refused for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fixtures.hpp"

namespace pali {
namespace {

using testing::ask;
using testing::model;
using testing::picture;
using testing::threads;

template <class F>
ErrorCode code_of(F&& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("; "), std::string::npos)
        << "says what is wrong but not what to do: " << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

TEST(Engine, InfoDescribesTheModel) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  EXPECT_EQ(engine.info().format, "huggingface");
  EXPECT_EQ(engine.info().family, "pali3");
  EXPECT_TRUE(engine.info().has_vision);
  EXPECT_TRUE(engine.info().has_language);
  EXPECT_GT(engine.info().parameters, 1000);
  EXPECT_EQ(engine.info().threads, 1);
}

TEST(Engine, InfoCountsTheBytesOfCastWeights) {
  const auto bytes = [](WeightType dtype) {
    EngineOptions options = threads(1);
    options.dtype = dtype;
    return Engine::open(model("pali3"), options).info().memory_bytes.at("weights");
  };
  EXPECT_GT(bytes(WeightType::automatic), 4000);
  EXPECT_GT(bytes(WeightType::bf16), 2000);
  EXPECT_LT(bytes(WeightType::bf16), bytes(WeightType::automatic));
}

// oneDNN never takes int4 weights: not in silence.
TEST(Engine, InfoWarnsWhereTheBackendAskedForDeclines) {
  EngineOptions options = threads(1);
  options.dtype = WeightType::int4;
  for (const MatmulBackend backend : {MatmulBackend::automatic, MatmulBackend::native}) {
    options.matmul = backend;
    EXPECT_TRUE(Engine::open(model("pali3"), options).info().warnings.empty());
  }
  options.matmul = MatmulBackend::onednn;
  const std::vector<std::string> warnings = Engine::open(model("pali3"), options).info().warnings;
  ASSERT_FALSE(warnings.empty());
  for (const std::string& warning : warnings) {
    EXPECT_TRUE(warning.starts_with("native kernels multiply ")) << warning;
    EXPECT_NE(warning.find("(--matmul): "), std::string::npos) << warning;
    EXPECT_NE(warning.find("oneDNN"), std::string::npos) << warning;
  }
}

TEST(Engine, AModelWithoutWordsStartsNoSession) {
  const std::vector<Image> images = {picture(1)};
  const Engine engine = Engine::open(model("siglip_vision"), threads(1));
  EXPECT_EQ(code_of([&] { engine.start(images); }), ErrorCode::unsupported);
}

TEST(Engine, SessionAnswersAsTheEngineDoes) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  const std::vector<Image> images = {picture(1), picture(2)};
  const Session session = engine.start(images);
  Request request = ask(1);
  request.images = images;
  const Result direct = engine.run(request);
  request.images.clear();
  for (int repeat = 0; repeat < 2; ++repeat) {
    const Result kept = session.run(request);
    EXPECT_EQ(kept.tokens, direct.tokens);
    EXPECT_EQ(kept.logprob, direct.logprob);
  }
  request.images = images;
  EXPECT_EQ(code_of([&] { session.run(request); }), ErrorCode::invalid_argument);
}

TEST(Engine, BatchedRequestsEqualSingleOnes) {
  const Engine engine = Engine::open(model("pali3"), threads(2));
  std::vector<Request> requests;
  for (int i = 0; i < 11; ++i) {
    Request request =
        ask(i, std::string("question ") + std::string(static_cast<size_t>(i), 'a'), 3 + i % 5);
    if (i == 4) request.generation.beams = 3;
    if (i == 5) request.generation.temperature = 0.8;
    request.generation.seed = static_cast<uint64_t>(i);
    requests.push_back(std::move(request));
  }
  const std::vector<Result> together = engine.run(requests);
  ASSERT_EQ(together.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const Result alone = engine.run(requests[i]);
    EXPECT_EQ(together[i].tokens, alone.tokens) << i;
    EXPECT_NEAR(together[i].logprob, alone.logprob, 1e-4) << i;
  }
}

TEST(Engine, StreamedTokensMakeUpTheAnswer) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  Request request = ask(3);
  std::vector<int32_t> ids;
  double logprob = 0;
  request.on_token = [&](const Token& token) {
    ids.push_back(token.id);
    logprob += token.logprob;
    return true;
  };
  const Result result = engine.run(request);
  if (result.finish == FinishReason::stop && ids.size() > result.tokens.size()) ids.pop_back();
  EXPECT_EQ(ids, result.tokens);
  EXPECT_NEAR(logprob, result.logprob, 1e-4);
}

TEST(Engine, CallbackCancels) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  Request request = ask(3);
  int seen = 0;
  request.on_token = [&](const Token&) { return ++seen < 2; };
  const Result result = engine.run(request);
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(result.finish, FinishReason::cancelled);
}

TEST(Engine, BeamsReturnCandidatesBestFirst) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  Request request = ask(2);
  request.generation.beams = 4;
  request.generation.n_best = 3;
  const Result result = engine.run(request);
  ASSERT_EQ(result.candidates.size(), 3u);
  EXPECT_EQ(result.candidates[0].tokens, result.tokens);
  EXPECT_GE(result.candidates[0].score, result.candidates[1].score);
  EXPECT_GE(result.candidates[1].score, result.candidates[2].score);
}

double log_softmax(std::span<const float> logits, int32_t id) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(logit - highest);
  return logits[static_cast<size_t>(id)] - highest - std::log(total);
}

// More texts than one decoder takes: the same scores, each with its own logits.
TEST(Engine, ManyTextsAreScoredInGroups) {
  for (const char* name : {"pali3", "paligemma", "t5gemma2"}) {
    const Engine engine = Engine::open(model(name), threads(2));
    const std::vector<std::string> few = {"one two", "three", ""};
    const std::vector<Score> expected = engine.score(ask(1), few);
    std::vector<std::string> texts;
    for (int i = 0; i < 500; ++i) texts.insert(texts.end(), few.begin(), few.end());
    std::vector<std::vector<double>> seen(texts.size());
    ScoreOptions options;
    options.on_logits = [&](size_t i, std::span<const float> logits) {
      const std::vector<int32_t>& tokens = expected[i % few.size()].tokens;
      ASSERT_LT(seen.at(i).size(), tokens.size());
      seen[i].push_back(log_softmax(logits, tokens[seen[i].size()]));
    };
    const std::vector<Score> scores = engine.score(ask(1), texts, options);
    ASSERT_EQ(scores.size(), texts.size());
    EXPECT_GT(expected[0].tokens.size() * texts.size(), 4096u) << "all fit one group";
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(scores[i].text, texts[i]);
      ASSERT_EQ(seen[i].size(), scores[i].tokens.size()) << name;
      for (size_t t = 0; t < seen[i].size(); ++t) {
        EXPECT_NEAR(seen[i][t], scores[i].token_logprobs[t], 1e-4) << name;
      }
      EXPECT_NEAR(scores[i].logprob, expected[i % few.size()].logprob, 1e-4) << name;
    }
  }
}

TEST(Engine, ScoresAreSumsAndKeepTheOrder) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  const std::vector<std::string> texts = {"one two", "", "three", "one two"};
  const std::vector<Score> scores = engine.score(ask(1), texts);
  ASSERT_EQ(scores.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(scores[i].text, texts[i]);
    EXPECT_EQ(scores[i].tokens.size(), scores[i].token_logprobs.size());
    EXPECT_NEAR(
        scores[i].logprob,
        std::accumulate(scores[i].token_logprobs.begin(), scores[i].token_logprobs.end(), 0.0),
        1e-6);
    EXPECT_LT(scores[i].logprob, 0);
  }
  EXPECT_EQ(scores[1].tokens.size(), 1u);  // the end token alone
  EXPECT_EQ(scores[0].logprob, scores[3].logprob);
  const std::vector<Score> open = engine.score(ask(1), texts, {.end_token = false});
  EXPECT_EQ(open[1].logprob, 0);
  EXPECT_EQ(open[0].tokens.size() + 1, scores[0].tokens.size());
}

TEST(Engine, ClassifyByLanguageModelIsADistribution) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  const std::vector<std::string> labels = {"cat", "dog", "a much longer label"};
  double total = 0;
  for (const LabelScore& score : engine.classify(picture(1), labels)) total += score.probability;
  EXPECT_NEAR(total, 1.0, 1e-9);
}

TEST(Engine, ClassifyByTwoTowersIsSigmoidOfTheLogit) {
  const Engine engine = Engine::open(model("siglip_two_tower"), threads(1));
  const std::vector<std::string> labels = {"cat", "dog"};
  for (const LabelScore& score : engine.classify(picture(1), labels)) {
    EXPECT_NEAR(score.probability, 1.0 / (1.0 + std::exp(-score.logit)), 1e-12);
  }
  EXPECT_EQ(engine.embed(picture(1)).size(), engine.embed("cat").size());
}

TEST(Engine, RefusesWhatTheModelCannotDo) {
  const Engine text_only = Engine::open(model("ul2"), threads(1));
  EXPECT_EQ(code_of([&] { text_only.run(ask(1)); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([&] { text_only.embed(picture(1)); }), ErrorCode::unsupported);
  const Engine vision = Engine::open(model("siglip_two_tower"), threads(1));
  EXPECT_EQ(code_of([&] { vision.run(ask(1)); }), ErrorCode::unsupported);
  const Engine engine = Engine::open(model("pali3"), threads(1));
  EXPECT_EQ(code_of([&] { engine.embed("text"); }), ErrorCode::unsupported);
  Request caption;
  caption.task = Task::caption;
  EXPECT_EQ(code_of([&] { engine.run(caption); }), ErrorCode::invalid_argument);
}

TEST(Engine, RefusesBadOptions) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  const auto refused = [&](auto&& change) {
    Request request = ask(1);
    change(request.generation);
    EXPECT_EQ(code_of([&] { engine.run(request); }), ErrorCode::invalid_argument);
  };
  refused([](GenerationOptions& o) { o.beams = 0; });
  refused([](GenerationOptions& o) { o.n_best = 2; });
  refused([](GenerationOptions& o) { o.temperature = std::nan(""); });
  refused([](GenerationOptions& o) { o.temperature = -1; });
  refused([](GenerationOptions& o) { o.top_p = 2; });
  refused([](GenerationOptions& o) { o.top_p = 0; });
  refused([](GenerationOptions& o) { o.top_k = -1; });
  refused([](GenerationOptions& o) { o.max_tokens = -1; });
  refused([](GenerationOptions& o) { o.length_penalty = std::nan(""); });
  Request request = ask(1, std::string(1 << 20, 'a') + " " + std::string(1 << 20, 'b'));
  try {
    engine.run(request);  // a megabyte of text: an answer or the one-line error
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
  }
}

TEST(Engine, TextOnlyPromptNeedsNoImage) {
  const Engine engine = Engine::open(model("pali3"), threads(1));
  Request request;
  request.prompt = "some words";
  request.generation.max_tokens = 4;
  EXPECT_LE(engine.run(request).tokens.size(), 4u);
}

TEST(Engine, ResolutionResizesPositions) {
  EngineOptions options = threads(1);
  const int64_t own = Engine::open(model("pali3"), options).info().image_size;
  options.resolution = own * 2;
  const Engine larger = Engine::open(model("pali3"), options);
  EXPECT_EQ(larger.info().image_size, own * 2);
  const int64_t base = Engine::open(model("pali3"), threads(1)).embed_tokens(picture(1)).rows;
  EXPECT_GE(larger.embed_tokens(picture(1)).rows, base * 4);
}

}  // namespace
}  // namespace pali
