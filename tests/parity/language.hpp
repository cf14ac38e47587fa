// What the tests of language models share: a run from the encoder's input, or the prefix, on.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "generate/generate.hpp"
#include "parity/golden.hpp"
#include "parity/rig.hpp"

namespace pali::parity {

inline constexpr int kNewTokens = 12;  // NEW_TOKENS of tools/golden/generation.py

// Everything a case asks for, as the engine computes it: for comparing with the golden, and bit by
// bit with another run.
struct LanguageRun {
  Stages stages;  // encoder.* or prefix.*, logits.{t}
  Hypothesis greedy;
  std::vector<std::vector<Hypothesis>> beams;      // one list a length penalty
  std::vector<std::vector<float>> score_logprobs;  // one list a scored text
};

inline SpecialTokens special_tokens(const LanguageModel& language) {
  return {language.start_token(), language.end_token()};
}

// Tokens as the tokenizer gives them, end token appended.
inline std::vector<int32_t> prompt_ids(const Rig& rig, const std::string& text) {
  std::vector<int32_t> out = rig.tokenizer().encode(text);
  out.push_back(rig.language().end_token());
  return out;
}

inline LanguageRun run_language(Rig& rig, ConstMat prefix, const Json& item) {
  const LanguageModel& language = rig.language();
  const std::vector<ConstMat> prefixes{prefix};
  LanguageRun out;
  rig.take_stages();

  // Logits of given steps: the decoder is fed the reference's tokens.
  if (item.contains("decoder_input_ids")) {
    const std::vector<int32_t> fed = ids(item["decoder_input_ids"]);
    auto decoder = language.start(rig.context(), prefixes, {static_cast<int64_t>(fed.size()), 1});
    out.stages = rig.take_stages();
    for (size_t t = 0; t < fed.size(); ++t) {
      const ConstMat hidden = decoder->step(rig.context(), std::span(&fed[t], 1));
      Tensor logits(1, language.vocab());
      decoder->head().full(rig.context(), hidden, logits.view());
      out.stages["logits." + std::to_string(t)] = flat(logits.view());
    }
    rig.take_stages();
  }

  GenerationRun run;
  run.options.max_tokens = kNewTokens;
  auto decoder = language.start(rig.context(), prefixes, {kNewTokens, 1});
  if (out.stages.empty()) {
    out.stages = rig.take_stages();
  }
  out.greedy =
      generate_greedy(rig.context(), *decoder, special_tokens(language), std::span(&run, 1)).at(0);

  for (const Json& beam : item["beams"]) {
    GenerationRun wide;
    wide.options.max_tokens = kNewTokens;
    wide.options.beams = beam["num_beams"].get<int>();
    wide.options.n_best = static_cast<int>(beam["candidates"].size());
    wide.options.length_penalty = beam["length_penalty"].get<double>();
    decoder = language.start(rig.context(), prefixes, {kNewTokens, wide.options.beams});
    out.beams.push_back(generate_beam(rig.context(), *decoder, special_tokens(language), wide));
  }

  std::vector<std::vector<int32_t>> targets;
  size_t longest = 1;
  for (const Json& score : item["scores"]) {
    targets.push_back(prompt_ids(rig, score["text"].get<std::string>()));
    longest = std::max(longest, targets.back().size());
  }
  if (!targets.empty()) {
    decoder = language.start(rig.context(), prefixes,
                             {static_cast<int64_t>(longest), static_cast<int64_t>(targets.size())});
    out.score_logprobs = score_targets(rig.context(), *decoder, special_tokens(language), targets);
  }
  return out;
}

inline void expect_hypothesis(const std::string& where, const Hypothesis& found,
                              const Json& expected) {
  EXPECT_EQ(found.tokens, ids(expected["tokens"])) << where;
  if (found.tokens != ids(expected["tokens"])) return;
  expect_logprob(where, "logprob", found.logprob, expected["logprob"].get<double>());
  if (expected.contains("score")) {
    expect_logprob(where, "score", found.score, expected["score"].get<double>());
  }
  ASSERT_EQ(found.token_logprobs.size(), found.tokens.size()) << where;
  if (expected.contains("token_logprobs")) {
    for (size_t i = 0; i < found.tokens.size(); ++i) {
      expect_logprob(where, "token " + std::to_string(i), found.token_logprobs[i],
                     expected["token_logprobs"][i].get<double>());
    }
  }
}

// The run against case `index` of the golden.
inline void expect_case(const std::string& where, const Golden& golden, size_t index,
                        const LanguageRun& run) {
  const Json& item = golden.json()["cases"][index];
  const std::string prefix = "case" + std::to_string(index) + "/";
  for (const std::string& stage : golden.names(prefix)) {
    if (stage.starts_with("image")) continue;
    const auto found = run.stages.find(stage);
    ASSERT_NE(found, run.stages.end()) << where << ": stage " << stage << " was not traced";
    expect_stage(where, stage, found->second, golden.values(prefix + stage));
  }
  expect_hypothesis(where + " greedy", run.greedy, item["greedy"]);
  EXPECT_EQ(run.greedy.finish == FinishReason::stop,
            item["greedy"]["finish_reason"].get<std::string>() == "stop")
      << where;
  ASSERT_EQ(run.beams.size(), item["beams"].size()) << where;
  for (size_t b = 0; b < run.beams.size(); ++b) {
    const Json& beam = item["beams"][b];
    const std::string name = where + " beams, length penalty " + beam["length_penalty"].dump();
    ASSERT_EQ(run.beams[b].size(), beam["candidates"].size()) << name;
    for (size_t i = 0; i < run.beams[b].size(); ++i) {
      expect_hypothesis(name + ", candidate " + std::to_string(i), run.beams[b][i],
                        beam["candidates"][i]);
    }
  }
  ASSERT_EQ(run.score_logprobs.size(), item["scores"].size()) << where;
  for (size_t s = 0; s < run.score_logprobs.size(); ++s) {
    const Json& expected = item["scores"][s]["token_logprobs"];
    const std::string name = where + " score " + std::to_string(s);
    ASSERT_EQ(run.score_logprobs[s].size(), expected.size()) << name;
    double sum = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      expect_logprob(name, "token " + std::to_string(i), run.score_logprobs[s][i],
                     expected[i].get<double>());
      sum += run.score_logprobs[s][i];
    }
    // The promise is for one token; a long text's sum may collect as many errors as it has tokens.
    EXPECT_NEAR(sum, item["scores"][s]["logprob"].get<double>(),
                kLogprobBound * std::max<size_t>(1, expected.size() / 12))
        << name;
  }
}

