// Sizes out of files, and names in messages.
#include "base/checked.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "base/quote.hpp"

namespace pali {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

TEST(Checked, MultiplyRefusesOverflowAndNegatives) {
  EXPECT_EQ(checked_multiply(6, 7), 42);
  EXPECT_EQ(checked_multiply(0, kMost), 0);
  EXPECT_EQ(checked_multiply(1, kMost), kMost);
  EXPECT_EQ(checked_multiply(2, kMost), std::nullopt);
  EXPECT_EQ(checked_multiply(int64_t{1} << 32, int64_t{1} << 31), std::nullopt);
  EXPECT_EQ(checked_multiply(-1, 5), std::nullopt);
  EXPECT_EQ(checked_multiply(5, -1), std::nullopt);
}

TEST(Checked, BytesOfShapes) {
  const auto bytes = [](std::vector<int64_t> shape) { return checked_bytes(shape, 4); };
  EXPECT_EQ(bytes({}), 4);
  EXPECT_EQ(bytes({3, 5}), 60);
  EXPECT_EQ(bytes({3, 0, 5}), 0);
  EXPECT_EQ(bytes({kMost / 4}), kMost / 4 * 4);
  EXPECT_EQ(bytes({kMost / 4 + 1}), std::nullopt);
  EXPECT_EQ(bytes({kMost, kMost, 0}), std::nullopt);
  EXPECT_EQ(bytes({0, kMost, kMost}), std::nullopt);
  EXPECT_EQ(bytes({-3}), std::nullopt);
}

TEST(Quote, KeepsMessagesInOneShortLine) {
  EXPECT_EQ(quote("a b"), "'a b'");
  EXPECT_EQ(quote("a\nb\x01"), "'a\\x0ab\\x01'");
  EXPECT_EQ(quote(std::string(1000, 'x')).size(), 160u + 5u);
  EXPECT_EQ(quote("é"), "'é'");
}

}  // namespace
}  // namespace pali
