#include <algorithm>

#include "image/image.hpp"
#include "samples.hpp"

namespace pali {
namespace {

using test::Goldens;

std::string size_name(int width, int height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

TEST(Resize, EqualsPillowToTheLastBit) {
  const Goldens goldens("resize.golden.safetensors");
  int cases = 0;
  for (const SafetensorsEntry& entry : goldens.entries()) {
    if (entry.name.starts_with("in/")) continue;
    const size_t first = entry.name.find('/'), second = entry.name.rfind('/');
    const std::string filter = entry.name.substr(0, first);
    const std::string source = "in/" + entry.name.substr(first + 1, second - first - 1);
    const SafetensorsEntry& in = goldens.entry(source);
    const ImageU8 out =
        resize(static_cast<int>(in.shape[1]), static_cast<int>(in.shape[0]), goldens.u8(source),
               static_cast<int>(entry.shape[1]), static_cast<int>(entry.shape[0]),
               filter == "bicubic" ? Resample::bicubic : Resample::bilinear);
    const std::span<const uint8_t> expected = goldens.u8(entry.name);
    ASSERT_EQ(out.rgb.size(), expected.size()) << entry.name;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), out.rgb.begin())) << entry.name;
    ++cases;
  }
  EXPECT_EQ(cases, 60);
}

TEST(Resize, SameSizeIsACopy) {
  const std::vector<uint8_t> rgb = {1, 2, 3, 40, 50, 60, 255, 0, 7, 9, 8, 7, 1, 1, 1, 2, 2, 2};
  for (const Resample filter : {Resample::bilinear, Resample::bicubic}) {
    EXPECT_EQ(resize(3, 2, rgb, 3, 2, filter).rgb, rgb);
  }
}

TEST(Resize, FlatColourStaysFlatAtEverySize) {
  for (const Resample filter : {Resample::bilinear, Resample::bicubic}) {
    for (int w = 1; w < 40; w += 6) {
      for (int h = 1; h < 40; h += 6) {
        const std::vector<uint8_t> rgb(static_cast<size_t>(w) * h * 3, 173);
        const ImageU8 out = resize(w, h, rgb, 17, 5, filter);
        EXPECT_EQ(out.rgb, std::vector<uint8_t>(17 * 5 * 3, 173)) << size_name(w, h);
      }
    }
  }
}

// Wider than one round of coefficients: a pass in several rounds gives what one would.
TEST(Resize, VeryWidePicturesGoInRounds) {
  const int width = 3'000'001;
  std::vector<uint8_t> rgb(static_cast<size_t>(width) * 3);
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i / 3 * 240 / width);
  const ImageU8 out = resize(width, 1, rgb, 8, 1, Resample::bilinear);
  for (int x = 0; x < 8; ++x) {
    // A ramp's mean under a symmetric kernel is its value at the centre; the ends are one-sided.
    const double expected = x == 0 ? 17.5 : x == 7 ? 221.5 : 240 * (x + 0.5) / 8;
    EXPECT_NEAR(out.rgb[static_cast<size_t>(3 * x)], expected, 1.0) << x;
  }
}

TEST(Preprocess, EqualsSiglipProcessorToTheLastBit) {
  const Goldens goldens("pixels.golden.safetensors");
  int cases = 0;
  for (const SafetensorsEntry& entry : goldens.entries()) {
    const size_t first = entry.name.find('/'), second = entry.name.find('/', first + 1);
    Preprocessing how;
    how.size = std::stoi(entry.name.substr(first + 1));
    const Image image = Image::from_file(test::image_path(entry.name.substr(second + 1)));
    const Tensor pixels = preprocess(image, how);
    const std::vector<float> expected = goldens.f32(entry.name);
    ASSERT_EQ(pixels.rows(), 3);
    ASSERT_EQ(static_cast<size_t>(3 * pixels.cols()), expected.size()) << entry.name;
    for (int64_t c = 0; c < 3; ++c) {
      EXPECT_EQ(std::memcmp(pixels.row(c), expected.data() + c * pixels.cols(),
                            static_cast<size_t>(pixels.cols()) * 4),
                0)
          << entry.name << " channel " << c;
    }
    ++cases;
  }
  EXPECT_EQ(cases, 4);
}

