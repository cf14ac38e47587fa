// Location and segmentation tokens of an answer: boxes in pixels, and the codes of their masks.
// Total: never throws, whatever the tokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "pali/engine.hpp"

namespace pali {

inline constexpr int kLocations = 1024;  // <loc0000> .. <loc1023>
inline constexpr int kMaskCodes = 128;   // <seg000> .. <seg127>
inline constexpr size_t kCodesOfMask = 16;
using MaskCodes = std::array<uint8_t, kCodesOfMask>;

// Ids of <loc0000> and <seg000>; the others follow them in order. -1: the tokenizer has none.
struct LocationIds {
  int32_t loc = -1, seg = -1;

  // 0 .. 1023 of a location token, 0 .. 127 of a segmentation token; none for other ids.
  std::optional<int> location(int32_t id) const { return within(id, loc, kLocations); }
  std::optional<int> code(int32_t id) const { return within(id, seg, kMaskCodes); }

 private:
  static std::optional<int> within(int32_t id, int32_t first, int count) {
    if (first < 0 || id < first || id - first >= count) return std::nullopt;
    return id - first;
  }
};

// An answer's tokens and its decoded text: token i is text[ends[i - 1], ends[i]), its
// log-probability logprobs[i]. `ends` and `logprobs` may be shorter than `ids`.
struct AnswerTokens {
  std::span<const int32_t> ids;
  std::string_view text;
  std::span<const size_t> ends;
  std::span<const float> logprobs;
};

// Of each group "<loc>x4 [<seg>x16] label", groups parted by ";": y0 x0 y1 x1 over 1023 times the
// image's sides. A group is invalid, counted and left out, that has another number of location
// tokens than four, or whose corners are not y0 < y1 and x0 < x1; with `masks`, also one that has
// another number of segmentation tokens than 16, or whose box, its corners truncated to whole
// pixels, is empty. Without `masks`, segmentation tokens are ignored. A score is the geometric mean
// of the four location tokens' probabilities.
// Ref: Evaluator.run in big_vision's evaluators/proj/paligemma/transfers/segmentation.py.
struct Located {
  std::vector<Box> boxes;
  std::vector<MaskCodes> codes;  // with `masks`: one a box
  int invalid = 0;
};
Located parse_locations(const AnswerTokens& answer, const LocationIds& ids, int width, int height,
                        std::string_view fallback_label, bool masks);

}  // namespace pali
