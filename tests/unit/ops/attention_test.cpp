// Tiled attention against softmax in double: widths, several blocks of keys, bias, grouped heads,
// row tables; and a decoder's step against the last row of the whole.
#include "ops/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "kernels/isa.hpp"

namespace pali {
namespace {

// Values in the columns asked for, NaN in the padding beside them.
class Padded {
 public:
  Padded(int64_t rows, int64_t cols, float spread, uint32_t seed)
      : rows_(rows),
        cols_(cols),
        values_(static_cast<size_t>(rows * (cols + 3)), std::numeric_limits<float>::quiet_NaN()) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, spread);
    for (int64_t i = 0; i < rows; ++i) {
      for (float& value : view().row_span(i)) value = normal(random);
    }
  }
  Mat view() { return {values_.data(), rows_, cols_, cols_ + 3}; }
  void round_to_bf16() {
    for (int64_t i = 0; i < rows_; ++i) {
      for (float& value : view().row_span(i)) value = bf16_to_f32(f32_to_bf16(value));
    }
  }
  bool padding_intact() {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = cols_; j < cols_ + 3; ++j) {
        if (!std::isnan(values_[static_cast<size_t>(i * (cols_ + 3) + j)])) return false;
      }
    }
    return true;
  }

 private:
  int64_t rows_, cols_;
  std::vector<float> values_;
};

DistanceBias random_bias(int64_t heads, int64_t left, int64_t right, uint32_t seed) {
  DistanceBias bias{Tensor(heads, left + right + 1), left};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  for (int64_t h = 0; h < heads; ++h) {
    for (float& value : bias.values.view().row_span(h)) value = normal(random);
  }
  return bias;
}

// One output row of one head. bias: entry of key 0, or null.
// Tolerance: scores err by 8 * 2^-24 of their terms' magnitudes, exp by 2^-20 of itself; an error e
// of all weights moves the mean by at most 2 e times the largest |v|. `weight_error`: what the
// weights themselves may be off by beside that.
std::string mismatch(const float* q, ConstMat k, ConstMat v, const std::vector<int32_t>& rows,
                     int64_t head_dim, double scale, const float* bias, const float* out,
                     double soft_cap = 0, double weight_error = 0) {
  std::vector<double> scores(rows.size());
  double worst = 0, largest = 0;
  for (size_t j = 0; j < rows.size(); ++j) {
    double sum = 0, magnitude = 0;
    for (int64_t d = 0; d < head_dim; ++d) {
      const double product = double{q[d]} * k.row(rows[j])[d];
      sum += product;
      magnitude += std::abs(product);
      largest = std::max(largest, std::abs(double{v.row(rows[j])[d]}));
    }
    const double score = soft_cap > 0 ? soft_cap * std::tanh(scale * sum / soft_cap) : scale * sum;
    scores[j] = score + (bias == nullptr ? 0.0 : bias[j]);
    worst = std::max(worst, std::abs(scale) * magnitude + std::abs(scores[j]));
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - top);
  const double tolerance =
      2 * largest *
      (8 * 0x1p-24 * worst + 0x1p-20 + std::sqrt(double(rows.size())) * 0x1p-24 + weight_error);
  for (int64_t d = 0; d < head_dim; ++d) {
    double expected = 0;
    for (size_t j = 0; j < rows.size(); ++j) expected += scores[j] / total * v.row(rows[j])[d];
    if (std::abs(out[d] - expected) <= tolerance) continue;
    return "column " + std::to_string(d) + ": " + std::to_string(out[d]) + ", expected " +
           std::to_string(expected) + " +- " + std::to_string(tolerance);
  }
  return "";
}

