// What one step's logits say of another's, and how steps and requests add up.
#include "drift.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace pali::bench {
namespace {

using Row = std::vector<float>;
const float kNever = -std::numeric_limits<float>::infinity();

TEST(Drift, EqualLogitsAreNoDistanceApart) {
  const Row row = {0.5f, -3, 2, 1.75f};
  const StepDrift step = compare(row, row);
  EXPECT_TRUE(step.agrees);
  EXPECT_EQ(step.kl, 0);
}

TEST(Drift, KlIsThatOfTheDistributions) {
  const Row half = {std::log(0.5f), std::log(0.25f), std::log(0.25f)}, even = {0, 0, 0};
  // sum p log(p / q) with p = 1/2, 1/4, 1/4 and q = 1/3 each, and the other way round.
  EXPECT_NEAR(compare(half, even).kl, std::log(3.0) - 1.5 * std::log(2.0), 1e-7);
  EXPECT_NEAR(compare(even, half).kl, 5 * std::log(2.0) / 3 - std::log(3.0), 1e-7);
  EXPECT_TRUE(compare(half, even).agrees);  // of equal logits the first is taken, as in decoding
}

TEST(Drift, AnOffsetOfAllLogitsChangesNothing) {
  const Row row = {3, 1, -2}, far = {10003, 10001, 9998}, below = {-9997, -9999, -10002};
  EXPECT_NEAR(compare(row, far).kl, 0, 1e-12);
  EXPECT_NEAR(compare(far, below).kl, 0, 1e-12);
}

TEST(Drift, AnotherBestTokenDisagrees) {
  EXPECT_FALSE(compare(Row{1, 2, 0}, Row{2, 1, 0}).agrees);
  EXPECT_NEAR(compare(Row{1, 2}, Row{2, 1}).kl, std::tanh(0.5), 1e-7);
}

TEST(Drift, TokensThatCannotBeAddNothing) {
  EXPECT_EQ(compare(Row{0, kNever, 0}, Row{0, kNever, 0}).kl, 0);
  EXPECT_NEAR(compare(Row{0, kNever, 0}, Row{0, 0, 0}).kl, std::log(1.5), 1e-12);
  EXPECT_EQ(compare(Row{0, 0}, Row{0, kNever}).kl, std::numeric_limits<double>::infinity());
}

TEST(Drift, AddsUp) {
  Drift one, other;
  EXPECT_EQ(one.same_share() + one.top1_agreement() + one.kl_mean(), 0);  // not 0 / 0
  one.requests = one.same_answers = 1;
  one.add(StepDrift{true, 0.5});
  other.requests = 1;
  other.add(StepDrift{false, 2.5});
  other.add(StepDrift{true, 0});
  one.add(other);
  EXPECT_EQ(one.same_share(), 0.5);
  EXPECT_EQ(one.steps, 3);
  EXPECT_NEAR(one.top1_agreement(), 2.0 / 3, 1e-15);
  EXPECT_NEAR(one.kl_mean(), 1, 1e-15);
  EXPECT_EQ(one.kl_max, 2.5);
}

}  // namespace
}  // namespace pali::bench
