// The language model against plain double loops, and what must hold between ways of running it.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "unit/model/oracle.hpp"
#include "unit/model/tiny.hpp"

// This program counts what operator new hands out: a decoder's step must ask for nothing.
namespace {
std::atomic<int64_t> allocations{0};
}
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size == 0 ? 1 : size)) return p;
  throw std::bad_alloc();
}
// Every form is replaced: AddressSanitizer brings those that are not, and then new and delete do
// not match.
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace pali::test {
namespace {

// f32 sums of a few dozen terms through some 20 products: see kStageBound of tests/parity.
constexpr double kBound = 2e-5;

struct Variant {
  const char* name;
  std::string json;
};

std::vector<Variant> variants() {
  return {
      {"gated-silu, tied, scaled", t5_json()},
      {"gated-gelu, own head", t5_json(R"("feed_forward_proj": "gated-gelu",
                                          "tie_word_embeddings": false)")},
      {"relu, scale_decoder_outputs false", t5_json(R"("feed_forward_proj": "relu",
                                                       "scale_decoder_outputs": false)")},
      {"umt5: a bias a layer", t5_json(R"("model_type": "umt5")")},
      {"mt5: never scaled", t5_json(R"("model_type": "mt5")")},
  };
}

// The last of two keys of the same name counts in nlohmann-json: a variant overrides the base.
TEST(Decoder, StepsAgreeWithAllPositionsAtOnceInDouble) {
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    const Model model = tiny_model(variant.json, 7);
    const LanguageConfig& config = *model.checkpoint.config.language;
    TestContext run;
    // Longer than max_distance, so that the last buckets are used too.
    const Tensor prefix = random_matrix(150, config.width, 3);
    const std::vector<int32_t> ids{0, 5, 36, 1, 17, 5, 2, 30};
    const Rows expected =
        t5_decode(config, model.checkpoint.table,
                  t5_encode(config, model.checkpoint.table, rows_of(prefix.view())), ids);
    const std::vector<ConstMat> prefixes{prefix.view()};
    auto decoder = model.language->start(run.context, prefixes, {8, 1});
    for (size_t t = 0; t < ids.size(); ++t) {
      const ConstMat hidden = decoder->step(run.context, {&ids[t], 1});
      Tensor logits(1, config.vocab);
      decoder->head().full(run.context, hidden, logits.view());
      EXPECT_LT(relative_error(flat(logits.view()), expected[t]), kBound) << "step " << t;
    }
  }
}

// A decoder fed 150 tokens: every bucket of the decoder's table.
TEST(Decoder, LongSequencesUseEveryBucket) {
  const Model model = tiny_model(t5_json(), 11);
  const LanguageConfig& config = *model.checkpoint.config.language;
  TestContext run;
  const Tensor prefix = random_matrix(3, config.width, 5);
  std::vector<int32_t> ids;
  for (int t = 0; t < 150; ++t) ids.push_back((t * 7 + 3) % int(config.vocab));
  const Rows expected =
      t5_decode(config, model.checkpoint.table,
                t5_encode(config, model.checkpoint.table, rows_of(prefix.view())), ids);
  const std::vector<ConstMat> prefixes{prefix.view()};
  auto decoder = model.language->start(run.context, prefixes, {150, 1});
  ConstMat hidden;
  for (const int32_t id : ids) hidden = decoder->step(run.context, {&id, 1});
  Tensor logits(1, config.vocab);
  decoder->head().full(run.context, hidden, logits.view());
  EXPECT_LT(relative_error(flat(logits.view()), expected.back()), kBound);
}

// Hidden states of sequences fed one by one, each in a decoder of its own.
std::vector<float> alone(const Model& model, TestContext& run, const Tensor& prefix,
                         const std::vector<int32_t>& ids) {
  const std::vector<ConstMat> prefixes{prefix.view()};
  auto decoder =
      model.language->start(run.context, prefixes, {static_cast<int64_t>(ids.size()), 1});
  ConstMat hidden;
  for (const int32_t id : ids) hidden = decoder->step(run.context, {&id, 1});
  return flat(hidden);
}

double difference(std::span<const float> a, std::span<const float> b) {
  return relative_error(a, std::vector<double>(b.begin(), b.end()));
}

// One of each way to look back: separate cross-attention, a prefix with and without windows.
std::vector<Variant> kinds() {
  return {
      {"t5", t5_json()},
      {"umt5", t5_json(R"("model_type": "umt5")")},
      {"paligemma", paligemma_json(R"("model_type": "gemma")")},
      {"paligemma2", paligemma_json()},
  };
}

class AnyDecoder : public ::testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Kinds, AnyDecoder, ::testing::ValuesIn(kinds()),
                         [](const auto& test) { return test.param.name; });

TEST_P(AnyDecoder, ABatchOfRequestsIsEachOfThemAlone) {
  const Model model = tiny_model(GetParam().json, 13);
  TestContext run(2);
  std::vector<Tensor> prefixes;
  std::vector<ConstMat> views;
  for (const int64_t length : {1, 9, 140}) {
    prefixes.push_back(random_matrix(length, model.language->width(), uint64_t(length)));
    views.push_back(prefixes.back().view());
  }
  auto decoder = model.language->start(run.context, views, {4, 3});
  ASSERT_EQ(decoder->batch(), 3);
  const std::vector<std::vector<int32_t>> fed{{0, 3, 9, 1}, {0, 8, 8, 20}, {0, 36, 2, 5}};
  ConstMat hidden;
  for (size_t t = 0; t < 4; ++t) {
    const std::vector<int32_t> ids{fed[0][t], fed[1][t], fed[2][t]};
    hidden = decoder->step(run.context, ids);
  }
  for (size_t r = 0; r < 3; ++r) {
    EXPECT_LT(difference(hidden.row_span(int64_t(r)), alone(model, run, prefixes[r], fed[r])), 1e-6)
        << "request " << r;
  }
}

// Sequences multiplied, permuted and dropped: each must be what feeding its own history gives.
TEST_P(AnyDecoder, ReorderGivesWhatRecomputingGives) {
  const Model model = tiny_model(GetParam().json, 17);
  TestContext run;
  const Tensor first = random_matrix(6, model.language->width(), 1);
  const Tensor second = random_matrix(11, model.language->width(), 2);
  const std::vector<ConstMat> views{first.view(), second.view()};
  auto decoder = model.language->start(run.context, views, {8, 5});
  std::vector<std::vector<int32_t>> history{{}, {}};
  std::vector<int> request{0, 1};
  // How each step's sequences come from the ones before; the batch grows, shrinks and ends.
  const std::vector<std::vector<int32_t>> moves{{0, 0, 1, 1, 0}, {4, 2, 2, 0, 1}, {1, 0, 3, 2},
                                                {3, 3, 3, 3, 3}, {4, 0},          {1}};
  uint64_t draw = 1;
  for (const std::vector<int32_t>& move : moves) {
    decoder->reorder(move);
    std::vector<std::vector<int32_t>> moved;
    std::vector<int> moved_request;
    std::vector<int32_t> ids;
    for (const int32_t source : move) {
      draw = draw * 6364136223846793005u + 1442695040888963407u;
      moved.push_back(history[size_t(source)]);
      moved_request.push_back(request[size_t(source)]);
      ids.push_back(int32_t((draw >> 33) % 37));
      moved.back().push_back(ids.back());
    }
    history = moved;
    request = moved_request;
    ASSERT_EQ(decoder->batch(), int64_t(move.size()));
    const ConstMat hidden = decoder->step(run.context, ids);
    for (size_t b = 0; b < ids.size(); ++b) {
      const Tensor& prefix = request[b] == 0 ? first : second;
      EXPECT_LT(difference(hidden.row_span(int64_t(b)), alone(model, run, prefix, history[b])),
                1e-6)
          << "sequence " << b << " after " << history[b].size() << " tokens";
    }
  }
}

TEST(Decoder, TracesTheStagesOfTheFirstRequestOnly) {
  const Model model = tiny_model(t5_json(), 19);
  TestContext run;
  std::vector<std::string> names;
  run.tracer = [&](std::string_view name, ConstMat) { names.emplace_back(name); };
  run.context.tracer = &run.tracer;
  const Tensor a = random_matrix(2, model.language->width(), 1);
  const std::vector<ConstMat> views{a.view(), a.view()};
  model.language->start(run.context, views, {1, 2});
  EXPECT_EQ(names, (std::vector<std::string>{"encoder.input", "encoder.block.0", "encoder.block.1",
                                             "encoder.memory"}));
}

TEST_P(AnyDecoder, StepsAllocateNothingAfterTheFirst) {
  const Model model = tiny_model(GetParam().json, 29);
  TestContext run(2);
  const Tensor prefix = random_matrix(5, model.language->width(), 1);
  const std::vector<ConstMat> views{prefix.view()};
  auto decoder = model.language->start(run.context, views, {12, 3});
  const std::vector<int32_t> spread{0, 0, 0}, swap{2, 0, 1}, ids{4, 5, 6};
  std::vector<ScoredToken> best(6);
  decoder->reorder(spread);
  int64_t before = 0;
  for (int t = 0; t < 12; ++t) {
    if (t == 2) before = allocations;  // a prefix-LM computes its first step before it
    decoder->reorder(swap);
    decoder->head().top_k(run.context, decoder->step(run.context, ids), 2, best);
  }
  EXPECT_EQ(allocations - before, 0);
}

TEST_P(AnyDecoder, RefusesACacheWithoutEnd) {
  const Model model = tiny_model(GetParam().json, 23);
  TestContext run;
  const Tensor prefix = random_matrix(2, model.language->width(), 1);
  const std::vector<ConstMat> views{prefix.view()};
  const Caught error = caught([&] {
    model.language->start(run.context, views, {int64_t{1} << 40, 4});
  });
  EXPECT_EQ(error.code, ErrorCode::invalid_argument);
  EXPECT_NE(error.what.find("--max-tokens"), std::string::npos) << error.what;
}

}  // namespace
}  // namespace pali::test
