// Streaming attention of a tile of queries, every tier against softmax in f64.
#include <algorithm>
#include <functional>

#include "base/tensor.hpp"
#include "kernel_testing.hpp"

namespace pali {
namespace {

struct Case {
  int64_t queries, keys, dim;
  bool bias = false, rows = false;
  float spread = 1.0f;  // of the queries: larger makes the softmax sharper
  float soft_cap = 0.0f;
  std::function<KeyRange(int64_t query)> range = nullptr;
};

// Everything of a tile that has neither bias nor mask.
AttentionTile plain_tile(const Poisoned& q, int64_t queries, const Poisoned& k, const Poisoned& v,
                         int64_t keys, int64_t dim, float scale, Poisoned& out,
                         AlignedBuffer<float>& scratch) {
  AttentionTile tile{};
  tile.q = q.data(), tile.q_stride = q.stride(), tile.queries = queries;
  tile.k = k.data(), tile.k_stride = k.stride();
  tile.v = v.data(), tile.v_stride = v.stride();
  tile.keys = keys, tile.head_dim = dim, tile.scale = scale;
  tile.out = out.data(), tile.out_stride = out.stride();
  tile.scratch = scratch.data();
  return tile;
}

class Attention : public EveryTier {
 protected:
  void check(const Case& c) {
    std::mt19937 random(static_cast<unsigned>(c.queries * 3 + c.keys * 5 + c.dim * 7));
    const int64_t stored = c.rows ? c.keys + 9 : c.keys;
    Poisoned q(c.queries, c.dim), k(stored, c.dim, c.dim + 11), v(stored, c.dim, c.dim + 7),
        out(c.queries, c.dim);
    q.fill(random, c.spread), k.fill(random), v.fill(random);
    // Distances from -(queries - 1) to keys - 1, poison on both sides.
    Poisoned bias(1, c.queries + c.keys - 1);
    bias.fill(random);
    const float* zero_distance = bias.data() + c.queries - 1;
    std::vector<int32_t> rows;
    for (int64_t j = 0; j < c.keys; ++j) {
      rows.push_back(static_cast<int32_t>(c.rows ? (j * 7 + 3) % stored : j));
    }
    if (c.rows) {
      for (int64_t j = 1; j < c.keys; ++j) std::swap(rows[j], rows[random() % (j + 1)]);
    }
    AlignedBuffer<float> scratch(attention_scratch(c.dim) + 16);
    std::fill_n(scratch.data(), scratch.size(), std::nanf(""));
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
    std::vector<KeyRange> ranges;
    for (int64_t i = 0; i < c.queries; ++i) {
      ranges.push_back(c.range ? c.range(i) : KeyRange{0, static_cast<int32_t>(c.keys)});
    }
    AttentionTile tile = plain_tile(q, c.queries, k, v, c.keys, c.dim, scale, out, scratch);
    if (c.rows) tile.rows = rows.data();
    if (c.bias) tile.bias = zero_distance;
    if (c.range) tile.ranges = ranges.data();
    tile.soft_cap = c.soft_cap;
    table.attention(tile);
    for (int64_t s = attention_scratch(c.dim); s < scratch.size(); ++s) {
      ASSERT_TRUE(std::isnan(scratch.data()[s])) << "beyond the scratch";
    }
    ASSERT_TRUE(out.untouched());
    for (int64_t i = 0; i < c.queries; ++i) {
      const KeyRange range = ranges[static_cast<size_t>(i)];
      std::vector<double> weights(static_cast<size_t>(c.keys), -1e300);
      double highest = -1e300, score_error = 0, sum = 0;
      for (int64_t j = range.first; j < range.end; ++j) {
        double score = 0, magnitude = 0;
        for (int64_t d = 0; d < c.dim; ++d) {
          const double term = double{q.at(i, d)} * k.at(rows[static_cast<size_t>(j)], d);
          score += term * scale, magnitude += std::abs(term) * scale;
        }
        // tanh's own error is relative, 7 kEps, and its slope at most 1.
        if (c.soft_cap > 0) score = c.soft_cap * std::tanh(score / c.soft_cap);
        const double cap_error = c.soft_cap > 0 ? 9 * kEps * std::abs(score) : 0;
        if (c.bias) score += zero_distance[j - i];
        weights[static_cast<size_t>(j)] = score;
        highest = std::max(highest, score);
        // One chain of dim products at worst; bias, scale and the subtraction of the maximum.
        score_error = std::max(score_error, magnitude * static_cast<double>(c.dim + 2) * kEps +
                                                4 * kEps * (std::abs(score) + 4) + cap_error);
      }
      for (double& weight : weights) sum += weight = std::exp(weight - highest);
      for (int64_t d = 0; d < c.dim; ++d) {
        double expected = 0, magnitude = 0;
        for (int64_t j = 0; j < c.keys; ++j) {
          const double term =
              weights[static_cast<size_t>(j)] / sum * v.at(rows[static_cast<size_t>(j)], d);
          expected += term, magnitude += std::abs(term);
        }
        // Scores' errors reach numerator and denominator; then chains over one block of keys and
        // over the blocks, the exponential's own 3 kEps and the division.
        const double chains = static_cast<double>(std::min(c.keys, kAttentionKeys) +
                                                  3 * (c.keys / kAttentionKeys) + 12);
        ASSERT_NEAR(out.at(i, d), expected, magnitude * (2 * score_error + 2 * chains * kEps))
            << c.queries << " queries, " << c.keys << " keys, width " << c.dim << " at " << i << ","
            << d;
      }
    }
  }
};
PALI_EVERY_TIER(Attention);

TEST_P(Attention, EveryNumberOfQueries) {
  for (int64_t queries = 1; queries <= kAttentionQueries; ++queries) {
    check({queries, 29, 24, queries % 2 == 0});
  }
}

TEST_P(Attention, EveryNumberOfKeys) {
  for (int64_t keys = 1; keys <= 33; ++keys) check({5, keys, 9, keys % 2 == 0});
  for (const int64_t keys : {127, 128, 129, 255, 257, 300}) check({19, keys, 16, true});
}

TEST_P(Attention, EveryHeadWidth) {
  for (int64_t dim = 1; dim <= 33; ++dim) check({3, 14, dim});
  for (const int64_t dim : {64, 72, 80, 88, 96, 104, 112, 128, 256}) {
    check({32, 131, dim});
    check({1, 131, dim});
  }
}

TEST_P(Attention, OneQueryThroughARowTable) {
  for (const int64_t dim : {1, 15, 16, 17, 64, 104}) {
    for (const int64_t keys : {1, 2, 15, 17, 128, 200}) check({1, keys, dim, true, true});
  }
  check({5, 40, 64, true, true});
}

TEST_P(Attention, SharpSoftmaxOverSeveralBlocks) {
  for (const int64_t queries : {1, 7, 32}) check({queries, 520, 32, true, false, 12.0f});
}

// Ranges: what a query does not see has no part in its softmax, wherever blocks begin.
TEST_P(Attention, CausalRange) {
  for (const int64_t queries : {1, 2, 3, 31, 33, 128}) {
    for (const int64_t before : {0, 1, 100, 300}) {
      Case c{queries, before + queries, 24, before == 1};
      c.range = [=](int64_t i) { return KeyRange{0, static_cast<int32_t>(before + i + 1)}; };
      check(c);
    }
  }
}

TEST_P(Attention, SlidingWindow) {
  for (const int32_t window : {1, 7, 64, 150}) {
    for (const int64_t queries : {2, 40, 128}) {
      Case c{queries, 400, 20, queries == 40};
      c.range = [=](int64_t i) {
        const auto end = static_cast<int32_t>(400 - queries + i + 1);
        return KeyRange{std::max(0, end - window), end};
      };
      check(c);
    }
  }
}

TEST_P(Attention, RangesOfNoOrder) {
  for (const int64_t queries : {1, 9, 70}) {
    for (const bool rows : {false, true}) {
      Case c{queries, 290, 12, true, rows};
      c.range = [](int64_t i) {
        const auto first = static_cast<int32_t>((i * 89 + 5) % 289);
        return KeyRange{first, static_cast<int32_t>(first + 1 + (i * 31) % (290 - first))};
      };
      check(c);
    }
  }
}

TEST_P(Attention, SoftCap) {
  for (const float cap : {0.5f, 5.0f, 50.0f}) {
    for (const int64_t queries : {1, 2, 3, 32, 65}) {
      Case c{queries, 150, 16, queries == 3, false, 6.0f, cap};
      check(c);
      c.range = [](int64_t i) { return KeyRange{static_cast<int32_t>(i % 9), 150 - 4}; };
      check(c);
    }
  }
  check({1, 40, 64, true, true, 3.0f, 5.0f});
}

// The maximum rises from block to block, so that every block corrects what came before.
TEST_P(Attention, RisingScoresCorrectEarlierBlocks) {
  for (const int64_t queries : {1, 20}) {
    const int64_t keys = 400;
    Poisoned q(queries, 1), k(keys, 1), v(keys, 1), out(queries, 1);
    for (int64_t i = 0; i < queries; ++i) q.at(i, 0) = 1.0f;
    for (int64_t j = 0; j < keys; ++j) {
      k.at(j, 0) = static_cast<float>(j) * 0.5f;
      v.at(j, 0) = static_cast<float>(j);
    }
    AlignedBuffer<float> scratch(attention_scratch(1));
    table.attention(plain_tile(q, queries, k, v, keys, 1, 1.0f, out, scratch));
    double sum = 0, weighted = 0;
    for (int64_t j = 0; j < keys; ++j) {
      const double weight = std::exp(0.5 * static_cast<double>(j - keys + 1));
      sum += weight, weighted += weight * static_cast<double>(j);
    }
    for (int64_t i = 0; i < queries; ++i) {
      EXPECT_NEAR(out.at(i, 0), weighted / sum, 399 * 64 * kEps);
    }
  }
}

TEST_P(Attention, NaNOfOneQueryStaysWithThatQuery) {
  std::mt19937 random(2);
  Poisoned q(20, 24), k(50, 24), v(50, 24), out(20, 24);
  q.fill(random), k.fill(random), v.fill(random);
  q.at(3, 5) = std::nanf("");
  AlignedBuffer<float> scratch(attention_scratch(24));
  table.attention(plain_tile(q, 20, k, v, 50, 24, 0.2f, out, scratch));
  for (int64_t d = 0; d < 24; ++d) {
    EXPECT_TRUE(std::isnan(out.at(3, d)));
    EXPECT_TRUE(std::isfinite(out.at(4, d)) && std::isfinite(out.at(2, d)));
  }
}

// A first block that is wholly masked must not leave a NaN behind.
TEST_P(Attention, BlockOfMinusInfinityIsForgotten) {
  for (const int64_t queries : {1, 9}) {
    std::mt19937 random(4);
    const int64_t keys = 150;
    Poisoned q(queries, 8), k(keys, 8), v(keys, 8), out(queries, 8), bias(1, keys + queries - 1);
    q.fill(random), k.fill(random), v.fill(random), bias.fill(random);
    for (int64_t j = 0; j < 140 + queries - 1; ++j) {
      bias.at(0, j) = -std::numeric_limits<float>::infinity();
    }
    AlignedBuffer<float> scratch(attention_scratch(8));
    AttentionTile tile = plain_tile(q, queries, k, v, keys, 8, 0.3f, out, scratch);
    tile.bias = bias.data() + queries - 1;
    table.attention(tile);
    for (int64_t i = 0; i < queries; ++i) {
      for (int64_t d = 0; d < 8; ++d) EXPECT_TRUE(std::isfinite(out.at(i, d))) << i << "," << d;
    }
  }
}

}  // namespace
}  // namespace pali
