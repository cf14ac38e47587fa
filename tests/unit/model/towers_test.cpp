// SigLIP's towers against plain double loops, and the resizing of positions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "unit/model/oracle.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

constexpr double kBound = 2e-5;

std::vector<double> flat(const Rows& rows) {
  std::vector<double> out;
  for (const std::vector<double>& row : rows) out.insert(out.end(), row.begin(), row.end());
  return out;
}

// 17 px with patches of 5: the last two rows and columns of pixels must not matter.
TEST(VisionTower, AgreesWithPlainLoops) {
  const Model model = tiny_model(siglip_json(), 3);
  TestContext run(2);
  const VisionConfig& config = *model.checkpoint.config.vision;
  Tensor pixels = random_matrix(3, 17 * 17, 4);
  const Rows expected = vit_tokens(config, model.checkpoint.table, rows_of(pixels.view()));
  const Tensor tokens = model.vision->run(run.context, pixels.view());
  ASSERT_EQ(tokens.rows(), 9);
  EXPECT_LT(relative_error(test::flat(tokens.view()), flat(expected)), kBound);
  const Tensor pooled = model.vision->pool(run.context, tokens.view());
  EXPECT_LT(
      relative_error(test::flat(pooled.view()), vit_pool(config, model.checkpoint.table, expected)),
      kBound);

  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < 17; ++i) {
      pixels.row(c)[i * 17 + 15] = pixels.row(c)[16 * 17 + i] = 1e6f;
    }
  }
  const Tensor same = model.vision->run(run.context, pixels.view());
  EXPECT_EQ(test::flat(same.view()), test::flat(tokens.view()));
}

TEST(TextTower, AgreesWithPlainLoops) {
  const Model model = tiny_model(siglip_json(), 5);
  TestContext run;
  const std::vector<int32_t> ids{3, 28, 0, 9, 1, 1, 1};
  const Tensor pooled = model.text_tower->run(run.context, ids);
  ASSERT_EQ(pooled.cols(), 12);
  EXPECT_LT(
      relative_error(test::flat(pooled.view()), text_embedding(*model.checkpoint.config.text_tower,
                                                               model.checkpoint.table, ids)),
      kBound);
}

TEST(TwoTowers, LogitIsTheScaledCosine) {
  const std::vector<float> a{3, 4}, b{4, 3}, zero{0, 0};
  EXPECT_NEAR(siglip_logit(a, b, 1.5f, -2.0f), 24.0 / 25 * std::exp(1.5) - 2, 1e-12);
  EXPECT_NEAR(siglip_logit(a, zero, 1.5f, -2.0f), -2.0, 1e-12);
  const std::vector<float> broken{3, std::nanf("")};
  EXPECT_EQ(caught([&] { siglip_logit(a, broken, 1.5f, -2.0f); }).code, ErrorCode::corrupt_file);
  EXPECT_EQ(caught([&] { siglip_logit(a, b, 1e9f, -2.0f); }).code, ErrorCode::corrupt_file);
}

Tensor matrix(int64_t rows, std::vector<float> values) {
  Tensor m(rows, int64_t(values.size()) / rows);
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(values.data() + i * m.cols(), m.cols(), m.row(i));
  }
  return m;
}

// Corners stay where they are; what lies between is bilinear.
TEST(Positions, AreResizedWithCornersOnCorners) {
  const Tensor two = matrix(4, {0, 1, 10, 11});
  EXPECT_EQ(test::flat(resize_positions(two.view(), 2, 3).view()),
            (std::vector<float>{0, 0.5f, 1, 5, 5.5f, 6, 10, 10.5f, 11}));
  EXPECT_EQ(test::flat(resize_positions(two.view(), 2, 2).view()), test::flat(two.view()));
  EXPECT_EQ(test::flat(resize_positions(two.view(), 2, 1).view()), std::vector<float>{0});
  const Tensor one = matrix(1, {7, 8});
  EXPECT_EQ(test::flat(resize_positions(one.view(), 1, 2).view()),
            (std::vector<float>{7, 8, 7, 8, 7, 8, 7, 8}));
  // A plane is resized exactly, at any size: f(y, x) = 2y + 3x over the unit square.
  for (const int64_t from : {2, 3, 16}) {
    for (const int64_t to : {2, 5, 16, 30, 58, 76}) {
      Tensor plane(from * from, 1);
      for (int64_t i = 0; i < from * from; ++i) {
        plane.row(i)[0] = float(2.0 * double(i / from) / double(from - 1) +
                                3.0 * double(i % from) / double(from - 1));
      }
      const Tensor resized = resize_positions(plane.view(), from, to);
      for (int64_t i = 0; i < to * to; ++i) {
        const double expected =
            2.0 * double(i / to) / double(to - 1) + 3.0 * double(i % to) / double(to - 1);
        EXPECT_NEAR(resized.row(i)[0], expected, 1e-6) << from << " to " << to << " at " << i;
      }
    }
  }
}

TEST(VisionTower, TakesAnotherResolution) {
  Checkpoint checkpoint = tiny_checkpoint(siglip_json(), 3);
  ModelOptions options;
  options.policy = {MatmulBackend::native, ComputeType::f32, Isa::scalar};
  options.resolution = 33;
  const Model model = build_model(std::move(checkpoint), options);
  EXPECT_EQ(model.vision->image_size(), 33);
  EXPECT_EQ(model.vision->tokens(), 36);
  TestContext run;
  const Tensor tokens = model.vision->run(run.context, random_matrix(3, 33 * 33, 1).view());
  EXPECT_EQ(tokens.rows(), 36);
  for (const int64_t bad : {int64_t{4}, int64_t{-5}, int64_t{1} << 40}) {
    options.resolution = bad;
    const Caught error = caught([&] { build_model(tiny_checkpoint(siglip_json(), 3), options); });
    EXPECT_EQ(error.code, ErrorCode::invalid_argument) << bad;
  }
  options.resolution = 28;
  EXPECT_EQ(caught([&] { build_model(tiny_checkpoint(t5_json(), 3), options); }).code,
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace pali::test