std::vector<int32_t> identity(int64_t n) {
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

struct Case {
  int64_t queries, keys;
  AttentionShape shape;
  bool biased;
};

void check(const Case& c, const IsaTier& tier, ThreadPool& pool, float spread = 1) {
  const KernelTable kernels = kernel_table(tier.isa);
  const int64_t width = c.shape.head_dim;
  Padded q(c.queries, c.shape.heads * width, spread, 1),
      k(c.keys, c.shape.kv_heads * width, spread, 2), v(c.keys, c.shape.kv_heads * width, 1, 3),
      out(c.queries, c.shape.heads * width, 0, 4);
  // With operands that bf16 holds, its products differ from f32's by the rounding of the weights:
  // half a unit of 8 bits, and an exponential good to 2e-4.
  const bool bf16 = c.shape.compute == ComputeType::bf16;
  if (bf16) q.round_to_bf16(), k.round_to_bf16(), v.round_to_bf16();
  const double weight_error = bf16 ? 0x1p-8 + 2e-4 : 0;
  // A few distances more than needed: the table is shared between lengths.
  const DistanceBias bias = random_bias(c.shape.heads, c.queries + 4, c.keys + 2, 5);
  attention({pool, kernels}, c.shape, q.view(), k.view(), v.view(),
            {.bias = c.biased ? &bias : nullptr}, out.view());
  const auto rows = identity(c.keys);
  for (int64_t h = 0; h < c.shape.heads; ++h) {
    const int64_t kv = h / (c.shape.heads / c.shape.kv_heads) * width;
    for (int64_t m = 0; m < c.queries; ++m) {
      ASSERT_EQ(mismatch(q.view().row(m) + h * width, k.view().cols_from(kv, width),
                         v.view().cols_from(kv, width), rows, width, c.shape.scale,
                         c.biased ? bias.head(h) - m : nullptr, out.view().row(m) + h * width, 0,
                         weight_error),
                "")
          << tier.name << " head " << h << " query " << m << " of " << c.queries << "x" << c.keys
          << " width " << width << " bias " << c.biased;
    }
  }
  ASSERT_TRUE(out.padding_intact());
}

void check_all(const std::vector<Case>& cases, float spread = 1) {
  ThreadPool pool(2);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    for (const Case& c : cases) {
      check(c, tier, pool, spread);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Attention, HeadWidths) {
  std::vector<Case> cases;
  for (const int64_t width : {1, 2, 7, 8, 12, 16, 33, 64, 72, 88, 96, 104, 112, 128, 256}) {
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    cases.push_back({35, 40, {2, 2, width, scale}, false});
    cases.push_back({3, 131, {1, 1, width, scale}, true});
  }
  check_all(cases);
}

TEST(Attention, EveryCountOfQueriesAndKeys) {
  std::vector<Case> cases;
  for (int64_t n = 1; n <= 66; ++n) {
    cases.push_back({n, 67 - n, {1, 1, 12, 0.3f}, n % 2 == 0});
    cases.push_back({n, n, {1, 1, 8, 0.3f}, n % 2 == 1});
  }
  check_all(cases);
}

TEST(Attention, SeveralBlocksOfKeys) {
  check_all({{33, 127, {2, 2, 16, 0.25f}, true},
             {33, 128, {2, 2, 16, 0.25f}, true},
             {33, 129, {2, 2, 16, 0.25f}, true},
             {70, 700, {3, 3, 64, 0.125f}, false},
             {70, 700, {3, 3, 64, 0.125f}, true},
             {1, 5776, {1, 1, 104, 0.098f}, false}});
}

TEST(Attention, GroupedHeads) {
  check_all({{20, 30, {6, 2, 16, 0.25f}, false},
             {20, 30, {6, 1, 16, 0.25f}, true},
             {5, 140, {8, 4, 9, 0.3f}, true}});
}

TEST(Attention, Bf16ProductsOfSeveralTilesAndBlocks) {
  AttentionShape wide{6, 2, 104, 0.1f}, narrow{2, 2, 24, 0.2f};
  wide.compute = narrow.compute = ComputeType::bf16;
  check_all({{2, 300, narrow, true},
             {3, 300, narrow, true},
             {300, 300, narrow, false},
             {300, 300, narrow, true},
             {33, 700, narrow, true},
             {40, 520, wide, false},
             {270, 129, wide, true}});
}

TEST(Attention, LargeScoresDoNotOverflow) {
  // T5 does not scale: scores of several hundred, one key takes all.
  check_all({{10, 300, {2, 2, 64, 1.0f}, true}}, 6);
}

// The masks of the decoder-only family: prefix-LM, with and without a sliding window, grouped
// heads, soft cap; several tiles of queries and blocks of keys.
TEST(Attention, RangesGroupedHeadsAndSoftCap) {
  const int64_t queries = 300, prefix = 170, width = 24;
  ThreadPool pool(2);
  Padded q(queries, 4 * width, 2, 1), k(queries, 2 * width, 1, 2), v(queries, 2 * width, 1, 3);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    for (const int64_t window : {queries, int64_t{40}}) {
      std::vector<KeyRange> ranges;
      for (int64_t m = 0; m < queries; ++m) {
        ranges.push_back({static_cast<int32_t>(std::max<int64_t>(0, m + 1 - window)),
                          static_cast<int32_t>(std::max(prefix, m + 1))});
      }
      AttentionShape shape{4, 2, width, 0.3f};
      shape.soft_cap = 5.0f;
      Padded out(queries, 4 * width, 0, 4);
      attention({pool, kernels}, shape, q.view(), k.view(), v.view(), {.ranges = ranges},
                out.view());
      for (int64_t h = 0; h < 4; ++h) {
        for (int64_t m = 0; m < queries; ++m) {
          const KeyRange range = ranges[static_cast<size_t>(m)];
          std::vector<int32_t> rows(static_cast<size_t>(range.end - range.first));
          std::iota(rows.begin(), rows.end(), range.first);
          ASSERT_EQ(mismatch(q.view().row(m) + h * width, k.view().cols_from(h / 2 * width, width),
                             v.view().cols_from(h / 2 * width, width), rows, width, 0.3f, nullptr,
                             out.view().row(m) + h * width, 5.0),
                    "")
              << tier.name << " head " << h << " query " << m << " window " << window;
        }
      }
      ASSERT_TRUE(out.padding_intact());
    }
  }
}

TEST(Attention, OneKeyIsItsValue) {
  ThreadPool pool(1);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    Padded q(3, 24, 1, 1), k(1, 24, 1, 2), v(1, 24, 1, 3), out(3, 24, 0, 4);
    attention({pool, kernels}, {2, 2, 12, 1}, q.view(), k.view(), v.view(), {}, out.view());
    for (int64_t m = 0; m < 3; ++m) {
      for (int64_t d = 0; d < 24; ++d) {
        EXPECT_FLOAT_EQ(out.view().row(m)[d], v.view().row(0)[d]) << tier.name;
      }
    }
  }
}