// CLIP's: the shorter side resized, a square out of the middle; black around what is too small.
TEST(Preprocess, CropsAsClipProcessorDoes) {
  const Goldens goldens("crop.golden.safetensors");
  int cases = 0;
  for (const SafetensorsEntry& entry : goldens.entries()) {
    if (entry.name.starts_with("in/")) continue;
    const size_t first = entry.name.find('/'), second = entry.name.rfind('/');
    const std::string source = "in/" + entry.name.substr(0, first);
    Preprocessing how;
    how.fit = Fit::crop;
    how.resized = std::stoi(entry.name.substr(first + 1));
    how.size = std::stoi(entry.name.substr(second + 1));
    how.rescale = 1.0;
    std::fill(how.mean, how.mean + 3, 0.0f);
    std::fill(how.std, how.std + 3, 1.0f);
    const SafetensorsEntry& in = goldens.entry(source);
    const Image image = Image::from_rgb(static_cast<int>(in.shape[1]),
                                        static_cast<int>(in.shape[0]), goldens.u8(source));
    const Tensor pixels = preprocess(image, how);
    const std::span<const uint8_t> expected = goldens.u8(entry.name);
    ASSERT_EQ(static_cast<size_t>(3 * pixels.cols()), expected.size()) << entry.name;
    int64_t differ = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      differ += pixels.view().row(static_cast<int64_t>(i % 3))[i / 3] != expected[i] ? 1 : 0;
    }
    EXPECT_EQ(differ, 0) << entry.name;
    ++cases;
  }
  EXPECT_EQ(cases, 28);
}

// What would be 150 GB if all of it were made.
TEST(Preprocess, CropsTheThinnestPictures) {
  const int length = 1'000'000;
  const std::vector<uint8_t> rgb(static_cast<size_t>(length) * 3, 200);
  Preprocessing how;
  how.fit = Fit::crop;
  how.size = how.resized = 224;
  for (const auto& [width, height] : {std::pair(1, length), std::pair(length, 1)}) {
    const Tensor pixels = preprocess(Image::from_rgb(width, height, rgb), how);
    const float expected = (static_cast<float>(200 / 255.0) - 0.5f) / 0.5f;
    EXPECT_EQ(*std::min_element(pixels.row(1), pixels.row(1) + pixels.cols()), expected);
    EXPECT_EQ(*std::max_element(pixels.row(1), pixels.row(1) + pixels.cols()), expected);
  }
}

TEST(Preprocess, SaysWhichPartIsSeen) {
  Preprocessing how;
  how.size = 20;
  VisiblePart part = visible_part(how, 100, 40);
  EXPECT_EQ(part.x + part.y, 0);
  EXPECT_EQ(part.width, 100);
  EXPECT_EQ(part.height, 40);
  how.fit = Fit::crop;
  how.resized = 20;  // 50 x 20, of which columns 15 to 35
  part = visible_part(how, 100, 40);
  EXPECT_EQ(part.x, 30);
  EXPECT_EQ(part.y, 0);
  EXPECT_EQ(part.width, 40);
  EXPECT_EQ(part.height, 40);
  how.resized = 10;  // 10 x 20: five columns beyond either side
  part = visible_part(how, 40, 80);
  EXPECT_EQ(part.x, -20);
  EXPECT_EQ(part.y, 0);
  EXPECT_EQ(part.width, 80);
  EXPECT_EQ(part.height, 80);
  const Preprocessing larger = how.at(60);
  EXPECT_EQ(larger.size, 60);
  EXPECT_EQ(larger.resized, 30);
  how.pipeline = Pipeline::bv;  // stretches
  EXPECT_EQ(visible_part(how, 40, 80).width, 40);
}

TEST(Preprocess, MeanAndDeviationAreByChannel) {
  const std::vector<uint8_t> rgb = {0, 128, 255};
  Preprocessing how;
  how.size = 1;
  how.mean[1] = 0.25f;
  how.std[2] = 0.125f;
  const Tensor pixels = preprocess(Image::from_rgb(1, 1, rgb), how);
  EXPECT_EQ(pixels.row(0)[0], -1.0f);
  EXPECT_EQ(pixels.row(1)[0], (static_cast<float>(128 / 255.0) - 0.25f) / 0.5f);
  EXPECT_EQ(pixels.row(2)[0], 4.0f);
}

}  // namespace
}  // namespace pali
