// Streaming attention of values that are not finite, subnormal or hidden: who meets them, and who
// does not.
#include "attention_testing.hpp"

namespace pali {
namespace {

class AttentionValues : public Attention {
 protected:
  // Queries, keys and values before and after spoil() put what is not finite among them; take(path,
  // before, after) compares the results.
  template <class Spoil, class Take>
  void compare(int64_t queries, int64_t keys, int64_t dim, const std::vector<KeyRange>& ranges,
               const Spoil& spoil, const Take& take) {
    std::mt19937 random(static_cast<unsigned>(queries * 3 + keys * 5 + dim * 7));
    Poisoned q(queries, dim), k(keys, dim), v(keys, dim);
    q.fill(random), k.fill(random), v.fill(random);
    const Poisoned fine_k = k, fine_v = v;
    spoil(k, v);
    for (const Path path : paths(queries)) {
      Poisoned before(queries, dim), after(queries, dim);
      Problem p{&q, &fine_k, &fine_v, queries, keys, dim, 0.2f};
      if (!ranges.empty()) p.ranges = ranges.data();
      run(path, p, before);
      p.k = &k, p.v = &v;
      run(path, p, after);
      take(path, q, before, after);
    }
  }
};
PALI_EVERY_TIER(AttentionValues);

// Scores are then infinite or NaN: the query's output is not a number, and no other query's is
// touched.
TEST_P(AttentionValues, WhatIsNotFiniteInOneQueryStaysWithThatQuery) {
  std::mt19937 random(3);
  Poisoned q(20, 24), k(300, 24), v(300, 24), out(20, 24);
  q.fill(random), k.fill(random), v.fill(random);
  for (const int64_t keys : {50, 300}) {
    for (const float value : {kNaN, kInfinity, -kInfinity}) {
      q.at(7, 5) = value;
      for (const Path path : paths(20)) {
        run(path, {&q, &k, &v, 20, keys, 24, 0.2f}, out);
        for (int64_t d = 0; d < 24; ++d) {
          EXPECT_TRUE(std::isnan(out.at(7, d)));
          EXPECT_TRUE(std::isfinite(out.at(6, d)) && std::isfinite(out.at(8, d)));
        }
      }
    }
  }
}

// Subnormal operands: scores of zero to within the tolerance, and no weight lost.
TEST_P(AttentionValues, SubnormalOperandsGiveTheMean) {
  std::mt19937 random(5);
  Poisoned q(33, 40), k(70, 40), v(70, 40), out(33, 40);
  q.fill(random, 1e-40f), k.fill(random, 1e-40f), v.fill(random);
  for (const Path path : paths(33)) {
    run(path, {&q, &k, &v, 33, 70, 40, 1.0f}, out);
    for (int64_t d = 0; d < 40; ++d) {
      double mean = 0, magnitude = 0;
      for (int64_t j = 0; j < 70; ++j)
        mean += v.at(j, d) / 70.0, magnitude += std::abs(v.at(j, d)) / 70.0;
      const double stored = path == Path::rows_bf16 ? 0x1p-9 : 0;
      const double error = path == Path::bf16 ? 2 * (0x1p-8 + 2e-4) : stored + 100 * kEps;
      for (int64_t i = 0; i < 33; ++i) ASSERT_NEAR(out.at(i, d), mean, magnitude * error);
    }
  }
}

// A first block that is wholly masked must not leave a NaN behind.
TEST_P(AttentionValues, BlockOfMinusInfinityIsForgotten) {
  for (const int64_t queries : {1, 9}) {
    std::mt19937 random(4);
    const int64_t keys = 150;
    Poisoned q(queries, 8), k(keys, 8), v(keys, 8), out(queries, 8), bias(1, keys + queries - 1);
    q.fill(random), k.fill(random), v.fill(random), bias.fill(random);
    for (int64_t j = 0; j < 140 + queries - 1; ++j) {
      bias.at(0, j) = -std::numeric_limits<float>::infinity();
    }
    Problem p{&q, &k, &v, queries, keys, 8, 0.3f};
    p.bias = bias.data() + queries - 1;
    for (const Path path : paths(queries)) {
      run(path, p, out);
      for (int64_t i = 0; i < queries; ++i) {
        for (int64_t d = 0; d < 8; ++d) EXPECT_TRUE(std::isfinite(out.at(i, d))) << i << "," << d;
      }
    }
  }
}

// Query i sees the keys up to 130 + i: whoever does not see a key is not touched by it. On bf16
// tiles 32 queries raise their maxima together, so that the weights before and after are rounded
// from different powers; values here are below 5.
TEST_P(AttentionValues, KeysThatAreNotFiniteStayWithTheirQueries) {
  const int64_t queries = 40, keys = 170, dim = 24, bad = 150;
  std::vector<KeyRange> ranges;
  for (int32_t i = 0; i < queries; ++i) ranges.push_back({0, 130 + i + 1});
  for (const float value : {kNaN, kInfinity, -kInfinity}) {
    compare(
        queries, keys, dim, ranges, [&](Poisoned& k, Poisoned&) { k.at(bad, 7) = value; },
        [&](Path path, const Poisoned& q, const Poisoned& before, const Poisoned& after) {
          const double rounded = path == Path::bf16 ? 5 * 4 * (0x1p-8 + 2e-4) : 0;
          for (int64_t i = 0; i < queries; ++i) {
            // A score of -inf is a weight of zero; one of inf leaves no difference to it.
            const double score = double{q.at(i, 7)} * value;
            const bool nan = i + 130 >= bad && !(score < 0);
            for (int64_t d = 0; d < dim; ++d) {
              ASSERT_EQ(kind_of(after.at(i, d)), nan ? "NaN" : "finite")
                  << "path " << static_cast<int>(path) << " query " << i << " value " << value;
              if (i + 130 < bad) {
                ASSERT_NEAR(after.at(i, d), before.at(i, d), rounded) << i;
              }
            }
          }
        });
  }
}

TEST_P(AttentionValues, ValuesThatAreNotFiniteStayInTheirColumns) {
  const int64_t queries = 40, keys = 170, dim = 24;
  for (const float value : {kNaN, kInfinity, -kInfinity}) {
    for (const int64_t bad : {0, 131, 169}) {
      compare(
          queries, keys, dim, {}, [&](Poisoned&, Poisoned& v) { v.at(bad, 7) = value; },
          [&](Path path, const Poisoned&, const Poisoned& before, const Poisoned& after) {
            for (int64_t i = 0; i < queries; ++i) {
              for (int64_t d = 0; d < dim; ++d) {
                if (d == 7) {
                  ASSERT_EQ(kind_of(after.at(i, d)), kind_of(value))
                      << "path " << static_cast<int>(path) << " query " << i;
                } else {
                  ASSERT_EQ(after.at(i, d), before.at(i, d)) << i << "," << d;
                }
              }
            }
          });
    }
  }
}

}  // namespace
}  // namespace pali
