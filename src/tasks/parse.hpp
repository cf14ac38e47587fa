// What a detection's text says: boxes in pixels. Total: never throws, whatever the text.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "pali/engine.hpp"

namespace pali {

// PaLI's plain-text boxes, "ymin xmin ymax xmax label ; ymin ...", coordinates 0..999 over the
// image's sides (pixel = value / 999 * side). `token_ends[i]` is the byte offset in `text` at which
// token i ends, `token_logprobs[i]` its log-probability: a box's score is the geometric mean of the
// probabilities of the tokens its four numbers are made of (none where the spans are empty).
// Groups that are no box (too few numbers, out of range, swapped corners) are counted as invalid.
// Without a label in the text, the box takes `fallback_label`.
struct Detections {
  std::vector<Box> boxes;
  int invalid = 0;
};
Detections parse_detections(std::string_view text, int width, int height,
                            std::string_view fallback_label, std::span<const size_t> token_ends,
                            std::span<const float> token_logprobs);

}  // namespace pali
