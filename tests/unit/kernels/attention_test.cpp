// Streaming attention, every tier against softmax in f64: tiles of queries in f32 and in bf16 over
// prepared blocks, and one query over rows in place, f32 and bf16.
#include <algorithm>
#include <functional>

#include "base/tensor.hpp"
#include "kernel_testing.hpp"

namespace pali {
namespace {

enum class Path { rows, rows_bf16, f32, bf16 };

bool in_place(Path path) { return path == Path::rows || path == Path::rows_bf16; }

// The values of a matrix as bf16, NaN beyond and beside them.
std::vector<uint16_t> as_bf16(const Poisoned& mat, int64_t rows, int64_t cols) {
  std::vector<uint16_t> stored(static_cast<size_t>(rows * mat.stride() + 32), 0xffff);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < cols; ++d) {
      stored[static_cast<size_t>(i * mat.stride() + d)] = f32_to_bf16(mat.at(i, d));
    }
  }
  return stored;
}

struct Case {
  int64_t queries, keys, dim;
  bool bias = false, rows = false;  // rows: of K and V by a table, in place alone
  float spread = 1.0f;              // of the queries: larger makes the softmax sharper
  float soft_cap = 0.0f;
  std::function<KeyRange(int64_t query)> range = nullptr;
};

// What one run of a kernel needs beside the table.
struct Problem {
  const Poisoned *q, *k, *v;
  int64_t queries, keys, dim;
  float scale;
  const float* bias = nullptr;  // of key - query = 0
  const KeyRange* ranges = nullptr;
  float soft_cap = 0.0f;
  const int32_t* rows = nullptr;
};

class Attention : public EveryTier {
 protected:
  const AttentionKernels& kernels(Path path) const {
    return path == Path::bf16 ? table.attention_bf16 : table.attention_f32;
  }
  // The paths of this tier that can take `queries` at once.
  std::vector<Path> paths(int64_t queries, bool rows = false) const {
    std::vector<Path> some = {Path::rows, Path::rows_bf16};
    if (rows) return some;
    if (queries <= table.attention_f32.queries) some.push_back(Path::f32);
    if (table.attention_bf16.attend != nullptr && queries <= table.attention_bf16.queries) {
      some.push_back(Path::bf16);
    }
    return some;
  }

  void run(Path path, const Problem& p, Poisoned& out) {
    if (in_place(path)) return run_rows(path, p, out);
    const AttentionKernels& use = kernels(path);
    const int64_t block_bytes = use.block_bytes(p.dim), blocks = (p.keys + use.keys - 1) / use.keys;
    ASSERT_EQ(block_bytes % 64, 0);
    // NaN in f32 and in bf16, before and after: what a kernel leaves unwritten and then uses shows.
    AlignedBuffer<std::byte> prepared(blocks * block_bytes + 64);
    AlignedBuffer<std::byte> scratch(use.scratch_bytes(p.dim) + 64);
    std::fill_n(prepared.data(), prepared.size(), std::byte{0xff});
    std::fill_n(scratch.data(), scratch.size(), std::byte{0xff});
    for (int64_t b = 0; b < blocks; ++b) {
      use.prepare(p.k->row(b * use.keys), p.k->stride(), p.v->row(b * use.keys), p.v->stride(),
                  std::min(use.keys, p.keys - b * use.keys), p.dim,
                  prepared.data() + b * block_bytes);
    }
    AttentionTile tile{};
    tile.q = p.q->data(), tile.q_stride = p.q->stride(), tile.queries = p.queries;
    tile.blocks = prepared.data();
    tile.keys = p.keys, tile.head_dim = p.dim, tile.scale = p.scale, tile.soft_cap = p.soft_cap;
    tile.bias = p.bias, tile.ranges = p.ranges;
    tile.out = out.data(), tile.out_stride = out.stride();
    tile.scratch = scratch.data();
    use.attend(tile);
    for (int64_t s = 1; s <= 64; ++s) {
      ASSERT_EQ(prepared.data()[prepared.size() - s], std::byte{0xff}) << "beyond the blocks";
      ASSERT_EQ(scratch.data()[scratch.size() - s], std::byte{0xff}) << "beyond the scratch";
    }
    ASSERT_TRUE(out.untouched());
  }

