#include "image/image.hpp"
#include "samples.hpp"

namespace pali {
namespace {

using test::Bytes;
using test::bytes_of;

// A JPEG's beginning with one APP1 segment.
Bytes jpeg_with(const std::string& tiff) {
  const size_t length = tiff.size() + 8;
  std::string file("\xff\xd8\xff\xe1", 4);
  file += static_cast<char>(length >> 8);
  file += static_cast<char>(length & 255);
  file += std::string("Exif\0\0", 6) + tiff + "\xff\xd9";
  return bytes_of(file);
}

Bytes png_with(const std::string& tiff) {
  std::string file("\x89PNG\r\n\x1a\n", 8);
  const size_t length = tiff.size();
  file += std::string(2, '\0') + static_cast<char>(length >> 8) + static_cast<char>(length & 255);
  return bytes_of(file + "eXIf" + tiff + "CRC4" + std::string("\0\0\0\0IEND1234", 12));
}

std::string little(int orientation) {
  return std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) +
         static_cast<char>(orientation) + std::string(7, '\0');
}
std::string big(int orientation) {
  return std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", 19) +
         static_cast<char>(orientation) + std::string(6, '\0');
}

TEST(Exif, BothByteOrdersInJpegAndPng) {
  for (int orientation = 0; orientation < 12; ++orientation) {
    const int expected = orientation >= 1 && orientation <= 8 ? orientation : 1;
    EXPECT_EQ(exif_orientation(jpeg_with(little(orientation))), expected);
    EXPECT_EQ(exif_orientation(jpeg_with(big(orientation))), expected);
    EXPECT_EQ(exif_orientation(png_with(little(orientation))), expected);
    EXPECT_EQ(exif_orientation(png_with(big(orientation))), expected);
  }
}

TEST(Exif, HostileOffsetsCountsAndCutsAreNoExif) {
  const std::string whole = little(6);
  std::string far = whole;
  far.replace(4, 4, "\xff\xff\xff\xff");
  EXPECT_EQ(exif_orientation(jpeg_with(far)), 1);
  std::string many = whole;
  many.replace(8, 2, "\xff\xff");
  EXPECT_EQ(exif_orientation(jpeg_with(many)), 6);  // found before the end is overrun
  many.replace(10, 2, "\x13\x01");
  EXPECT_EQ(exif_orientation(jpeg_with(many)), 1);
  std::string text = whole;
  text[12] = 2;  // ASCII
  EXPECT_EQ(exif_orientation(jpeg_with(text)), 1);
  for (const Bytes& file : {jpeg_with(whole), png_with(whole)}) {
    for (size_t size = 0; size <= file.size(); ++size) {
      const int found = exif_orientation({file.data(), size});
      EXPECT_TRUE(found == 1 || found == 6) << size;
    }
    for (size_t at = 0; at < file.size(); ++at) {
      for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
        Bytes broken = file;
        broken[at] = static_cast<std::byte>(value);
        const int found = exif_orientation(broken);
        EXPECT_TRUE(found >= 1 && found <= 8);
      }
    }
  }
}

// Pixel values name their place: 10 * y + x.
ImageU8 numbered(int width, int height) {
  ImageU8 image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) image.rgb.push_back(static_cast<uint8_t>(10 * y + x + 80 * c));
    }
  }
  return image;
}

TEST(Exif, OrientationsTurnAndMirror) {
  const ImageU8 image = numbered(3, 2);  // 0 1 2 / 10 11 12
  const std::vector<std::vector<int>> expected = {
      {0, 1, 2, 10, 11, 12}, {2, 1, 0, 12, 11, 10}, {12, 11, 10, 2, 1, 0}, {10, 11, 12, 0, 1, 2},
      {0, 10, 1, 11, 2, 12}, {10, 0, 11, 1, 12, 2}, {12, 2, 11, 1, 10, 0}, {2, 12, 1, 11, 0, 10}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const ImageU8 out = apply_orientation(image, orientation);
    EXPECT_EQ(out.width, orientation < 5 ? 3 : 2);
    EXPECT_EQ(out.height, orientation < 5 ? 2 : 3);
    for (size_t i = 0; i < 6; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        EXPECT_EQ(out.rgb[3 * i + c], expected[orientation - 1][i] + 80 * static_cast<int>(c))
            << "orientation " << orientation << " pixel " << i;
      }
    }
  }
}

}  // namespace
}  // namespace pali
