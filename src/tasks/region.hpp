// The frame around the part of an image that a caption is asked of.
#pragma once

#include "image/image.hpp"
#include "pali/engine.hpp"

namespace pali {

// Draws a red frame, one pixel thick, into the preprocessed pixels [3, S*S] of an image that was
// width x height. Ref: draw_bbox in big_vision's pp/proj/paligemma/widgetcap.py, which is
// TensorFlow's draw_bounding_boxes on the resized image.
void frame_region(Tensor& pixels, const Preprocessing& how, int width, int height,
                  const Region& region);

}  // namespace pali
