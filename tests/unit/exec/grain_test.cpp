// How rows are cut into parts.
#include "exec/grain.hpp"

#include <gtest/gtest.h>

namespace pali {
namespace {

TEST(RowParts, CoverAllRowsInFullTilesAndNoneIsMuchShorter) {
  for (const int64_t most : {64, 512, 1024}) {
    for (int64_t rows = 1; rows <= 20000; rows += rows < 1100 ? 1 : 97) {
      const RowParts parts(rows, most);
      ASSERT_EQ(parts.count(), (rows + most - 1) / most);
      ASSERT_EQ(parts.begin(0), 0);
      ASSERT_EQ(parts.begin(parts.count()), rows);
      int64_t longest = 0;
      for (int64_t i = 0; i < parts.count(); ++i) {
        const int64_t count = parts.begin(i + 1) - parts.begin(i);
        ASSERT_EQ(parts.begin(i) % RowParts::kStep, 0);
        if (parts.count() > 1) {
          ASSERT_GT(count, most / 2 - RowParts::kStep);
        }
        longest = std::max(longest, count);
      }
      ASSERT_LE(longest, parts.most());
      ASSERT_LE(parts.most(), std::min(rows, most));
    }
  }
}

TEST(RowParts, NoRowsAreNoParts) { EXPECT_EQ(RowParts(0, 512).count(), 0); }

}  // namespace
}  // namespace pali
