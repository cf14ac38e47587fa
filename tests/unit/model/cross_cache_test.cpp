// Keys and values head after head: what a step reads there is what was written, or its bf16.
#include "model/cross_cache.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/isa.hpp"
#include "unit/model/oracle.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

constexpr int64_t kRows = 75, kHeads = 3;

// Written in two parts, the second first.
HeadRows stored(const Context& context, ConstMat mat, int64_t head_dim, KernelType type) {
  HeadRows rows(mat.rows, kHeads, head_dim, type);
  rows.write(context, 40, mat.rows_from(40, mat.rows - 40));
  rows.write(context, 0, mat.rows_from(0, 40));
  return rows;
}

// q [1, 2 kHeads * head_dim], over keys and values that two query heads share each.
Tensor attended(const Context& context, ConstMat q, const StoredRows& k, const StoredRows& v) {
  const AttentionShape shape{2 * kHeads, kHeads, k.head_dim, 0.3f};
  Tensor out(1, q.cols);
  const StepSequence sequence{k, v, {}};
  attention_step(context, shape, q, {&sequence, 1}, nullptr, out.view());
  return out;
}

class HeadRowsTest : public ::testing::TestWithParam<int64_t> {
 protected:
  const int64_t dim = GetParam();
  const Tensor q = random_matrix(1, 2 * kHeads * dim, 1), k = random_matrix(kRows, kHeads*dim, 2),
               v = random_matrix(kRows, kHeads*dim, 3);
};
INSTANTIATE_TEST_SUITE_P(HeadWidths, HeadRowsTest, ::testing::Values(1, 7, 10, 64, 104));

TEST_P(HeadRowsTest, F32GivesTheBitsOfHeadsSideBySide) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    ThreadPool pool(2);
    const KernelTable kernels = kernel_table(tier.isa);
    const Context context{pool, kernels};
    const HeadRows keys = stored(context, k.view(), dim, KernelType::f32);
    const HeadRows values = stored(context, v.view(), dim, KernelType::f32);
    EXPECT_EQ(flat(attended(context, q.view(), keys.view(), values.view()).view()),
              flat(attended(context, q.view(), StoredRows::side_by_side(k.view(), dim),
                            StoredRows::side_by_side(v.view(), dim))
                       .view()))
        << tier.name;
  }
}

// Rounding to bf16 moves k and v by 2^-9 of themselves at most, so scores by e = 2^-9 * scale *
// sum |q k| and weights by the factor exp(2 e). Of the mean of |v| the result moves by exp(2 e) -
// 1, and by 2^-9 exp(2 e) for v; the f32 arithmetic adds less than 2^-18.
TEST_P(HeadRowsTest, Bf16StaysWithinItsRounding) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    ThreadPool pool(2);
    const KernelTable kernels = kernel_table(tier.isa);
    const Context context{pool, kernels};
    const HeadRows keys = stored(context, k.view(), dim, KernelType::bf16);
    const HeadRows values = stored(context, v.view(), dim, KernelType::bf16);
    const Tensor rounded = attended(context, q.view(), keys.view(), values.view());
    const Tensor exact = attended(context, q.view(), StoredRows::side_by_side(k.view(), dim),
                                  StoredRows::side_by_side(v.view(), dim));
    EXPECT_NE(flat(rounded.view()), flat(exact.view())) << tier.name;
    Tensor magnitudes(kRows, kHeads * dim);
    for (int64_t j = 0; j < kRows; ++j) {
      for (int64_t c = 0; c < kHeads * dim; ++c) magnitudes.row(j)[c] = std::abs(v.row(j)[c]);
    }
    const Tensor mean = attended(context, q.view(), StoredRows::side_by_side(k.view(), dim),
                                 StoredRows::side_by_side(magnitudes.view(), dim));
    for (int64_t head = 0; head < 2 * kHeads; ++head) {
      double score_error = 0;
      for (int64_t j = 0; j < kRows; ++j) {
        double sum = 0;
        for (int64_t d = 0; d < dim; ++d) {
          sum += std::abs(double{q.row(0)[head * dim + d]} * k.row(j)[head / 2 * dim + d]);
        }
        score_error = std::max(score_error, 0x1p-9 * 0.3 * sum);
      }
      const double bound =
          0x1p-9 * std::exp(2 * score_error) + std::expm1(2 * score_error) + 0x1p-18;
      for (int64_t d = head * dim; d < (head + 1) * dim; ++d) {
        EXPECT_NEAR(rounded.row(0)[d], exact.row(0)[d], bound * mean.row(0)[d])
            << tier.name << " column " << d;
      }
    }
  }
}