TEST(Attention, NoQueriesIsNoWork) {
  ThreadPool pool(1);
  const KernelTable kernels = kernel_table(Isa::scalar);
  Padded k(4, 8, 1, 2), v(4, 8, 1, 3);
  attention({pool, kernels}, {1, 1, 8, 1}, ConstMat(nullptr, 0, 8), k.view(), v.view(), {},
            Mat(nullptr, 0, 8));
}

TEST(Attention, SameBitsAtAnyThreadCount) {
  ThreadPool one(1), two(2), three(3);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    AttentionShape shape{5, 5, 24, 0.2f};
    Padded q(301, 120, 1, 1), k(260, 120, 1, 2), v(260, 120, 1, 3);
    const DistanceBias bias = random_bias(5, 300, 259, 4);
    for (const ComputeType compute : {ComputeType::f32, ComputeType::bf16}) {
      shape.compute = compute;
      Padded expected(301, 120, 0, 5);
      attention({one, kernels}, shape, q.view(), k.view(), v.view(), {.bias = &bias},
                expected.view());
      for (ThreadPool* pool : {&two, &three}) {
        Padded out(301, 120, 0, 6);
        attention({*pool, kernels}, shape, q.view(), k.view(), v.view(), {.bias = &bias},
                  out.view());
        for (int64_t m = 0; m < 301; ++m) {
          ASSERT_EQ(std::memcmp(out.view().row(m), expected.view().row(m), 120 * 4), 0)
              << tier.name << " bf16 " << (compute == ComputeType::bf16);
        }
      }
    }
  }
}

TEST(AttentionStep, SequencesOfTheirOwnLengthsAndRows) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    const AttentionShape shape{4, 2, 20, 0.25f};
    for (const bool biased : {false, true}) {
      // Beams share one cache through tables of rows; another request has keys of its own.
      Padded q(4, 80, 1, 1), k(300, 40, 1, 2), v(300, 40, 1, 3), other_k(7, 40, 1, 4),
          other_v(7, 40, 1, 5);
      std::mt19937 random(6);
      std::vector<int32_t> few(1), some(33), many(290);
      for (auto* rows : {&few, &some, &many}) {
        for (int32_t& row : *rows) row = static_cast<int32_t>(random() % 300);
      }
      struct Sequence {
        ConstMat k, v;
        std::vector<int32_t> rows;
      };
      const std::vector<Sequence> all = {{k.view(), v.view(), few},
                                         {other_k.view(), other_v.view(), {}},
                                         {k.view(), v.view(), many},
                                         {k.view(), v.view(), some}};
      std::vector<StepSequence> sequences;
      for (const Sequence& s : all) {
        sequences.push_back(
            {StoredRows::side_by_side(s.k, 20), StoredRows::side_by_side(s.v, 20), s.rows});
      }
      const DistanceBias bias = random_bias(4, 300, 0, 7);
      std::vector<Padded> outs;
      for (const int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        Padded& out = outs.emplace_back(4, 80, 0, 8);
        attention_step({pool, kernels}, shape, q.view(), sequences, biased ? &bias : nullptr,
                       out.view());
        for (int64_t b = 0; b < 4; ++b) {
          ASSERT_EQ(std::memcmp(out.view().row(b), outs[0].view().row(b), 80 * 4), 0);
        }
      }
      for (int64_t b = 0; b < 4; ++b) {
        const Sequence& s = all[static_cast<size_t>(b)];
        const auto rows = s.rows.empty() ? identity(s.k.rows) : s.rows;
        for (int64_t h = 0; h < 4; ++h) {
          const float* head_bias = bias.head(h) - (static_cast<int64_t>(rows.size()) - 1);
          EXPECT_EQ(mismatch(q.view().row(b) + h * 20, s.k.cols_from(h / 2 * 20, 20),
                             s.v.cols_from(h / 2 * 20, 20), rows, 20, 0.25,
                             biased ? head_bias : nullptr, outs[0].view().row(b) + h * 20),
                    "")
              << tier.name << " sequence " << b << " head " << h;
        }
      }
    }
  }
}

