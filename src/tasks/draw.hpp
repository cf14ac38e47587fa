// Boxes, masks and labels drawn into a picture.
#pragma once

#include <span>

#include "image/image.hpp"
#include "pali/engine.hpp"

namespace pali {

// Masks tinted, their rims strong; anti-aliased frames, labels on plates that stay readable on any
// background, colours that colour-blind people can tell apart (Okabe and Ito); one colour a label.
void draw_boxes(ImageU8& image, std::span<const Box> boxes);

}  // namespace pali
