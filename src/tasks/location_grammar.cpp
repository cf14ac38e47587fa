#include "tasks/location_grammar.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/assert.hpp"

namespace pali {
namespace {

std::vector<int32_t> merged(std::initializer_list<std::span<const int32_t>> lists) {
  std::vector<int32_t> all;
  for (const std::span<const int32_t> list : lists) all.insert(all.end(), list.begin(), list.end());
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

bool contains(const std::vector<int32_t>& list, int32_t id) {
  return std::binary_search(list.begin(), list.end(), id);
}

}  // namespace

LocationGrammar::LocationGrammar(GrammarTokens tokens, bool masks, int max_tokens)
    : tokens_(std::move(tokens)), masks_(masks), max_tokens_(static_cast<size_t>(max_tokens)) {
  const std::span<const int32_t> end(&tokens_.end, 1);
  words_and_end_ = merged({tokens_.words, tokens_.spaces, end});
  all_text_and_end_ = merged({words_and_end_, tokens_.separators});
}

int LocationGrammar::shortest(bool masks) {
  return 4 + (masks ? static_cast<int>(kCodesOfMask) : 0) + 1;
}

std::span<const int32_t> LocationGrammar::range(int32_t first, int32_t last) {
  buffer_.resize(static_cast<size_t>(last - first + 1));
  std::iota(buffer_.begin(), buffer_.end(), first);
  return buffer_;
}

std::span<const int32_t> LocationGrammar::allowed(std::span<const int32_t> so_far) {
  // Where in the answer are we?
  int places = 0;  // locations and codes of the group so far
  int corner[4] = {};
  bool parted = false;  // behind a ";", no group begun yet
  for (const int32_t id : so_far) {
    if (const auto location = tokens_.locations.location(id)) {
      if (places >= 4 || parted) places = 0;
      corner[places] = *location;
      ++places;
      parted = false;
    } else if (tokens_.locations.code(id)) {
      ++places;
    } else if (contains(tokens_.separators, id)) {
      parted = true;
    }
  }
  const size_t left = max_tokens_ - std::min(max_tokens_, so_far.size());
  const size_t group = static_cast<size_t>(shortest(masks_)) - 1;
  const int32_t loc = tokens_.locations.loc, seg = tokens_.locations.seg;
  constexpr int32_t kLast = kLocations - 1;
  if (so_far.empty()) {  // nothing found is an answer too
    const int32_t end[] = {tokens_.end};
    const std::vector<int32_t> first = merged({range(loc, loc + kLast - 1), end});
    buffer_ = first;
    return buffer_;
  }
  if (parted) {
    if (left <= group + 1) return range(loc, loc + kLast - 1);
    const std::vector<int32_t> next = merged({range(loc, loc + kLast - 1), tokens_.spaces});
    buffer_ = next;
    return buffer_;
  }
  switch (places) {
    case 1:
      return range(loc, loc + kLast - 1);
    case 2:
      return range(loc + corner[0] + 1, loc + kLast);
    case 3:
      return range(loc + corner[1] + 1, loc + kLast);
    default:
      break;
  }
  if (masks_ && places < 4 + static_cast<int>(kCodesOfMask)) {
    return range(seg, seg + kMaskCodes - 1);
  }
  // Behind a ";" there must be room for a whole group and the end.
  return left > group + 1 ? std::span<const int32_t>(all_text_and_end_) : words_and_end_;
}

}  // namespace pali
