// Lines of text as coverage masks. The one place that knows stb_truetype.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pali {

// Coverage 0..255 of each pixel, row-major.
struct TextMask {
  int width = 0, height = 0;
  std::vector<uint8_t> coverage;
};

class TextRaster {
 public:
  explicit TextRaster(double pixel_height);  // from the highest ascender to the lowest descender
  ~TextRaster();
  // One line; cut with "..." where it would be wider than max_width. Any bytes: Latin letters lose
  // their accents, what the font lacks becomes a hollow box, control characters become spaces.
  TextMask draw(std::string_view utf8, int max_width) const;

 private:
  struct Font;
  std::unique_ptr<Font> font_;
};

}  // namespace pali
