// Buckets against the reference's, and the table by distance against the table by bucket.
#include "ops/relative_bias.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

namespace pali {
namespace {

// First |distance| of each bucket (to the left), from T5Attention._relative_position_bucket of
// transformers 5.23 with torch 2.15, f32, for distances 0 to 6000. The last bucket never ends.
struct Reference {
  bool bidirectional;
  int32_t buckets, max_distance;
  std::vector<int64_t> starts;
};

const std::vector<Reference>& references() {
  static const std::vector<Reference> all = {
      {true, 32, 128, {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91}},
      {false, 32, 128, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                        16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113}},
      {true, 64, 256, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,  13,  14,  15,
                       16, 20, 23, 27, 32, 39, 46, 54, 64, 77, 91, 108, 128, 153, 182, 216}},
      {false, 64, 1000, {0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,
                         13,  14,  15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,
                         26,  27,  28,  29,  30,  31,  32,  36,  40,  45,  50,  55,  62,
                         68,  76,  85,  94,  105, 117, 130, 145, 161, 179, 200, 222, 248,
                         276, 307, 342, 380, 423, 471, 525, 585, 651, 725, 807, 899}},
      {true, 12, 20, {0, 1, 2, 3, 6, 11}},
      {false, 6, 50, {0, 1, 2, 3, 8, 20}},
      {true, 32, 2000, {0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 127, 253, 503, 1003}},
  };
  return all;
}

TEST(RelativeBucket, MatchesTheReferenceTo6000) {
  for (const Reference& reference : references()) {
    int32_t bucket = 0;
    for (int64_t n = 0; n <= 6000; ++n) {
      const auto next = static_cast<size_t>(bucket) + 1;
      if (next < reference.starts.size() && n == reference.starts[next]) ++bucket;
      ASSERT_EQ(
          relative_bucket(-n, reference.bidirectional, reference.buckets, reference.max_distance),
          bucket)
          << reference.buckets << " " << reference.max_distance << " at -" << n;
      const int32_t right = !reference.bidirectional || n == 0 ? 0 : bucket + reference.buckets / 2;
      ASSERT_EQ(
          relative_bucket(n, reference.bidirectional, reference.buckets, reference.max_distance),
          right)
          << reference.buckets << " " << reference.max_distance << " at " << n;
    }
  }
}

TEST(RelativeBucket, FarthestDistances) {
  EXPECT_EQ(relative_bucket(-(int64_t{1} << 40), true, 32, 128), 15);
  EXPECT_EQ(relative_bucket(int64_t{1} << 40, true, 32, 128), 31);
  EXPECT_EQ(relative_bucket(-(int64_t{1} << 40), false, 32, 128), 31);
}

TEST(RelativeBucket, RefusesBucketsThatCannotBe) {
  EXPECT_THROW(relative_bucket(1, true, 2, 128), Error);
  EXPECT_THROW(relative_bucket(1, false, 1, 128), Error);
  EXPECT_THROW(relative_bucket(1, false, 32, 16), Error);
}

TEST(DistanceBias, EveryHeadAndDistance) {
  for (const bool bidirectional : {true, false}) {
    Tensor table(32, 3);
    for (int64_t bucket = 0; bucket < 32; ++bucket) {
      for (int64_t h = 0; h < 3; ++h) table.row(bucket)[h] = static_cast<float>(bucket * 10 + h);
    }
    const DistanceBias bias = distance_bias(table.view(), bidirectional, 128, 200, 70);
    EXPECT_EQ(bias.values.rows(), 3);
    EXPECT_EQ(bias.values.cols(), 271);
    for (int64_t h = 0; h < 3; ++h) {
      for (int64_t d = -200; d <= 70; ++d) {
        ASSERT_EQ(bias.head(h)[d],
                  static_cast<float>(relative_bucket(d, bidirectional, 32, 128) * 10 + h));
      }
    }
  }
}

}  // namespace
}  // namespace pali