  void run_rows(Path path, const Problem& p, Poisoned& out) {
    int64_t stored = p.keys;
    for (int64_t j = 0; p.rows != nullptr && j < p.keys; ++j) {
      stored = std::max<int64_t>(stored, p.rows[j] + 1);
    }
    const auto k = as_bf16(*p.k, stored, p.dim), v = as_bf16(*p.v, stored, p.dim);
    for (int64_t i = 0; i < p.queries; ++i) {
      const int64_t first = p.ranges != nullptr ? p.ranges[i].first : 0;
      const int64_t skipped = p.rows != nullptr ? 0 : first;
      AttentionRow row{};
      row.q = p.q->row(i), row.queries = 1;
      row.k_stride = p.k->stride(), row.v_stride = p.v->stride();
      row.k = p.k->row(skipped), row.v = p.v->row(skipped);
      if (path == Path::rows_bf16) {
        row.type = KernelType::bf16;
        row.k = k.data() + skipped * row.k_stride, row.v = v.data() + skipped * row.v_stride;
      }
      row.keys = (p.ranges != nullptr ? p.ranges[i].end : p.keys) - first;
      if (p.rows != nullptr) row.rows = p.rows + first;
      row.head_dim = p.dim, row.scale = p.scale, row.soft_cap = p.soft_cap;
      row.bias = p.bias == nullptr ? nullptr : p.bias + first - i;
      row.out = out.row(i);
      table.attend_row(row);
    }
    ASSERT_TRUE(out.untouched());
  }

  void check(const Case& c) {
    std::mt19937 random(static_cast<unsigned>(c.queries * 3 + c.keys * 5 + c.dim * 7));
    const int64_t stored = c.rows ? c.keys + 9 : c.keys;
    Poisoned q(c.queries, c.dim), k(stored, c.dim, c.dim + 11), v(stored, c.dim, c.dim + 7),
        out(c.queries, c.dim);
    q.fill(random, c.spread), k.fill(random), v.fill(random);
    // Distances from -(queries - 1) to keys - 1, poison on both sides.
    Poisoned bias(1, c.queries + c.keys - 1);
    bias.fill(random);
    std::vector<int32_t> rows;
    for (int64_t j = 0; j < c.keys; ++j) {
      rows.push_back(static_cast<int32_t>(c.rows ? (j * 7 + 3) % stored : j));
    }
    if (c.rows) {
      for (int64_t j = 1; j < c.keys; ++j) std::swap(rows[j], rows[random() % (j + 1)]);
    }
    std::vector<KeyRange> ranges;
    for (int64_t i = 0; i < c.queries; ++i) {
      ranges.push_back(c.range ? c.range(i) : KeyRange{0, static_cast<int32_t>(c.keys)});
    }
    Problem p{&q, &k, &v, c.queries, c.keys, c.dim, 1.0f / std::sqrt(static_cast<float>(c.dim))};
    if (c.bias) p.bias = bias.data() + c.queries - 1;
    if (c.range) p.ranges = ranges.data();
    if (c.rows) p.rows = rows.data();
    p.soft_cap = c.soft_cap;
    for (const Path path : paths(c.queries, c.rows)) {
      run(path, p, out);
      for (int64_t i = 0; i < c.queries; ++i) {
        ASSERT_EQ(mismatch(path, p, rows, i, ranges[static_cast<size_t>(i)], out), "")
            << "path " << static_cast<int>(path) << ", " << c.queries << " queries, " << c.keys
            << " keys, width " << c.dim << ", query " << i;
      }
    }
  }

