// The TrueType file that labels are drawn with.
#pragma once

#include <span>

namespace pali {

std::span<const unsigned char> label_font();

}  // namespace pali
