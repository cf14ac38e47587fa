// Which keys a group of queries sees, and so which blocks of keys it can leave out or need not
// mask. Included once by each ISA source.
#pragma once

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

struct SeenKeys {
  int64_t any_first = 0, any_end = 0;  // keys that some query sees lie in here
  int64_t all_first = 0, all_end = 0;  // every query sees these

  bool sees(int64_t from, int64_t to) const { return from < any_end && any_first < to; }
  bool sees_all(int64_t from, int64_t to) const { return all_first <= from && to <= all_end; }
};

inline KeyRange range_of(const AttentionTile& tile, int64_t query) {
  if (tile.ranges != nullptr && query < tile.queries) return tile.ranges[query];
  return {0, static_cast<int32_t>(tile.keys)};
}

// Of `count` queries from `first` on, all present.
inline SeenKeys seen_keys(const AttentionTile& tile, int64_t first, int64_t count) {
  SeenKeys seen{tile.keys, 0, 0, tile.keys};
  for (int64_t i = first; i < first + count; ++i) {
    const KeyRange range = range_of(tile, i);
    seen.any_first = smaller(seen.any_first, range.first);
    seen.any_end = larger(seen.any_end, range.end);
    seen.all_first = larger(seen.all_first, range.first);
    seen.all_end = smaller(seen.all_end, range.end);
  }
  return seen;
}

}  // namespace
}  // namespace pali