TEST(AttentionStep, EqualsTheLastRowOfFullAttention) {
  ThreadPool pool(2);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    for (const int64_t n : {1, 2, 31, 32, 33, 150}) {
      const AttentionShape shape{3, 3, 16, 1.0f};
      Padded q(n, 48, 0.5f, 1), k(n, 48, 0.5f, 2), v(n, 48, 1, 3), out(n, 48, 0, 4),
          step(1, 48, 0, 5);
      const DistanceBias bias = random_bias(3, n + 3, n - 1, 6);
      attention({pool, kernels}, shape, q.view(), k.view(), v.view(), {.bias = &bias}, out.view());
      const std::vector<StepSequence> sequences = {
          {StoredRows::side_by_side(k.view(), 16), StoredRows::side_by_side(v.view(), 16), {}}};
      attention_step({pool, kernels}, shape, q.view().rows_from(n - 1, 1), sequences, &bias,
                     step.view());
      for (int64_t d = 0; d < 48; ++d) {
        EXPECT_NEAR(step.view().row(0)[d], out.view().row(n - 1)[d], 2e-5) << tier.name << " " << n;
      }
    }
  }
}

TEST(Attention, RefusesWhatCannotBe) {
  ThreadPool pool(1);
  const KernelTable kernels = kernel_table(Isa::scalar);
  Padded q(4, 16, 1, 1), k(6, 16, 1, 2), v(6, 16, 1, 3), out(4, 16, 0, 4);
  const auto run = [&](const AttentionShape& shape, const DistanceBias* bias) {
    attention({pool, kernels}, shape, q.view(), k.view(), v.view(), {.bias = bias}, out.view());
  };
  EXPECT_THROW(run({3, 2, 8, 1}, nullptr), Error);
  EXPECT_THROW(run({2, 2, 9, 1}, nullptr), Error);
  const DistanceBias short_left = random_bias(2, 2, 5, 7), short_right = random_bias(2, 3, 4, 7);
  EXPECT_THROW(run({2, 2, 8, 1}, &short_left), Error);
  EXPECT_THROW(run({2, 2, 8, 1}, &short_right), Error);
  // Ranges: one a query, none empty, none past the keys.
  const std::vector<std::vector<KeyRange>> wrong = {
      {{0, 6}, {0, 6}, {0, 6}},
      {{0, 6}, {0, 6}, {0, 6}, {3, 3}},
      {{0, 6}, {0, 6}, {0, 7}, {0, 6}},
      {{-1, 6}, {0, 6}, {0, 6}, {0, 6}},
  };
  for (const std::vector<KeyRange>& ranges : wrong) {
    EXPECT_THROW(attention({pool, kernels}, {2, 2, 8, 1}, q.view(), k.view(), v.view(),
                           {.ranges = ranges}, out.view()),
                 Error);
  }
}

// Integers beside which other products stay in f32 keep f32 here too: int16, and all of a tier
// without tiles.
TEST(Attention, InBf16WhereProductsAre) {
  KernelTable plain{}, pairs{}, tiles{};
  pairs.attention_bf16.attend = tiles.attention_bf16.attend = [](const AttentionTile&) {};
  pairs.gemm_bf16.multiply = [](const GemmArgs&) {};
  tiles.gemm_bf16.multiply = pairs.gemm_bf16.multiply;
  tiles.fused_bf16.multiply = [](const FusedGemmArgs&) {};
  using enum ComputeType;
  for (const ComputeType compute : {f32, bf16, int16, int8}) {
    EXPECT_FALSE(attends_in_bf16(compute, plain));
    EXPECT_EQ(attends_in_bf16(compute, pairs), compute == bf16);
    EXPECT_EQ(attends_in_bf16(compute, tiles), compute == bf16 || compute == int8);
  }
  EXPECT_EQ(stored_type(int16, tiles), KernelType::f32);
  EXPECT_EQ(stored_type(int8, tiles), KernelType::bf16);
  EXPECT_EQ(stored_type(bf16, pairs), KernelType::bf16);
}

}  // namespace
}  // namespace pali
