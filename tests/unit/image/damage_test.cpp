// Files cut short, with bits turned over, with hostile headers: an Error or a picture, never a
// crash, a hang or memory beyond a bound. Run under AddressSanitizer by the sanitizer build.
#include <sys/resource.h>

#include <algorithm>
#include <random>

#include "image/image.hpp"
#include "samples.hpp"

namespace pali {
namespace {

using test::Bytes;
using test::bytes_of;
using test::decode;
using test::image_bytes;

const char* const kFiles[] = {
    "gray.jpg",       "rgb420.jpg", "progressive.jpg", "cmyk.jpg",       "exif6.jpg",
    "rgb_37x53.png",  "rgba.png",   "palette.png",     "rgb16.png",      "palette_transparent.png",
    "interlaced.png", "gray1.png",  "rgb.bmp",         "two_frames.gif", "rgb.ppm",
    "gray.pgm"};

TEST(Damage, CutAnywhereIsAnError) {
  for (const char* name : kFiles) {
    const Bytes file = image_bytes(name);
    ASSERT_NO_THROW(decode(file)) << name;
    for (size_t size = 0; size < file.size(); ++size) {
      try {
        decode_image({file.data(), size}, {}, name);
        // BMP: the padding of the last row may be missing.
        const bool padding = std::string_view(name) == "rgb.bmp" && size + 3 >= file.size();
        ASSERT_TRUE(padding) << name << " cut to " << size << " of " << file.size();
      } catch (const Error& error) {
        EXPECT_TRUE(error.code() == ErrorCode::corrupt_file ||
                    (error.code() == ErrorCode::unsupported && size < 26))
            << name << " cut to " << size << ": " << error.what();
      }
    }
  }
}

void put_be(Bytes& file, size_t at, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    file[at + i] = static_cast<std::byte>(value >> 8 * (bytes - 1 - i));
  }
}
uint32_t png_crc(const Bytes& file, size_t at, size_t count) {
  uint32_t crc = ~0u;
  for (size_t i = at; i < at + count; ++i) {
    crc ^= static_cast<uint32_t>(file[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? 0xedb88320u ^ (crc >> 1) : crc >> 1;
  }
  return ~crc;
}

// Makes the checksums of a PNG's chunks right again, so that damage reaches the decoder.
void mend_checksums(Bytes& file) {
  for (size_t at = 8; at + 12 <= file.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<size_t>(file[at + i]);
    if (length > file.size() - at - 12) return;
    put_be(file, at + 8 + length, png_crc(file, at + 4, length + 4), 4);
    at += 12 + length;
  }
}

// Returns whether there was a picture; anything but a sound picture or an Error fails.
bool survives(const Bytes& file) {
  try {
    ImageOptions options;
    options.max_pixels = 1 << 20;
    const ImageU8 image = decode(file, options);
    EXPECT_GE(image.width, 1);
    EXPECT_GE(image.height, 1);
    EXPECT_EQ(image.rgb.size(), static_cast<size_t>(image.width) * image.height * 3);
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    EXPECT_NE(error.code(), ErrorCode::internal) << error.what();
    return false;
  }
}

TEST(Damage, AnyBitTurnedOver) {
  int pictures = 0, errors = 0;
  for (const char* name : kFiles) {
    const Bytes file = image_bytes(name);
    // Every bit of the first 64 bytes, then one in about 1500 bits spread over the file.
    const size_t bits = file.size() * 8, step = std::max<size_t>(bits / 1500, 1) | 1;
    for (size_t bit = 0; bit < bits; bit += bit < 512 ? 1 : step) {
      Bytes broken = file;
      broken[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      survives(broken) ? ++pictures : ++errors;
      if (std::string_view(name).ends_with("png")) {
        mend_checksums(broken);
        survives(broken) ? ++pictures : ++errors;
      }
    }
  }
  EXPECT_GT(pictures, 0);
  EXPECT_GT(errors, 0);
}

TEST(Damage, RunsOfRandomBytes) {
  std::mt19937 random(20240917);
  for (const char* name : kFiles) {
    const Bytes file = image_bytes(name);
    for (int round = 0; round < 150; ++round) {
      Bytes broken = file;
      for (int hit = round % 4; hit >= 0; --hit) {
        const size_t at = random() % broken.size(), count = 1 + random() % 12;
        switch (random() % 3) {
          case 0:
            for (size_t i = at; i < std::min(at + count, broken.size()); ++i) {
              broken[i] = static_cast<std::byte>(random());
            }
            break;
          case 1:
            broken.erase(
                broken.begin() + static_cast<int64_t>(at),
                broken.begin() + static_cast<int64_t>(std::min(at + count, broken.size() - 1)));
            break;
          default:
            broken.insert(broken.begin() + static_cast<int64_t>(at), count,
                          static_cast<std::byte>(random()));
        }
        if (broken.empty()) broken.push_back({});
      }
      survives(broken);
      if (std::string_view(name).ends_with("png")) {
        mend_checksums(broken);
        survives(broken);
      }
    }
  }
}

int64_t peak_kilobytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

void put_le(Bytes& file, size_t at, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) file[at + i] = static_cast<std::byte>(value >> 8 * i);
}

// The small pictures with headers that claim `side` x `side` pixels.
std::vector<std::pair<std::string, Bytes>> with_claimed_side(uint32_t side) {
  std::vector<std::pair<std::string, Bytes>> files;
  Bytes png = image_bytes("rgb_37x53.png");
  put_be(png, 16, side, 4);
  put_be(png, 20, side, 4);
  put_be(png, 29, png_crc(png, 12, 17), 4);
  files.emplace_back("PNG", png);
  for (const char* name : {"rgb420.jpg", "progressive.jpg"}) {
    Bytes jpeg = image_bytes(name);
    const std::string view(reinterpret_cast<const char*>(jpeg.data()), jpeg.size());
    const size_t frame = std::min(view.find("\xff\xc0"), view.find("\xff\xc2"));
    put_be(jpeg, frame + 5, side, 2);
    put_be(jpeg, frame + 7, side, 2);
    files.emplace_back(name, jpeg);
  }
  Bytes bmp = image_bytes("rgb.bmp");
  put_le(bmp, 18, side, 4);
  put_le(bmp, 22, side, 4);
  files.emplace_back("BMP", bmp);
  Bytes gif = image_bytes("two_frames.gif");
  put_le(gif, 6, side, 2);
  put_le(gif, 8, side, 2);
  files.emplace_back("GIF", gif);
  const std::string text = std::to_string(side);
  files.emplace_back("PNM", bytes_of("P6\n" + text + " " + text + "\n255\nabc"));
  return files;
}

TEST(Damage, ClaimedSizesAreCheckedBeforeAllocating) {
  const int64_t before = peak_kilobytes();
  for (const auto& [format, file] : with_claimed_side(30000)) {
    SCOPED_TRACE(format);
    test::expect_error(ErrorCode::invalid_argument, {"30000x30000", "178956970", "--max-pixels"},
                       [&file = file] { decode(file); });
  }
  // Within the limit, but far more than the bytes can hold. A GIF's screen may be larger than its
  // frame, so that one is a picture.
  ImageOptions options;
  options.max_pixels = 1 << 30;
  for (const auto& [format, file] : with_claimed_side(20000)) {
    if (format == "GIF") continue;
    SCOPED_TRACE(format);
    test::expect_error(ErrorCode::corrupt_file, {"picture", "cut short"},
                       [&file = file, &options] { decode(file, options); });
  }
  EXPECT_LT(peak_kilobytes() - before, 64 * 1024);
}

TEST(Damage, LimitIsInclusive) {
  ImageOptions options;
  options.max_pixels = 37 * 53;
  EXPECT_NO_THROW(decode(image_bytes("rgb_37x53.png"), options));
  options.max_pixels = 37 * 53 - 1;
  test::expect_error(ErrorCode::invalid_argument, {"37x53", "1960"},
                     [&] { decode(image_bytes("rgb_37x53.png"), options); });
}

// A deflate stream that goes on far beyond the picture: the decoder's buffer is bounded.
TEST(Damage, DeflateBombIsRefused) {
  Bytes png = image_bytes("one_pixel.png");
  const std::string view(reinterpret_cast<const char*>(png.data()), png.size());
  const size_t data = view.find("IDAT");
  png.resize(data - 4);
  // zlib header, one fixed-Huffman block: a literal, then copies of 258 bytes at distance 1
  // (code 11000101, distance 00000): 13 bits each, so 13 bytes hold 8 copies.
  std::vector<uint8_t> stream = {0x78, 0x01};
  uint32_t held = 0, buffer = 0;
  const auto bits = [&](uint32_t value, int count) {
    for (int i = 0; i < count; ++i) {
      buffer |= (value >> i & 1) << held++;
      if (held == 8) {
        stream.push_back(static_cast<uint8_t>(buffer));
        held = buffer = 0;
      }
    }
  };
  const auto code = [&](uint32_t value, int count) {  // Huffman codes go from the high bit on
    for (int i = count - 1; i >= 0; --i) bits(value >> i & 1, 1);
  };
  bits(3, 3);     // last block, fixed codes
  code(0x30, 8);  // literal 0
  for (int copy = 0; copy < 2'000'000; ++copy) {
    code(0xc5, 8);  // length 258
    code(0, 5);     // distance 1
  }
  code(0, 7);
  bits(0, 7);
  const auto append = [&png](const char* kind, const std::vector<uint8_t>& content) {
    const size_t at = png.size();
    png.resize(at + 12 + content.size());
    put_be(png, at, static_cast<uint32_t>(content.size()), 4);
    std::memcpy(&png[at + 4], kind, 4);
    if (!content.empty()) std::memcpy(&png[at + 8], content.data(), content.size());
    put_be(png, at + 8 + content.size(), png_crc(png, at + 4, content.size() + 4), 4);
  };
  append("IDAT", stream);
  append("IEND", {});
  const int64_t before = peak_kilobytes();
  test::expect_error(ErrorCode::corrupt_file, {"picture"}, [&] { decode(png); });
  EXPECT_LT(peak_kilobytes() - before, 64 * 1024);  // it would unfold to 500 MB
}

TEST(Damage, JpegWithEndlessScansIsRefused) {
  const Bytes file = image_bytes("gray.jpg");
  const std::string view(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t scan = view.rfind("\xff\xda");
  std::string many = view.substr(0, scan);
  for (int i = 0; i < 200; ++i) many += view.substr(scan, view.size() - 2 - scan);
  test::expect_error(ErrorCode::corrupt_file, {"scans"},
                     [&] { decode(bytes_of(many + "\xff\xd9")); });
}

// stb_image 2.27 would write past its tables here, or read tables that nobody defined.
TEST(Damage, JpegTablesAreCheckedBeforeTheDecoderSeesThem) {
  const Bytes file = image_bytes("rgb444.jpg");
  const std::string view(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t huffman = view.find("\xff\xc4"), quantisation = view.find("\xff\xdb");
  ASSERT_NE(huffman, std::string::npos);
  ASSERT_NE(quantisation, std::string::npos);
  Bytes full = file;
  for (size_t i = 0; i < 16; ++i) full[huffman + 5 + i] = std::byte{255};
  test::expect_error(ErrorCode::corrupt_file, {"Huffman table"}, [&] { decode(full); });
  for (const size_t at : {huffman, quantisation}) {
    Bytes without = file;
    without[at + 1] = std::byte{0xfe};  // the segment becomes a comment
    test::expect_error(ErrorCode::corrupt_file, {"table it does not have"},
                       [&] { decode(without); });
  }
}

// A plane of 2/3 of the width: stb_image 2.27 would read beyond it.
TEST(Damage, JpegSamplingFactorsThatDoNotDivideAreRefused) {
  Bytes file = image_bytes("rgb444.jpg");
  const std::string view(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t frame = view.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  for (const int sampling : {0x31, 0x13, 0x00, 0x51}) {
    file[frame + 11] = static_cast<std::byte>(sampling);
    file[frame + 14] = std::byte{0x22};
    test::expect_error(ErrorCode::corrupt_file, {"sampling"}, [&] { decode(file); });
  }
}

TEST(Damage, PngChecksumsAreChecked) {
  Bytes file = image_bytes("rgb_37x53.png");
  file[file.size() - 30] ^= std::byte{1};
  test::expect_error(ErrorCode::corrupt_file, {"checksum"}, [&] { decode(file); });
}

TEST(Damage, OtherFormatsAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {std::string("RIFF\x10\0\0\0WEBPVP8 ", 16), "WebP"},
      {std::string("\0\0\0\x1c"
                   "ftypavif\0\0\0\0",
                   16),
       "AVIF"},
      {std::string("\0\0\0\x18"
                   "ftypheic\0\0\0\0",
                   16),
       "HEIC"},
      {std::string("II*\0\x08\0\0\0", 8), "TIFF"},
      {"%PDF-1.7\n", "PDF"},
      {"<svg xmlns=\"x\"/>", "SVG"},
      {"P3\n1 1\n255\n1 2 3\n", "P3"},
      {"P4\n8 1\n\xff", "P4"},
      {"P7\nWIDTH 1\n", "P7"}};
  for (const auto& [bytes, format] : cases) {
    test::expect_error(ErrorCode::unsupported, {format, "picture", "magick"},
                       [&bytes = bytes] { decode(bytes_of(bytes)); });
  }
  for (const std::string text : {"hello", "{}",
                                 "\x7f"
                                 "ELF",
                                 "P", "PK\x03\x04", "B"}) {
    test::expect_error(ErrorCode::unsupported, {"JPEG, PNG, BMP, GIF or PNM"},
                       [&] { decode(bytes_of(text)); });
  }
  test::expect_error(ErrorCode::corrupt_file, {"empty"}, [] { decode({}); });
}

}  // namespace
}  // namespace pali
