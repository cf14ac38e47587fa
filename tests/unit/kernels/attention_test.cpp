// Streaming attention of every shape: queries, keys, widths, ranges, biases, row tables.
#include "attention_testing.hpp"

namespace pali {
namespace {

PALI_EVERY_TIER(Attention);

TEST_P(Attention, EveryNumberOfQueries) {
  for (int64_t queries = 1; queries <= 130; ++queries) check({queries, 29, 24, queries % 2 == 0});
  for (const int64_t queries : {255, 256, 257, 511, 512}) check({queries, 29, 24, queries == 257});
}

TEST_P(Attention, EveryNumberOfKeys) {
  for (int64_t keys = 1; keys <= 33; ++keys) check({5, keys, 9, keys % 2 == 0});
  for (const int64_t keys : {127, 128, 129, 255, 257, 300}) check({19, keys, 16, true});
  for (const int64_t keys : {511, 512, 513, 1023, 1025, 2049}) check({3, keys, 16, keys % 2 == 0});
}

TEST_P(Attention, EveryHeadWidth) {
  for (int64_t dim = 1; dim <= 33; ++dim) check({3, 14, dim});
  for (const int64_t dim : {64, 72, 80, 88, 96, 104, 112, 128, 256}) {
    check({32, 131, dim});
    check({1, 131, dim});
  }
}

// SigLIP's rows of patches, and a decoder's step of T5 and of Gemma.
TEST_P(Attention, ShapesOfRealLayers) {
  check({33, 729, 72});
  check({17, 1024, 104});
  check({1, 1024, 64, true});
  check({1, 1200, 256});
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

}  // namespace
}  // namespace pali
