// Walks the markers of a JPEG to the end before a decoder sees them: sizes are checked before
// anything is allocated, a file that was cut short is found out, and tables are proven sound. The
// last is a must: stb_image 2.27 writes past the end of a Huffman table that claims more than 256
// codes, and reads tables that nobody defined.
#include <algorithm>
#include <cstring>

#include "image/formats.hpp"

namespace pali {
namespace {

// Progressive encoders write about ten; every scan costs a pass over the whole picture.
constexpr int kMaxScans = 100;

bool is_frame_header(uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

// The offset of the first marker at or behind `at` that ends entropy-coded data.
size_t end_of_scan(ByteView jpeg, size_t at) {
  while (at < jpeg.size()) {
    const void* found = std::memchr(jpeg.data() + at, 0xff, jpeg.size() - at);
    if (found == nullptr) return jpeg.size();
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - jpeg.data());
    if (!jpeg.has(at, 2)) return jpeg.size();
    const uint32_t next = jpeg.u8(at + 1);
    const bool stuffed_or_restart = next == 0 || (next >= 0xd0 && next <= 0xd7);
    if (next == 0xff) {
      ++at;
    } else if (stuffed_or_restart) {
      at += 2;
    } else {
      return at;
    }
  }
  return at;
}

class JpegWalk {
 public:
  JpegWalk(ByteView jpeg, const Reading& reading) : jpeg_(jpeg), reading_(reading) {}

  JpegStructure walk() {
    size_t at = 2;
    while (true) {
      while (jpeg_.has(at, 1) && jpeg_.u8(at) != 0xff) ++at;  // padding, which some cameras leave
      while (jpeg_.has(at, 1) && jpeg_.u8(at) == 0xff) ++at;
      if (!jpeg_.has(at, 1)) fail_truncated("JPEG", reading_);
      const uint32_t marker = jpeg_.u8(at++);
      if (marker == 0xd9) break;
      if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) continue;
      if (!jpeg_.has(at, 2)) fail_truncated("JPEG", reading_);
      const size_t length = jpeg_.be16(at);
      if (length < 2) corrupt("JPEG segment of impossible length");
      if (!jpeg_.has(at, length)) fail_truncated("JPEG", reading_);
      const size_t begin = at + 2, end = at + length;
      if (is_frame_header(marker)) frame_header(marker, begin, end);
      if (marker == 0xc4) huffman_tables(begin, end);
      if (marker == 0xdb) quantisation_tables(begin, end);
      at = end;
      if (marker == 0xda) {
        scan_header(begin, end);
        at = end_of_scan(jpeg_, end);
        entropy_bytes_ += static_cast<int64_t>(at - end);
      }
    }
    if (scans_ == 0) corrupt("JPEG without a picture");
    // A block of 8x8 pixels costs a bit at the very least: less was cut out of the middle.
    const int64_t blocks = ((found_.width + 7) / 8) * ((found_.height + 7) / 8);
    if (entropy_bytes_ * 8 < blocks) fail_truncated("JPEG", reading_);
    return found_;
  }

 private:
  struct Component {
    uint32_t id = 0, quantisation = 0;
  };

  [[noreturn]] void corrupt(const char* what) const { fail_corrupt(what, reading_); }

