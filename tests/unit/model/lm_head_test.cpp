// The head against plain loops over prescribed logits.
#include "model/lm_head.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

// A "product" that copies: hidden [B, V] are the logits.
class Identity final : public PackedLinear {
 public:
  explicit Identity(int64_t size) : size_(size) {}
  int64_t out() const override { return size_; }
  int64_t in() const override { return size_; }
  void run(const Context&, ConstMat x, Mat y, const Epilogue&) const override {
    for (int64_t i = 0; i < x.rows; ++i) std::copy_n(x.row(i), x.cols, y.row(i));
  }
  std::string_view backend() const override { return "identity"; }

 private:
  int64_t size_;
};

LmHead identity_head(int64_t size, float scale = 1.0f) {
  return LmHead(std::make_unique<Identity>(size), scale);
}

double naive_logprob(const float* logits, int64_t size, int32_t id,
                     std::span<const int32_t> allowed = {}) {
  double sum = 0;
  if (allowed.empty()) {
    for (int64_t v = 0; v < size; ++v) sum += std::exp(double(logits[v]) - logits[id]);
  }
  for (const int32_t v : allowed) sum += std::exp(double(logits[v]) - logits[id]);
  return -std::log(sum);
}

// More rows than are computed at once.
constexpr int64_t kRows = 71, kVocab = 53;

TEST(LmHead, ArgmaxTopKAndLogprobAgreeWithSorting) {
  TestContext run(2);
  const LmHead head = identity_head(kVocab);
  Tensor logits = random_matrix(kRows, kVocab, 5, 6.0f);
  for (int64_t b = 0; b < kRows; ++b) {
    logits.row(b)[b % kVocab] = logits.row(b)[(b * 5 + 1) % kVocab];  // ties
  }
  const std::vector<int32_t> some{0, 3, 4, 17, 40, 52};
  for (const bool limited : {false, true}) {
    std::vector<int32_t> allowed = limited ? some : std::vector<int32_t>{};
    std::vector<int32_t> ids(kVocab);
    std::iota(ids.begin(), ids.end(), 0);
    if (limited) ids = some;
    for (const int64_t k : {int64_t{1}, int64_t{4}, int64_t(ids.size()), int64_t{60}}) {
      std::vector<ScoredToken> top(size_t(kRows * k)), best(kRows);
      head.top_k(run.context, logits.view(), k, top, allowed);
      head.argmax(run.context, logits.view(), best, allowed);
      for (int64_t b = 0; b < kRows; ++b) {
        const float* row = logits.row(b);
        std::vector<int32_t> order = ids;
        std::stable_sort(order.begin(), order.end(),
                         [&](int32_t x, int32_t y) { return row[x] > row[y]; });
        EXPECT_EQ(best[size_t(b)].id, order[0]);
        EXPECT_NEAR(best[size_t(b)].logprob, naive_logprob(row, kVocab, order[0], allowed), 1e-5);
        for (int64_t j = 0; j < k; ++j) {
          const ScoredToken& token = top[size_t(b * k + j)];
          if (j >= int64_t(order.size())) {
            EXPECT_EQ(token.logprob, -std::numeric_limits<float>::infinity());
            continue;
          }
          EXPECT_EQ(token.id, order[size_t(j)]) << "row " << b << " place " << j;
          EXPECT_NEAR(token.logprob, naive_logprob(row, kVocab, token.id, allowed), 1e-5);
        }
      }
    }
  }
  std::vector<int32_t> ids;
  for (int64_t b = 0; b < kRows; ++b) ids.push_back(int32_t(b * 31 % kVocab));
  std::vector<float> logprobs(kRows);
  head.logprob(run.context, logits.view(), ids, logprobs);
  for (int64_t b = 0; b < kRows; ++b) {
    EXPECT_NEAR(logprobs[size_t(b)], naive_logprob(logits.row(b), kVocab, ids[size_t(b)]), 1e-5);
  }
}

// A vocabulary of several blocks that are summed apart: the best lie in later ones, ties across
// them.
TEST(LmHead, LargeVocabulariesAreSearchedAndSummedWhole) {
  TestContext run(3);
  constexpr int64_t kSize = 10007, kSequences = 5;
  const LmHead head = identity_head(kSize);
  Tensor logits = random_matrix(kSequences, kSize, 8, 3.0f);
  for (int64_t b = 0; b < kSequences; ++b) {
    for (const int64_t id : {b * 2000 + 1000, kSize - 1 - b, int64_t{4095}}) {
      logits.row(b)[id] = 20.0f;
    }
  }
  for (const int64_t k : {int64_t{1}, int64_t{3}, int64_t{12}}) {
    std::vector<ScoredToken> top(size_t(kSequences * k)), best(kSequences);
    head.top_k(run.context, logits.view(), k, top);
    head.argmax(run.context, logits.view(), best);
    for (int64_t b = 0; b < kSequences; ++b) {
      const float* row = logits.row(b);
      std::vector<int32_t> order(kSize);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t x, int32_t y) { return row[x] > row[y]; });
      EXPECT_EQ(best[size_t(b)].id, order[0]);
      EXPECT_NEAR(best[size_t(b)].logprob, naive_logprob(row, kSize, order[0]), 1e-5);
      for (int64_t j = 0; j < k; ++j) {
        EXPECT_EQ(top[size_t(b * k + j)].id, order[size_t(j)]) << b << " " << j;
      }
    }
  }
  for (const int64_t at : {int64_t{0}, int64_t{4096}, kSize - 1}) {
    Tensor bad = random_matrix(2, kSize, 3);
    bad.row(1)[at] = -std::numeric_limits<float>::infinity();
    std::vector<ScoredToken> best(2);
    const Caught error = caught([&] { head.argmax(run.context, bad.view(), best); });
    EXPECT_EQ(error.code, ErrorCode::corrupt_file) << at;
  }
}

TEST(LmHead, ScalesHiddenStatesBeforeTheProduct) {
  TestContext run;
  const LmHead head = identity_head(5, 0.25f);
  const Tensor hidden = random_matrix(3, 5, 9, 4.0f);
  Tensor logits(3, 5);
  head.full(run.context, hidden.view(), logits.view());
  for (int64_t b = 0; b < 3; ++b) {
    for (int64_t v = 0; v < 5; ++v) EXPECT_EQ(logits.row(b)[v], hidden.row(b)[v] * 0.25f);
  }
}

TEST(LmHead, LogitsThatAreNotFiniteAreACorruptFile) {
  TestContext run;
  const LmHead head = identity_head(9);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {inf, -inf, std::nanf("")}) {
    for (const int64_t at : {0, 4, 8}) {
      Tensor logits = random_matrix(2, 9, 3);
      logits.row(1)[at] = bad;
      std::vector<ScoredToken> best(2);
      const Caught error = caught([&] { head.argmax(run.context, logits.view(), best); });
      EXPECT_EQ(error.code, ErrorCode::corrupt_file) << bad << " at " << at;
    }
  }
}

}  // namespace
}  // namespace pali::test