  // What is wrong with row i of `out`, from softmax in f64 over operands as the path rounds them.
  std::string mismatch(Path path, const Problem& p, const std::vector<int32_t>& rows, int64_t i,
                       KeyRange range, const Poisoned& out) {
    const bool bf16 = path == Path::bf16;  // of queries and weights too
    const auto rounded = [](float x) { return double{bf16_to_f32(f32_to_bf16(x))}; };
    const auto query = [&](float x) { return bf16 ? rounded(x) : double{x}; };
    const auto operand = [&](float x) {
      return bf16 || path == Path::rows_bf16 ? rounded(x) : double{x};
    };
    std::vector<double> weights(static_cast<size_t>(p.keys));
    double highest = -1e300, score_error = 0, sum = 0;
    for (int64_t j = range.first; j < range.end; ++j) {
      double score = 0, magnitude = 0;
      for (int64_t d = 0; d < p.dim; ++d) {
        const double term =
            query(p.q->at(i, d)) * operand(p.k->at(rows[static_cast<size_t>(j)], d));
        score += term * p.scale, magnitude += std::abs(term) * p.scale;
      }
      // tanh's own error is relative, 7 kEps, and its slope at most 1.
      if (p.soft_cap > 0) score = p.soft_cap * std::tanh(score / p.soft_cap);
      const double cap_error = p.soft_cap > 0 ? 9 * kEps * std::abs(score) : 0;
      if (p.bias != nullptr) score += p.bias[j - i];
      weights[static_cast<size_t>(j)] = score;
      highest = std::max(highest, score);
      // One chain of dim products at worst; bias, scale and the subtraction of the maximum.
      score_error = std::max(score_error, magnitude * static_cast<double>(p.dim + 2) * kEps +
                                              4 * kEps * (std::abs(score) + 4) + cap_error);
      // bf16 tiles scale by powers of two: the factor log2(e) and its products round as well.
      if (bf16)
        score_error =
            std::max(score_error, 4 * kEps * (magnitude + std::abs(score)) + 2 * score_error);
    }
    for (int64_t j = range.first; j < range.end; ++j) {
      sum += weights[static_cast<size_t>(j)] = std::exp(weights[static_cast<size_t>(j)] - highest);
    }
    // Chains over one block of keys and over the blocks, the exponential's own 3 kEps and the
    // division. In bf16, weights are good to 2e-4 and then rounded to 8 bits.
    const double chains =
        static_cast<double>(std::min<int64_t>(p.keys, 128) + 3 * (p.keys / 128) + 12);
    const double weight_error = score_error + chains * kEps + (bf16 ? 0x1p-8 + 2e-4 : 0);
    for (int64_t d = 0; d < p.dim; ++d) {
      double expected = 0, magnitude = 0;
      for (int64_t j = range.first; j < range.end; ++j) {
        const double term = weights[static_cast<size_t>(j)] / sum *
                            operand(p.v->at(rows[static_cast<size_t>(j)], d));
        expected += term, magnitude += std::abs(term);
      }
      // Weights' errors reach numerator and denominator.
      const double tolerance = 2 * magnitude * weight_error;
      if (std::abs(out.at(i, d) - expected) <= tolerance) continue;
      return "column " + std::to_string(d) + ": " + std::to_string(out.at(i, d)) + ", expected " +
             std::to_string(expected) + " +- " + std::to_string(tolerance);
    }
    return "";
  }
};
PALI_EVERY_TIER(Attention);