  void frame_header(uint32_t marker, size_t begin, size_t end) {
    if (found_.components != 0) corrupt("JPEG with two frame headers");
    if (end - begin < 6) corrupt("JPEG frame header too short");
    if (marker > 0xc2)
      fail_unsupported("lossless, hierarchical or arithmetic-coded JPEG", reading_);
    if (jpeg_.u8(begin) != 8) fail_unsupported("JPEG of other than 8 bits", reading_);
    progressive_ = marker == 0xc2;
    found_.height = jpeg_.be16(begin + 1);
    found_.width = jpeg_.be16(begin + 3);
    const uint32_t count = jpeg_.u8(begin + 5);
    if (count != 1 && count != 3 && count != 4) {
      fail_unsupported("JPEG of " + std::to_string(count) + " components", reading_);
    }
    if (end - begin != 6 + 3 * count) corrupt("JPEG frame header of a wrong length");
    for (uint32_t i = 0; i < count; ++i) {
      components_[i] = {jpeg_.u8(begin + 6 + 3 * i), jpeg_.u8(begin + 8 + 3 * i)};
    }
    // stb_image 2.27 takes such ratios and reads beyond its planes.
    uint32_t widest = 1, highest = 1;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t sampling = jpeg_.u8(begin + 7 + 3 * i);
      widest = std::max(widest, sampling >> 4);
      highest = std::max(highest, sampling & 15);
    }
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t h = jpeg_.u8(begin + 7 + 3 * i) >> 4, v = jpeg_.u8(begin + 7 + 3 * i) & 15;
      if (h < 1 || h > 4 || v < 1 || v > 4 || widest % h != 0 || highest % v != 0) {
        corrupt("JPEG with impossible sampling factors");
      }
    }
    found_.components = static_cast<int>(count);
    check_size(found_.width, found_.height, reading_);
  }

  void huffman_tables(size_t at, size_t end) {
    while (at < end) {
      if (end - at < 17) corrupt("JPEG Huffman table too short");
      const uint32_t kind = jpeg_.u8(at) >> 4, slot = jpeg_.u8(at) & 15;
      size_t codes = 0;
      for (size_t i = 1; i <= 16; ++i) codes += jpeg_.u8(at + i);
      if (kind > 1 || slot > 3 || codes > 256 || end - at - 17 < codes) {
        corrupt("JPEG with an impossible Huffman table");
      }
      huffman_defined_[kind][slot] = true;
      at += 17 + codes;
    }
  }

  void quantisation_tables(size_t at, size_t end) {
    while (at < end) {
      const uint32_t slot = jpeg_.u8(at) & 15, wide = jpeg_.u8(at) >> 4;
      const size_t size = wide ? 129 : 65;
      if (slot > 3 || wide > 1 || end - at < size) {
        corrupt("JPEG with an impossible quantisation table");
      }
      quantisation_defined_[slot] = true;
      at += size;
    }
  }

  void scan_header(size_t begin, size_t end) {
    if (found_.components == 0) corrupt("JPEG scan before its frame header");
    if (++scans_ > kMaxScans) corrupt("JPEG with more than 100 scans");
    const size_t count = end - begin < 6 ? 0 : jpeg_.u8(begin);
    if (count < 1 || count > 4 || end - begin != 4 + 2 * count) corrupt("JPEG with a damaged scan");
    const uint32_t first = jpeg_.u8(begin + 1 + 2 * count), last = jpeg_.u8(begin + 2 + 2 * count);
    const bool refines = (jpeg_.u8(begin + 3 + 2 * count) >> 4) != 0;
    const bool needs_dc = !progressive_ || (first == 0 && !refines);
    const bool needs_ac = !progressive_ || last > 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t id = jpeg_.u8(begin + 1 + 2 * i), tables = jpeg_.u8(begin + 2 + 2 * i);
      const uint32_t dc = tables >> 4, ac = tables & 15;
      bool defined = dc <= 3 && ac <= 3 && (!needs_dc || huffman_defined_[0][dc]) &&
                     (!needs_ac || huffman_defined_[1][ac]);
      bool known = false;
      for (int c = 0; c < found_.components; ++c) {
        if (components_[c].id != id) continue;
        known = true;
        const uint32_t slot = components_[c].quantisation;
        defined = defined && slot <= 3 && quantisation_defined_[slot];
      }
      if (!known || !defined) corrupt("JPEG scan that refers to a table it does not have");
    }
  }

  ByteView jpeg_;
  const Reading& reading_;
  JpegStructure found_;
  Component components_[4];
  bool progressive_ = false;
  bool huffman_defined_[2][4] = {};
  bool quantisation_defined_[4] = {};
  int scans_ = 0;
  int64_t entropy_bytes_ = 0;
};

}  // namespace

JpegStructure check_jpeg(ByteView jpeg, const Reading& reading) {
  return JpegWalk(jpeg, reading).walk();
}

}  // namespace pali
