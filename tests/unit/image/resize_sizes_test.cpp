// 200 pictures of random sizes against Pillow and TensorFlow (tools/golden/make_resize.py): not one
// pixel may differ.
#include <gtest/gtest.h>
#include <zlib.h>

#include "samples.hpp"

namespace pali {
namespace {

// The generator's pictures, integer by integer.
std::vector<uint8_t> picture(int64_t width, int64_t height, int64_t seed) {
  std::vector<uint8_t> rgb;
  rgb.reserve(static_cast<size_t>(width * height * 3));
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t hash =
            (x * 73856093 ^ y * 19349663 ^ c * 83492791 ^ (seed + 1) * 40503) & 0xffffffff;
        const int64_t noise = ((hash * 1103515245 + 12345) & 0xffffffff) >> 24;
        int64_t value = (x / 11 + y / 13) % 7 * 36 + c * 7;
        if (seed % 3 == 0) value = noise;
        if (seed % 3 == 1) {
          value = std::min<int64_t>(x * 240 / width + y * 10 / height + noise / 32 + c, 255);
        }
        rgb.push_back(static_cast<uint8_t>(value));
      }
    }
  }
  return rgb;
}

int64_t checksum(std::span<const uint8_t> bytes) {
  return static_cast<int64_t>(::crc32_z(0, bytes.data(), bytes.size()));
}

TEST(ResizeSizes, EqualPillowAndTensorFlow) {
  const Json golden = read_json_file(test::image_path("resize_sizes.golden.json"));
  int cases = 0;
  for (const Json& each : golden["cases"]) {
    const int width = each["width"], height = each["height"], side = each["side"];
    const std::vector<uint8_t> rgb = picture(width, height, each["seed"]);
    ASSERT_EQ(checksum(rgb), each["in"].get<int64_t>());
    const auto expect = [&](const char* name, const ImageU8& out) {
      EXPECT_EQ(checksum(out.rgb), each[name].get<int64_t>())
          << name << ": " << width << " x " << height << " to " << side;
      ++cases;
    };
    expect("bicubic", resize(width, height, rgb, side, side, Resample::bicubic));
    expect("bilinear", resize(width, height, rgb, side, side, Resample::bilinear));
    expect("bv", resize_float(width, height, rgb, side, side, Antialias::no));
    expect("bv-aa", resize_float(width, height, rgb, side, side, Antialias::yes));
  }
  EXPECT_EQ(cases, 800);
}

// Numbers of SiglipImageProcessor give big_vision's value_range(-1, 1).
TEST(Preprocess, LevelsAreThoseOfBothReferences) {
  std::vector<uint8_t> rgb(16 * 16 * 3);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i / 3);
  Preprocessing how;
  how.size = 16;
  const Tensor pixels = preprocess(Image::from_rgb(16, 16, rgb), how);
  for (int level = 0; level < 256; ++level) {
    const float zero_to_one = static_cast<float>(level) / 255.0f;
    EXPECT_EQ(pixels.row(1)[level], -1.0f + zero_to_one * 2.0f) << level;
  }
}

TEST(Preprocess, PipelinesAreNamed) {
  for (const Pipeline each : {Pipeline::hf, Pipeline::bv, Pipeline::bv_aa}) {
    EXPECT_EQ(parse_pipeline(pipeline_name(each)), each);
  }
  EXPECT_STREQ(pipeline_name(Pipeline::bv_aa), "bv-aa");
  EXPECT_EQ(parse_pipeline("bv_aa"), std::nullopt);
}

}  // namespace
}  // namespace pali
