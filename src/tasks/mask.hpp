// Masks in the size of the picture, as run lengths.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pali/engine.hpp"

namespace pali {

// `values` [64 * 64] resized into the box, its corners truncated to whole pixels, and thresholded
// at 0; outside the box there is nothing. Ref: PIL.Image.fromarray(mask64).resize((w, h), BILINEAR)
// > 0 in big_vision's evaluators/proj/paligemma/transfers/segmentation.py.
Mask paste_mask(std::span<const float> values, const Box& box, int width, int height);

// Calls run(x, y, count) for every vertical run of pixels inside, within one column each; what a
// caller's counts have beyond the picture is left out.
template <class Run>
void for_each_run(const Mask& mask, Run run) {
  int64_t at = 0;
  bool inside = false;
  const int64_t pixels = int64_t{mask.width} * mask.height;
  for (const uint32_t count : mask.counts) {
    int64_t left = inside ? std::min<int64_t>(count, pixels - at) : 0;
    for (int64_t from = at; left > 0;) {
      const int64_t x = from / mask.height, y = from % mask.height;
      const int64_t here = left < mask.height - y ? left : mask.height - y;
      run(static_cast<int>(x), static_cast<int>(y), static_cast<int>(here));
      from += here;
      left -= here;
    }
    at = std::min(at + count, pixels);
    inside = !inside;
  }
}

// COCO's compressed counts. Ref: rleToString in pycocotools' common/maskApi.c: differences to the
// count before last, five bits a character.
std::string coco_counts(const Mask& mask);

}  // namespace pali
