// Files of every kind against what Pillow reads from them.
#include "image/image.hpp"
#include "samples.hpp"

namespace pali {
namespace {

using test::Bytes;
using test::bytes_of;
using test::decode;
using test::Goldens;
using test::image_bytes;

Json listed_files() { return read_json_file(test::image_path("golden.json"))["files"]; }

// PNG, BMP, GIF and PNM: the same bytes. JPEG: stb_image's inverse DCT rounds differently from
// libjpeg's; measured here: mean at most 0.08, largest 2 of 255.
TEST(Decode, EveryFileAsPillowReadsIt) {
  const Goldens goldens("decoded.golden.safetensors");
  int exact = 0, jpeg = 0;
  for (const Json& file : listed_files()) {
    const std::string name = file["file"];
    SCOPED_TRACE(name + ": " + file["note"].get<std::string>());
    const ImageU8 image = decode(image_bytes(name));
    ASSERT_EQ(image.width, file["width"].get<int>());
    ASSERT_EQ(image.height, file["height"].get<int>());
    const test::Difference found = test::difference(image.rgb, goldens.u8(name));
    if (file["exact"].get<bool>()) {
      EXPECT_EQ(found.largest, 0);
      ++exact;
    } else {
      EXPECT_LT(found.mean, 0.15);
      EXPECT_LE(found.largest, 3);
      RecordProperty(name, std::to_string(found.mean) + " " + std::to_string(found.largest));
      ++jpeg;
    }
  }
  EXPECT_GE(exact, 18);
  EXPECT_GE(jpeg, 14);
}

TEST(Decode, WhiteBackgroundComposites) {
  ImageOptions white;
  white.white_background = true;
  const ImageU8 dropped = decode(image_bytes("rgba.png"));
  const ImageU8 blended = decode(image_bytes("rgba.png"), white);
  ASSERT_EQ(dropped.rgb.size(), blended.rgb.size());
  for (int y = 0; y < dropped.height; ++y) {
    for (int x = 0; x < dropped.width; ++x) {
      const int alpha = (4 * y + 2 * x) % 256;  // as tools/golden/make_images.py makes it
      for (int c = 0; c < 3; ++c) {
        const size_t i = static_cast<size_t>(y * dropped.width + x) * 3 + c;
        const double expected = (dropped.rgb[i] * alpha + 255.0 * (255 - alpha)) / 255;
        ASSERT_NEAR(blended.rgb[i], expected, 0.51) << x << "," << y;
      }
    }
  }
  // Without transparency nothing changes.
  EXPECT_EQ(decode(image_bytes("rgb_37x53.png"), white).rgb,
            decode(image_bytes("rgb_37x53.png")).rgb);
}

// 2x2, two colours, pixel (1, 1) transparent; `transparent` in a graphic control extension.
Bytes small_gif(const char* control) {
  const std::string head("GIF89a\2\0\2\0\x80\0\0\xff\0\0\0\0\xff", 19);
  const std::string frame("\x2c\0\0\0\0\2\0\2\0\0\2\3\x44\x12\x05\0\x3b", 17);
  return bytes_of(head + std::string(control, control[0] ? 8 : 0) + frame);
}

TEST(Decode, GifTransparencyKeepsItsColourOrBecomesWhite) {
  const Bytes file = small_gif("\x21\xf9\4\1\0\0\1\0");
  ImageU8 image;
  ASSERT_NO_THROW(image = decode(file));
  ASSERT_EQ(image.rgb.size(), 12u);
  const std::vector<uint8_t> kept = image.rgb;
  int blue = 0;
  for (size_t i = 0; i < 12; i += 3) blue += kept[i + 2] == 255 && kept[i] == 0;
  EXPECT_GT(blue, 0);
  ImageOptions white;
  white.white_background = true;
  const std::vector<uint8_t> blended = decode(file, white).rgb;
  for (size_t i = 0; i < 12; i += 3) {
    const bool was_blue = kept[i + 2] == 255;
    EXPECT_EQ(blended[i], 255) << i;  // red stays red, blue becomes white
    EXPECT_EQ(blended[i + 1], was_blue ? 255 : 0) << i;
  }
}

Bytes pnm(const std::string& header, const std::string& data) { return bytes_of(header + data); }

TEST(Decode, PnmHeadersWithCommentsAndOtherMaxima) {
  const ImageU8 commented = decode(pnm("P5 # a comment\n2#x\n 1\n255\n", "\x07\xf0"));
  EXPECT_EQ(commented.rgb, (std::vector<uint8_t>{7, 7, 7, 240, 240, 240}));
  // Pillow: round(value / maximum * 255), never above 255.
  const ImageU8 scaled = decode(pnm("P5 4 1 100\n", std::string("\0\x32\x64\xc8", 4)));
  EXPECT_EQ(scaled.rgb,
            (std::vector<uint8_t>{0, 0, 0, 128, 128, 128, 255, 255, 255, 255, 255, 255}));
  const ImageU8 deep = decode(pnm("P6 1 1 65535\n", std::string("\x12\xff\x80\0\xff\x01", 6)));
  EXPECT_EQ(deep.rgb, (std::vector<uint8_t>{0x12, 0x80, 0xff}));
  const ImageU8 ten_bits = decode(pnm("P5 2 1 1023\n", std::string("\3\xff\1\xff", 4)));
  EXPECT_EQ(ten_bits.rgb, (std::vector<uint8_t>{255, 255, 255, 127, 127, 127}));
}

void put(Bytes& bytes, size_t at, uint32_t value, int count) {
  for (int i = 0; i < count; ++i) bytes[at + i] = static_cast<std::byte>(value >> 8 * i);
}

Bytes bmp(int width, int height, int bits, const std::vector<uint32_t>& masks,
          const std::string& pixels, const std::vector<uint32_t>& palette = {}) {
  const size_t offset = 54 + 4 * (masks.size() + palette.size());
  Bytes file(offset);
  file[0] = std::byte{'B'};
  file[1] = std::byte{'M'};
  put(file, 10, static_cast<uint32_t>(offset), 4);
  put(file, 14, 40, 4);
  put(file, 18, static_cast<uint32_t>(width), 4);
  put(file, 22, static_cast<uint32_t>(height), 4);
  put(file, 26, 1, 2);
  put(file, 28, static_cast<uint32_t>(bits), 2);
  put(file, 30, masks.empty() ? 0 : 3, 4);
  put(file, 46, static_cast<uint32_t>(palette.size()), 4);
  size_t at = 54;
  for (const uint32_t mask : masks) put(file, at, mask, 4), at += 4;
  for (const uint32_t color : palette) put(file, at, color, 4), at += 4;
  for (const char c : pixels) file.push_back(static_cast<std::byte>(c));
  return file;
}

TEST(Decode, BmpVariants) {
  using Rgb = std::vector<uint8_t>;
  // Five bits of red are 31 -> 255, three are value * 255 / 31 cut off, as in Pillow.
  EXPECT_EQ(decode(bmp(1, 1, 16, {}, std::string("\x1c\x7c\0\0", 4))).rgb, (Rgb{255, 0, 230}));
  EXPECT_EQ(decode(bmp(1, 1, 16, {0xf800, 0x7e0, 0x1f}, std::string("\xe0\x07\0\0", 4))).rgb,
            (Rgb{0, 255, 0}));
  EXPECT_EQ(decode(bmp(1, 1, 32, {}, "\x01\x02\x03\x04")).rgb, (Rgb{3, 2, 1}));
  EXPECT_EQ(decode(bmp(1, 1, 32, {0xff, 0xff00, 0xff0000}, "\x01\x02\x03\x04")).rgb,
            (Rgb{1, 2, 3}));
  // Bottom-up, then top-down; one bit a pixel.
  const std::vector<uint32_t> palette = {0x102030, 0xa0b0c0};
  const std::string rows("\x40\0\0\0\x80\0\0\0", 8);
  const Rgb dark = {0x10, 0x20, 0x30}, light = {0xa0, 0xb0, 0xc0};
  const auto joined = [](std::vector<Rgb> parts) {
    Rgb all;
    for (const Rgb& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  };
  EXPECT_EQ(decode(bmp(2, 2, 1, {}, rows, palette)).rgb, joined({light, dark, dark, light}));
  EXPECT_EQ(decode(bmp(2, -2, 1, {}, rows, palette)).rgb, joined({dark, light, light, dark}));
  EXPECT_EQ(decode(bmp(3, 1, 4, {}, std::string("\x10\x20\0\0", 4), palette)).rgb,
            joined({light, dark, {2, 2, 2}}));  // a colour that the palette lacks: gray
}

// A four-channel JPEG is CMYK with or without its Adobe segment: PIL shows both alike.
TEST(Decode, CmykJpegWithoutAdobeSegment) {
  Bytes file = image_bytes("cmyk.jpg");
  const ImageU8 with = decode(file);
  const auto view = std::string(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t segment = view.find("\xff\xee");
  ASSERT_NE(segment, std::string::npos);
  ASSERT_EQ(view.compare(segment + 4, 5, "Adobe"), 0);
  file.erase(file.begin() + static_cast<int64_t>(segment),
             file.begin() + static_cast<int64_t>(segment) + 16);
  EXPECT_EQ(decode(file).rgb, with.rgb);
}

TEST(ImageFactories, FromFileNamesAndErrors) {
  const std::string name = "a photo – naïve café 图.png";
  const Image image = Image::from_file(test::image_path(name));
  EXPECT_EQ(image.width(), 23);
  EXPECT_EQ(image.height(), 14);
  EXPECT_EQ(image.rgb().size(), 23u * 14 * 3);
  EXPECT_NE(image.name().find(name), std::string::npos);
  const Image copy = image;
  EXPECT_EQ(copy.rgb().data(), image.rgb().data());
  test::expect_error(ErrorCode::not_found, {"absent.png"},
                     [] { Image::from_file(test::image_path("absent.png")); });
  test::expect_error(ErrorCode::invalid_argument, {"images"},
                     [] { Image::from_file(test::image_path("")); });
}

TEST(ImageFactories, FromRgbChecksItsSize) {
  const std::vector<uint8_t> rgb(12, 5);
  EXPECT_EQ(Image::from_rgb(2, 2, rgb, "x").name(), "x");
  for (const auto& [w, h] : std::vector<std::pair<int, int>>{
           {2, 1}, {0, 4}, {-2, -2}, {4, 0}, {1 << 30, 1 << 30}, {2147483647, 2147483647}}) {
    test::expect_error(ErrorCode::invalid_argument, {"12"}, [&] { Image::from_rgb(w, h, rgb); });
  }
}

}  // namespace
}  // namespace pali
