#include "tasks/text_raster.hpp"

#include <algorithm>
#include <cmath>

#include "base/assert.hpp"
#include "tasks/label_font.hpp"

#define STB_TRUETYPE_IMPLEMENTATION
#define STBTT_STATIC
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb_truetype.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace pali {
namespace {

constexpr char kUnknown = '\x7f';  // drawn as a hollow box
constexpr size_t kLongestLabel = 256;

// The base letters of U+00C0 .. U+00FF.
constexpr std::string_view kLatin1 =
    "AAAAAAACEEEEIIIIDNOOOOOxOUUUUYTsaaaaaaaceeeeiiiidnooooo/ouuuuyty";
static_assert(kLatin1.size() == 64);

// What stands for the character that begins at `at`; moves `at` behind it.
char ascii_of(std::string_view text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  if (lead < 0x80) return lead < 0x20 || lead == 0x7f ? ' ' : static_cast<char>(lead);
  const bool is_lead = lead >= 0xc0;
  unsigned char next = 0;
  while (is_lead && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) {
    if (next == 0) next = static_cast<unsigned char>(text[at]);
    ++at;
  }
  if (lead == 0xc3 && next != 0) return kLatin1[next & 0x3f];
  return kUnknown;
}

std::string drawable(std::string_view utf8) {
  std::string text;
  for (size_t at = 0; at < utf8.size() && text.size() < kLongestLabel;) {
    text += ascii_of(utf8, at);
  }
  return text;
}

}  // namespace

struct TextRaster::Font {
  stbtt_fontinfo info = {};
  float scale = 0;
  int ascent = 0, height = 0;

  double advance(char c, char next) const {
    if (c == kUnknown) return box_side() * 1.25;
    int width = 0, bearing = 0;
    stbtt_GetCodepointHMetrics(&info, c, &width, &bearing);
    const int kern = next ? stbtt_GetCodepointKernAdvance(&info, c, next) : 0;
    return (width + kern) * static_cast<double>(scale);
  }
  double width(std::string_view text) const {
    double sum = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      sum += advance(text[i], i + 1 < text.size() ? text[i + 1] : '\0');
    }
    return sum;
  }
  double box_side() const { return ascent * 0.72; }
};

TextRaster::TextRaster(double pixel_height) : font_(std::make_unique<Font>()) {
  const int found = stbtt_InitFont(&font_->info, label_font().data(), 0);
  PALI_ASSERT(found != 0);
  font_->scale = stbtt_ScaleForPixelHeight(&font_->info, static_cast<float>(pixel_height));
  int ascent = 0, descent = 0, gap = 0;
  stbtt_GetFontVMetrics(&font_->info, &ascent, &descent, &gap);
  font_->ascent = static_cast<int>(std::ceil(ascent * font_->scale));
  font_->height = font_->ascent + static_cast<int>(std::ceil(-descent * font_->scale));
}

TextRaster::~TextRaster() = default;

TextMask TextRaster::draw(std::string_view utf8, int max_width) const {
  std::string text = drawable(utf8);
  if (font_->width(text) > max_width) {
    while (!text.empty() && font_->width(text + "...") > max_width) text.pop_back();
    while (!text.empty() && text.back() == ' ') text.pop_back();
    text += "...";
  }
  TextMask mask;
  mask.width =
      std::clamp(static_cast<int>(std::ceil(font_->width(text))), 1, std::max(max_width, 1));
  mask.height = font_->height;
  mask.coverage.resize(static_cast<size_t>(mask.width) * static_cast<size_t>(mask.height));
  const auto add = [&](int x, int y, int coverage) {
    if (x < 0 || y < 0 || x >= mask.width || y >= mask.height) return;
    uint8_t& pixel = mask.coverage[static_cast<size_t>(y) * mask.width + x];
    pixel = static_cast<uint8_t>(std::min(pixel + coverage, 255));
  };
  double pen = 0;
  std::vector<uint8_t> glyph;
  for (size_t i = 0; i < text.size(); ++i) {
    const int whole = static_cast<int>(std::floor(pen));
    if (text[i] == kUnknown) {
      const int side = std::max(static_cast<int>(font_->box_side()), 3);
      for (int k = 0; k < side; ++k) {
        add(whole + k, font_->ascent - side, 255);
        add(whole + k, font_->ascent - 1, 255);
        if (k == 0 || k == side - 1) continue;
        add(whole, font_->ascent - 1 - k, 255);
        add(whole + side - 1, font_->ascent - 1 - k, 255);
      }
    } else {
      const float shift = static_cast<float>(pen - whole);
      int x0 = 0, y0 = 0, x1 = 0, y1 = 0;
      stbtt_GetCodepointBitmapBoxSubpixel(&font_->info, text[i], font_->scale, font_->scale, shift,
                                          0, &x0, &y0, &x1, &y1);
      const int w = x1 - x0, h = y1 - y0;
      if (w > 0 && h > 0) {
        glyph.assign(static_cast<size_t>(w) * static_cast<size_t>(h), 0);
        stbtt_MakeCodepointBitmapSubpixel(&font_->info, glyph.data(), w, h, w, font_->scale,
                                          font_->scale, shift, 0, text[i]);
        for (int y = 0; y < h; ++y) {
          for (int x = 0; x < w; ++x) {
            add(whole + x0 + x, font_->ascent + y0 + y, glyph[static_cast<size_t>(y) * w + x]);
          }
        }
      }
    }
    pen += font_->advance(text[i], i + 1 < text.size() ? text[i + 1] : '\0');
  }
  return mask;
}

}  // namespace pali