inline void expect_same(const std::string& where, const Hypothesis& a, const Hypothesis& b) {
  EXPECT_EQ(a.tokens, b.tokens) << where;
  EXPECT_EQ(a.token_logprobs, b.token_logprobs) << where;
  EXPECT_EQ(a.logprob, b.logprob) << where;
  EXPECT_EQ(a.score, b.score) << where;
}

inline void expect_same_stages(const std::string& where, const Stages& a, const Stages& b) {
  ASSERT_EQ(a.size(), b.size()) << where;
  for (const auto& [name, values] : a) {
    const auto other = b.find(name);
    ASSERT_NE(other, b.end()) << where << ": stage " << name;
    EXPECT_TRUE(values == other->second) << where << ": bits of stage " << name << " differ";
  }
}

// Bit by bit.
inline void expect_same(const std::string& where, const LanguageRun& a, const LanguageRun& b) {
  expect_same_stages(where, a.stages, b.stages);
  expect_same(where + " greedy", a.greedy, b.greedy);
  ASSERT_EQ(a.beams.size(), b.beams.size()) << where;
  for (size_t i = 0; i < a.beams.size(); ++i) {
    ASSERT_EQ(a.beams[i].size(), b.beams[i].size()) << where;
    for (size_t j = 0; j < a.beams[i].size(); ++j) {
      expect_same(where + " beams", a.beams[i][j], b.beams[i][j]);
    }
  }
  EXPECT_EQ(a.score_logprobs, b.score_logprobs) << where;
}

}  // namespace pali::parity
