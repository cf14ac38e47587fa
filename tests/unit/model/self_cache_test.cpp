// Which rows a sequence looks back on, against lists kept by hand.
#include "model/self_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace pali {
namespace {

using Rows = std::vector<int32_t>;

Rows sorted(std::span<const int32_t> rows) {
  Rows out(rows.begin(), rows.end());
  std::sort(out.begin(), out.end());
  return out;
}

// A sequence as plain lists.
struct Sequence {
  Rows pinned, others;
  Rows all() const {
    Rows rows = pinned;
    rows.insert(rows.end(), others.begin(), others.end());
    return rows;
  }
  Rows in_window(int64_t window) const {
    Rows rows = pinned;
    const auto kept = std::min<std::ptrdiff_t>(window, std::ssize(others));
    rows.insert(rows.end(), others.end() - kept, others.end());
    std::sort(rows.begin(), rows.end());
    return rows;
  }
};

void run(SelfCache::Prefix kind, int64_t window) {
  SelfCacheShape shape;
  shape.layers = 1;
  shape.kv_width = 3;
  shape.capacity = 4;
  shape.steps = 9;
  shape.prefix_rows = 7;
  shape.longest_prefix = 5;
  shape.window = window;
  SelfCache cache(shape);
  cache.begin(0, 0, 5, kind);
  cache.begin(1, 5, 2, kind);
  std::vector<Sequence> live(2);
  (kind == SelfCache::Prefix::pinned ? live[0].pinned : live[0].others) = {0, 1, 2, 3, 4};
  (kind == SelfCache::Prefix::pinned ? live[1].pinned : live[1].others) = {5, 6};
  const std::vector<Rows> moves{{0, 1, 0}, {2, 2, 1, 0}, {3, 1}, {0, 1, 1, 1}, {3, 2, 1, 0},
                                {1},       {0, 0},       {1, 0}, {0, 1}};
  int32_t next = 7;
  for (const Rows& move : moves) {
    cache.reorder(move);
    std::vector<Sequence> moved;
    for (const int32_t source : move) moved.push_back(live[static_cast<size_t>(source)]);
    live = moved;
    cache.advance(static_cast<int64_t>(live.size()));
    for (size_t b = 0; b < live.size(); ++b) {
      live[b].others.push_back(next + static_cast<int32_t>(b));
      const auto sequence = static_cast<int64_t>(b);
      const auto rows = cache.rows(sequence);
      EXPECT_EQ(Rows(rows.begin(), rows.end()), live[b].all());
      if (window > 0) {
        EXPECT_EQ(sorted(cache.rows_in_window(sequence)), live[b].in_window(window));
      }
    }
    next += 4;
  }
}

TEST(SelfCache, NamesTheRowsOfEverySequence) {
  for (const int64_t window : {0, 1, 2, 3, 4, 6, 13, 14, 100}) {
    SCOPED_TRACE(window);
    run(SelfCache::Prefix::slides, window);
    run(SelfCache::Prefix::pinned, window);
  }
}

}  // namespace
}  // namespace pali
