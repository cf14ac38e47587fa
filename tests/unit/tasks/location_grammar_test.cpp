#include "tasks/location_grammar.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace pali {
namespace {

// 0 pad, 1 end, 2 "cat", 3 " ;", 4 " ", 5 "dog", then <loc> and <seg>.
constexpr int32_t kEnd = 1, kCat = 2, kSemicolon = 3, kSpace = 4, kLoc = 6,
                  kSeg = kLoc + kLocations;
GrammarTokens tokens() { return {{kLoc, kSeg}, kEnd, {2, 5}, {kSemicolon}, {kSpace}}; }

std::vector<int32_t> allowed(LocationGrammar& grammar, std::vector<int32_t> so_far) {
  const std::span<const int32_t> ids = grammar.allowed(so_far);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  return {ids.begin(), ids.end()};
}
std::vector<int32_t> range(int32_t first, int32_t last) {
  std::vector<int32_t> ids;
  for (int32_t id = first; id <= last; ++id) ids.push_back(id);
  return ids;
}
std::vector<int32_t> with(std::vector<int32_t> first, const std::vector<int32_t>& more) {
  first.insert(first.end(), more.begin(), more.end());
  std::sort(first.begin(), first.end());
  return first;
}

TEST(LocationGrammar, CornersGoUp) {
  LocationGrammar grammar(tokens(), /*masks=*/false, 64);
  const std::vector<int32_t> corner = range(kLoc, kLoc + 1022);
  EXPECT_EQ(allowed(grammar, {}), with(corner, {kEnd}));
  EXPECT_EQ(allowed(grammar, {kLoc + 1022}), corner);
  EXPECT_EQ(allowed(grammar, {kLoc + 1022, kLoc + 7}), (std::vector<int32_t>{kLoc + 1023}));
  EXPECT_EQ(allowed(grammar, {kLoc + 1022, kLoc + 7, kLoc + 1023}), range(kLoc + 8, kLoc + 1023));
  const std::vector<int32_t> box = {kLoc, kLoc, kLoc + 5, kLoc + 5};
  EXPECT_EQ(allowed(grammar, box), (std::vector<int32_t>{kEnd, 2, kSemicolon, kSpace, 5}));
  EXPECT_EQ(allowed(grammar, with(box, {})), allowed(grammar, box));
  std::vector<int32_t> parted = box;
  parted.insert(parted.end(), {kCat, kSemicolon});
  EXPECT_EQ(allowed(grammar, parted), with(corner, {kSpace}));
}

TEST(LocationGrammar, SixteenCodesMakeAMask) {
  LocationGrammar grammar(tokens(), /*masks=*/true, 64);
  std::vector<int32_t> so_far = {kLoc, kLoc, kLoc + 5, kLoc + 5};
  for (size_t i = 0; i < kCodesOfMask; ++i) {
    EXPECT_EQ(allowed(grammar, so_far), range(kSeg, kSeg + kMaskCodes - 1));
    so_far.push_back(kSeg + 3);
  }
  EXPECT_EQ(allowed(grammar, so_far), (std::vector<int32_t>{kEnd, 2, kSemicolon, kSpace, 5}));
}

// Whatever is chosen among what is allowed: every box and mask is whole, at any length.
TEST(LocationGrammar, EveryPathIsWellFormed) {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    const bool masks = round % 2 == 0;
    const int length = LocationGrammar::shortest(masks) + static_cast<int>(random() % 60);
    LocationGrammar grammar(tokens(), masks, length);
    std::vector<int32_t> ids;
    std::string text;
    std::vector<size_t> ends;
    int groups = 0;
    while (static_cast<int>(ids.size()) < length) {
      std::vector<int32_t> next = allowed(grammar, ids);
      ASSERT_FALSE(next.empty());
      // Ends and separators are rare among a thousand locations.
      const std::vector<int32_t> rare = {kEnd, kCat, kSemicolon, kSpace};
      int32_t id = next[random() % next.size()];
      if (random() % 4 == 0) {
        const int32_t wish = rare[random() % rare.size()];
        if (std::binary_search(next.begin(), next.end(), wish)) id = wish;
      }
      if (id == kEnd) break;
      ids.push_back(id);
      text += id == kCat         ? "cat"
              : id == kSemicolon ? " ;"
              : id == kSpace     ? " "
              : id == 5          ? "dog"
                                 : "<>";
      ends.push_back(text.size());
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool begins = tokens().locations.location(ids[i]) &&
                          (i == 0 || !tokens().locations.location(ids[i - 1]));
      groups += begins ? 1 : 0;
    }
    const Located found =
        parse_locations({ids, text, ends, {}}, tokens().locations, 5000, 5000, "x", masks);
    EXPECT_EQ(found.invalid, 0);
    EXPECT_EQ(static_cast<int>(found.boxes.size()), groups);
  }
}

}  // namespace
}  // namespace pali