// Beams of one memory are attended together, others apart: no query's bits depend on that, nor on
// the threads.
TEST_P(HeadRowsTest, BeamsTogetherGiveTheBitsOfEachAlone) {
  const AttentionShape shape{2 * kHeads, kHeads, dim, 0.3f};
  const Tensor queries = random_matrix(14, 2 * kHeads * dim, 5);
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    for (const KernelType type : {KernelType::f32, KernelType::bf16}) {
      ThreadPool pool(3);
      const Context context{pool, kernels};
      const HeadRows keys = stored(context, k.view(), dim, type);
      const HeadRows values = stored(context, v.view(), dim, type);
      const StepSequence one{keys.view(), values.view(), {}}, other{values.view(), keys.view(), {}};
      std::vector<StepSequence> sequences(9, one);
      sequences.insert(sequences.end(), 4, other);
      sequences.push_back(one);
      Tensor together(14, queries.cols()), alone(1, queries.cols());
      attention_step(context, shape, queries.view(), sequences, nullptr, together.view());
      for (int64_t b = 0; b < 14; ++b) {
        attention_step(context, shape, queries.view().rows_from(b, 1),
                       {&sequences[static_cast<size_t>(b)], 1}, nullptr, alone.view());
        EXPECT_EQ(flat(together.view().rows_from(b, 1)), flat(alone.view()))
            << tier.name << " sequence " << b;
      }
    }
  }
}

// Where products are in bf16 and the tier has them, a request's memory is kept in bf16; f32 weights
// are multiplied as they are, so that nothing else is rounded on a tier without tiles.
TEST(CrossCache, FollowsTheTypeOfTheProducts) {
  const std::vector<int32_t> ids{0, 5, 9};
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available || tier.isa == Isa::amx) continue;
    ThreadPool pool(2);
    const KernelTable kernels = kernel_table(tier.isa);
    const Context context{pool, kernels};
    std::vector<std::vector<float>> hidden;
    for (const ComputeType compute : {ComputeType::f32, ComputeType::bf16}) {
      ModelOptions options;
      options.policy = {MatmulBackend::native, compute, tier.isa};
      const Model model = build_model(tiny_checkpoint(t5_json(), 31), options);
      const Tensor prefix = random_matrix(70, model.language->width(), 1);
      const std::vector<ConstMat> prefixes{prefix.view()};
      const auto decoder = model.language->start(context, prefixes, {3, 1});
      ConstMat last;
      for (const int32_t id : ids) last = decoder->step(context, {&id, 1});
      hidden.push_back(flat(last));
    }
    const double moved =
        relative_error(hidden[1], std::vector<double>(hidden[0].begin(), hidden[0].end()));
    if (kernels.gemm_bf16.multiply == nullptr) {
      EXPECT_EQ(moved, 0) << tier.name;
    } else {
      EXPECT_GT(moved, 0) << tier.name;
      // Three layers, each of which adds what Bf16StaysWithinItsRounding allows to a residual sum.
      EXPECT_LT(moved, 3 * 0x1p-7) << tier.name;
    }
  }
}

// A memory of more rows than are multiplied at once.
TEST(CrossCache, MemoriesOfSeveralParts) {
  const Model model = tiny_model(t5_json(), 37);
  const LanguageConfig& config = *model.checkpoint.config.language;
  TestContext run(2);
  const Tensor prefix = random_matrix(1100, config.width, 3);
  const std::vector<int32_t> ids{0, 5};
  const Rows expected =
      t5_decode(config, model.checkpoint.table,
                t5_encode(config, model.checkpoint.table, rows_of(prefix.view())), ids);
  const std::vector<ConstMat> prefixes{prefix.view()};
  const auto decoder = model.language->start(run.context, prefixes, {2, 1});
  ConstMat hidden;
  for (const int32_t id : ids) hidden = decoder->step(run.context, {&id, 1});
  Tensor logits(1, config.vocab);
  decoder->head().full(run.context, hidden, logits.view());
  EXPECT_LT(relative_error(flat(logits.view()), expected.back()), 2e-5);
}

}  // namespace
}  // namespace pali::test
