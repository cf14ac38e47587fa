// The public face gives what the reference gives: run, score, embed, classify, sessions, batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "pali/pali.hpp"
#include "parity/golden.hpp"
#include "parity/rig.hpp"

namespace pali::parity {
namespace {

constexpr int kNewTokens = 12;

class Face : public ::testing::TestWithParam<Run> {};

Request request_of(const Json& item) {
  Request request;
  if (item.contains("images")) {
    for (const Json& file : item["images"]) {
      request.images.push_back(Image::from_file(image_file(file.get<std::string>())));
    }
  }
  request.prompt = item["prompt"].get<std::string>();
  request.generation.max_tokens = kNewTokens;
  return request;
}

std::vector<int32_t> without_end(const Json& list) {
  std::vector<int32_t> out = ids(list);
  if (!out.empty() && out.back() == 1) out.pop_back();
  return out;
}

void expect_result(const std::string& where, const Result& result, const Json& expected) {
  EXPECT_EQ(result.tokens, without_end(expected["tokens"])) << where;
  expect_logprob(where, "logprob", result.logprob, expected["logprob"].get<double>());
}

TEST_P(Face, RunsAndScores) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  const Engine engine = Engine::open(model_dir(name), engine_options(way, 1));
  for (const Json& item : golden.json()["cases"]) {
    Request request = request_of(item);
    const std::string where = name + " \"" + request.prompt.substr(0, 20) + "\"";
    const Result greedy = engine.run(request);
    expect_result(where, greedy, item["greedy"]);
    EXPECT_EQ(greedy.finish == FinishReason::stop,
              item["greedy"]["finish_reason"].get<std::string>() == "stop");
    // transformers leaves <unk> and sentinels out of its text; SentencePiece writes an unknown as
    // a question mark. Where there is none, the texts agree.
    const auto& tokens = greedy.tokens;
    const auto ordinary = [](int32_t id) { return id > 2 && id < 140; };
    if (std::all_of(tokens.begin(), tokens.end(), ordinary)) {
      EXPECT_EQ(greedy.text, item["greedy"]["text"].get<std::string>()) << where;
    }
    for (const Json& beam : item["beams"]) {
      request.generation.beams = beam["num_beams"].get<int>();
      request.generation.n_best = static_cast<int>(beam["candidates"].size());
      request.generation.length_penalty = beam["length_penalty"].get<double>();
      const Result wide = engine.run(request);
      ASSERT_EQ(wide.candidates.size(), beam["candidates"].size()) << where;
      for (size_t i = 0; i < wide.candidates.size(); ++i) {
        const Json& expected = beam["candidates"][i];
        EXPECT_EQ(wide.candidates[i].tokens, without_end(expected["tokens"])) << where;
        expect_logprob(where, "logprob", wide.candidates[i].logprob,
                       expected["logprob"].get<double>());
        expect_logprob(where, "score", wide.candidates[i].score, expected["score"].get<double>());
      }
    }
    std::vector<std::string> texts;
    for (const Json& score : item["scores"]) texts.push_back(score["text"].get<std::string>());
    if (texts.empty()) continue;
    const std::vector<Score> scores = engine.score(request_of(item), texts);
    ASSERT_EQ(scores.size(), texts.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      const Json& expected = item["scores"][i];
      EXPECT_EQ(scores[i].tokens, ids(expected["tokens"])) << where;
      ASSERT_EQ(scores[i].token_logprobs.size(), scores[i].tokens.size());
      for (size_t t = 0; t < scores[i].tokens.size(); ++t) {
        expect_logprob(where, "scored token", scores[i].token_logprobs[t],
                       expected["token_logprobs"][t].get<double>());
      }
    }
  }
}

// Requests of different lengths in one batch, and questions to one session, give what single
// requests give.
TEST_P(Face, BatchesAndSessionsAgreeWithSingleRuns) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  const Engine engine = Engine::open(model_dir(name), engine_options(way, 2));
  std::vector<Request> requests;
  for (const Json& item : golden.json()["cases"]) requests.push_back(request_of(item));
  const std::vector<Result> together = engine.run(requests);
  ASSERT_EQ(together.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    expect_result(name + " batch, case " + std::to_string(i), together[i],
                  golden.json()["cases"][i]["greedy"]);
  }
  if (requests[0].images.empty()) return;
  const Session session = engine.start(requests[0].images);
  Request question = requests[0];
  question.images.clear();
  for (int again = 0; again < 2; ++again) {
    expect_result(name + " session", session.run(question), golden.json()["cases"][0]["greedy"]);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Face,
                         ::testing::ValuesIn(runs_of({"t5_v1_1", "ul2", "umt5", "flan_t5", "pali3",
                                                      "pali3_bf16", "paligemma"})),
                         run_name);

class FaceOfTowers : public ::testing::TestWithParam<Run> {};

TEST_P(FaceOfTowers, EmbedsAndClassifies) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const Golden golden = Golden::of_model(name);
  const Engine engine = Engine::open(model_dir(name), engine_options(way, 2));
  const Json& json = golden.json();
  std::vector<std::string> labels;
  for (size_t j = 0; j < json["texts"].size(); ++j) {
    labels.push_back(json["texts"][j]["text"].get<std::string>());
    expect_stage(name, "text.pooled", engine.embed(std::string_view(labels[j])),
                 golden.values("text" + std::to_string(j) + "/text.pooled"));
  }
  for (size_t j = 0; j < json["images"].size(); ++j) {
    const Image image = Image::from_file(image_file(json["images"][j].get<std::string>()));
    const std::string prefix = "image" + std::to_string(j) + "/";
    expect_stage(name, "vision.pooled", engine.embed(image),
                 golden.values(prefix + "vision.pooled"));
    expect_stage(name, "vision.tokens", engine.embed_tokens(image).values,
                 golden.values(prefix + "vision.tokens"));
    const std::vector<LabelScore> scores = engine.classify(image, labels);
    ASSERT_EQ(scores.size(), labels.size());
    for (size_t i = 0; i < labels.size(); ++i) {
      EXPECT_EQ(scores[i].label, labels[i]);
      EXPECT_NEAR(scores[i].logit, json["logits_per_image"][j][i].get<double>(), 1e-4);
      EXPECT_NEAR(scores[i].probability, json["probabilities"][j][i].get<double>(), 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, FaceOfTowers, ::testing::ValuesIn(runs_of({"siglip_two_tower"})),
                         run_name);

TEST(FaceOfPali3, GivesTokensBeforeAndAfterTheProjector) {
  const Golden golden = Golden::of_model("pali3");
  const Engine engine = Engine::open(model_dir("pali3"), engine_options({}, 1));
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  const TokenEmbeddings before = engine.embed_tokens(image),
                        after = engine.embed_tokens(image, true);
  EXPECT_EQ(before.rows, 9);
  EXPECT_EQ(before.columns, 24);
  EXPECT_EQ(after.rows, 9);
  EXPECT_EQ(after.columns, 28);
  expect_stage("pali3", "vision.tokens", before.values,
               golden.values("case0/image0/vision.tokens"));
  expect_stage("pali3", "projected", after.values, golden.values("case0/image0/projected"));
}

}  // namespace
}  // namespace pali::parity
