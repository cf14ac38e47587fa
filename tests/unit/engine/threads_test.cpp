// One Engine, many threads: the same bits for everybody, at any pool size.
#include <gtest/gtest.h>

#include <thread>

#include "fixtures.hpp"

namespace pali {
namespace {

using testing::ask;
using testing::model;
using testing::picture;
using testing::threads;

TEST(Threads, FourCallersShareOneEngine) {
  const Engine engine = Engine::open(model("pali3"), threads(2));
  std::vector<Result> alone;
  for (int seed = 0; seed < 4; ++seed) alone.push_back(engine.run(ask(seed)));
  const std::vector<std::string> labels = {"cat", "dog"};
  const std::vector<LabelScore> classified = engine.classify(picture(0), labels);
  std::vector<std::thread> callers;
  for (int seed = 0; seed < 4; ++seed) {
    callers.emplace_back([&, seed] {
      for (int repeat = 0; repeat < 5; ++repeat) {
        const Result result = engine.run(ask(seed));
        EXPECT_EQ(result.tokens, alone[static_cast<size_t>(seed)].tokens);
        EXPECT_EQ(result.logprob, alone[static_cast<size_t>(seed)].logprob);
        EXPECT_EQ(engine.classify(picture(0), labels)[0].logit, classified[0].logit);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(Threads, PoolSizeDoesNotChangeTheBits) {
  const Engine one = Engine::open(model("pali3"), threads(1));
  for (const int count : {2, 3, 4}) {
    const Engine several = Engine::open(model("pali3"), threads(count));
    for (int seed = 0; seed < 3; ++seed) {
      const Result a = one.run(ask(seed));
      const Result b = several.run(ask(seed));
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_EQ(a.logprob, b.logprob);
    }
    EXPECT_EQ(one.embed_tokens(picture(9)).values, several.embed_tokens(picture(9)).values);
  }
}

}  // namespace
}  // namespace pali
