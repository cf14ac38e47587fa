#include "image/encode.hpp"

#include <algorithm>
#include <filesystem>

#include "samples.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

TEST(WritePng, ReadsBackTheSame) {
  const test::TempFolder folder;
  const std::filesystem::path path = folder / "a picture é.png";
  for (const auto& [w, h] : std::vector<std::pair<int, int>>{{1, 1}, {37, 5}, {3, 200}}) {
    ImageU8 image{w, h, {}};
    for (int i = 0; i < w * h * 3; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 73 + i / 7));
    write_png(path, image);
    const Image back = Image::from_file(path);
    EXPECT_EQ(back.width(), w);
    EXPECT_EQ(back.height(), h);
    EXPECT_TRUE(std::equal(image.rgb.begin(), image.rgb.end(), back.rgb().begin()));
  }
}

TEST(WritePng, AFolderThatIsNotThereIsAnError) {
  const test::TempFolder folder;
  const ImageU8 image{1, 1, {1, 2, 3}};
  test::expect_error(ErrorCode::invalid_argument, {"absent"},
                     [&] { write_png(folder / "absent/x.png", image); });
}

}  // namespace
}  // namespace pali