TEST_P(Attention, EveryNumberOfQueries) {
  for (int64_t queries = 1; queries <= 130; ++queries) check({queries, 29, 24, queries % 2 == 0});
  for (const int64_t queries : {255, 256, 257, 511, 512}) check({queries, 29, 24, queries == 257});
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

// What a query comes to does not depend on those beside it.
TEST_P(Attention, QueriesTogetherGiveTheBitsOfEachAlone) {
  std::mt19937 random(11);
  for (const KernelType type : {KernelType::f32, KernelType::bf16}) {
    for (const int64_t dim : {1, 17, 64, 72, 96, 256}) {
      Poisoned q(kRowQueries, dim, dim + 5), k(150, dim), v(150, dim);
      q.fill(random), k.fill(random), v.fill(random);
      const auto k_bf16 = as_bf16(k, 150, dim), v_bf16 = as_bf16(v, 150, dim);
      AttentionRow row{};
      row.type = type;
      row.k = k.data(), row.k_stride = k.stride(), row.v = v.data(), row.v_stride = v.stride();
      if (type == KernelType::bf16) row.k = k_bf16.data(), row.v = v_bf16.data();
      row.keys = 150, row.head_dim = dim, row.scale = 0.2f;
      for (const int64_t queries : {int64_t{2}, int64_t{3}, kRowQueries}) {
        Poisoned together(queries, dim, dim + 7), alone(queries, dim, dim + 7);
        row.queries = queries;
        row.q = q.data(), row.q_stride = q.stride();
        row.out = together.data(), row.out_stride = together.stride();
        table.attend_row(row);
        ASSERT_TRUE(together.untouched());
        row.queries = 1;
        for (int64_t i = 0; i < queries; ++i) {
          row.q = q.row(i), row.out = alone.row(i);
          table.attend_row(row);
          for (int64_t d = 0; d < dim; ++d) ASSERT_EQ(together.at(i, d), alone.at(i, d)) << dim;
        }
      }
    }
  }
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

// The maximum rises from block to block, so that every block corrects what came before: by little,
// and by more than the bf16 tiles let pass.
TEST_P(Attention, RisingScoresCorrectEarlierBlocks) {
  for (const float slope : {0.5f, 4.0f}) {
    for (const int64_t queries : {1, 20, 70}) {
      const int64_t keys = 400;
      Poisoned q(queries, 1), k(keys, 1), v(keys, 1), out(queries, 1);
      for (int64_t i = 0; i < queries; ++i) q.at(i, 0) = 1.0f;
      for (int64_t j = 0; j < keys; ++j) {
        k.at(j, 0) = static_cast<float>(j / 2) * slope;  // exact in bf16
        v.at(j, 0) = static_cast<float>(j / 2);
      }
      double sum = 0, weighted = 0;
      for (int64_t j = 0; j < keys; ++j) {
        const double weight = std::exp(double{slope} * static_cast<double>(j / 2 - 199));
        sum += weight, weighted += weight * static_cast<double>(j / 2);
      }
      for (const Path path : paths(queries)) {
        run(path, {&q, &k, &v, queries, keys, 1, 1.0f}, out);
        const double error = path == Path::bf16 ? 2 * (0x1p-8 + 2e-4) : 64 * kEps;
        for (int64_t i = 0; i < queries; ++i) {
          EXPECT_NEAR(out.at(i, 0), weighted / sum, 199 * error) << static_cast<int>(path);
        }
      }
    }
  }
}

TEST_P(Attention, NaNOfOneQueryStaysWithThatQuery) {
  std::mt19937 random(2);
  Poisoned q(20, 24), k(50, 24), v(50, 24), out(20, 24);
  q.fill(random), k.fill(random), v.fill(random);
  q.at(3, 5) = std::nanf("");
  for (const Path path : paths(20)) {
    run(path, {&q, &k, &v, 20, 50, 24, 0.2f}, out);
    for (int64_t d = 0; d < 24; ++d) {
      EXPECT_TRUE(std::isnan(out.at(3, d)));
      EXPECT_TRUE(std::isfinite(out.at(4, d)) && std::isfinite(out.at(2, d)));
    }
  }
}

// Infinite operands make scores infinite or NaN: the query's output is then not a number, and no
// other query's is touched.
TEST_P(Attention, InfinityOfOneQueryStaysWithThatQuery) {
  std::mt19937 random(3);
  Poisoned q(20, 24), k(300, 24), v(300, 24), out(20, 24);
  q.fill(random), k.fill(random), v.fill(random);
  q.at(7, 0) = std::numeric_limits<float>::infinity();
  for (const Path path : paths(20)) {
    run(path, {&q, &k, &v, 20, 300, 24, 0.2f}, out);
    for (int64_t d = 0; d < 24; ++d) {
      EXPECT_TRUE(std::isnan(out.at(7, d)));
      EXPECT_TRUE(std::isfinite(out.at(6, d)) && std::isfinite(out.at(8, d)));
    }
  }
}

// Subnormal operands: scores of zero to within the tolerance, and no weight lost.
TEST_P(Attention, SubnormalOperandsGiveTheMean) {
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
TEST_P(Attention, BlockOfMinusInfinityIsForgotten) {
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

}  // namespace
}  // namespace pali
