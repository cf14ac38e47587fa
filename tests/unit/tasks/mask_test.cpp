// The mask decoder against PyTorch, pasting against Pillow, run lengths against pycocotools
// (tools/golden/make_masks.py).
#include "tasks/mask.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "io/json.hpp"
#include "support/expect_error.hpp"
#include "support/paths.hpp"
#include "tasks/mask_decoder.hpp"

namespace pali {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

const fs::path kFolder = test::data("masks");

MaskCodes codes_of(const Json& list) {
  MaskCodes codes{};
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = list[i].get<uint8_t>();
  return codes;
}

std::vector<float> golden_mask(const WeightStore& golden, size_t index) {
  const StoredTensor* tensor = golden.find("mask" + std::to_string(index));
  std::vector<float> values(static_cast<size_t>(kMaskSide) * kMaskSide);
  EXPECT_NE(tensor, nullptr);
  if (tensor != nullptr) std::memcpy(values.data(), tensor->data, values.size() * sizeof(float));
  return values;
}

TEST(MaskDecoder, MasksOfPyTorch) {
  const MaskDecoder decoder = MaskDecoder::open(kFolder / "vae-oid.npz");
  const WeightStore golden = WeightStore::open_safetensors(kFolder / "masks.golden.safetensors");
  const Json cases = read_json_file(kFolder / "golden.json")["codes"];
  ASSERT_GE(cases.size(), 9u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<float> mask = decoder.decode(codes_of(cases[i]));
    const std::vector<float> expected = golden_mask(golden, i);
    ASSERT_EQ(mask.size(), expected.size());
    for (size_t at = 0; at < mask.size(); ++at) {
      // Sums of up to 16 * 9 products of size one, in float: 144 * 2^-24 * 11 layers.
      ASSERT_NEAR(mask[at], expected[at], 1e-4) << i << " at " << at;
    }
  }
}

TEST(Mask, PastedAsPillowDoesIt) {
  const WeightStore golden = WeightStore::open_safetensors(kFolder / "masks.golden.safetensors");
  const Json cases = read_json_file(kFolder / "golden.json")["cases"];
  for (size_t i = 0; i < cases.size(); ++i) {
    const Json& one = cases[i];
    const int width = one["width"], height = one["height"];
    Box box;
    box.x0 = one["place"][0].get<int>() / 1023.0 * width;
    box.y0 = one["place"][1].get<int>() / 1023.0 * height;
    box.x1 = one["place"][2].get<int>() / 1023.0 * width;
    box.y1 = one["place"][3].get<int>() / 1023.0 * height;
    const Mask mask = paste_mask(golden_mask(golden, i), box, width, height);
    EXPECT_EQ(mask.counts, one["counts"].get<std::vector<uint32_t>>()) << i;
    EXPECT_EQ(coco_counts(mask), one["coco"].get<std::string>()) << i;
    uint64_t pixels = 0;
    for (const uint32_t count : mask.counts) pixels += count;
    EXPECT_EQ(pixels, static_cast<uint64_t>(width) * static_cast<uint64_t>(height));
  }
}

TEST(Mask, RunsStayWithinTheirColumns) {
  const Mask mask{3, 4, {2, 5, 3, 2}};  // column-major: pixels 2 .. 6, 10 and 11
  std::string seen;
  for_each_run(mask, [&](int x, int y, int count) {
    seen += std::to_string(x) + "," + std::to_string(y) + "+" + std::to_string(count) + " ";
  });
  EXPECT_EQ(seen, "0,2+2 1,0+3 2,2+2 ");
  int rows = 0;
  for_each_run(Mask{2, 2, {0, 4000000000u, 1, 7}}, [&](int, int, int count) { rows += count; });
  EXPECT_EQ(rows, 4);
  EXPECT_EQ(coco_counts(Mask{2, 2, {4}}), "4");
}

TEST(Mask, AnyBoxFitsThePicture) {
  const std::vector<float> inside(static_cast<size_t>(kMaskSide) * kMaskSide, 1.0f);
  Box box;
  box.x0 = -5, box.y0 = 1, box.x1 = 900, box.y1 = 3;
  EXPECT_EQ(paste_mask(inside, box, 2, 4).counts, (std::vector<uint32_t>{1, 2, 2, 2, 1}));
  box.x1 = -1;
  EXPECT_EQ(paste_mask(inside, box, 2, 4).counts, (std::vector<uint32_t>{8}));
  box = {};
  box.x1 = 70000, box.y1 = 1;
  EXPECT_EQ(paste_mask(inside, box, 70000, 1).counts, (std::vector<uint32_t>{0, 70000}));
}

// What is wrong with a file is said in one line; what the encoder needs is not asked for.
class DamagedDecoder : public testing::Test {
 protected:
  // The good file with one tensor changed.
  template <class Change>
  void fails(std::initializer_list<std::string_view> parts, Change change) {
    const WeightStore good = WeightStore::open_npz(kFolder / "vae-oid.npz");
    WeightStore store;
    for (const auto& [name, tensor] : good.tensors()) {
      std::string kept = name;
      std::vector<int64_t> shape = tensor.shape;
      DType dtype = tensor.dtype;
      std::vector<std::byte> bytes(static_cast<size_t>(tensor.bytes));
      if (tensor.data != nullptr) {
        std::memcpy(bytes.data(), tensor.data, bytes.size());
      } else {
        tensor.unpack(bytes);
      }
      change(kept, shape, bytes);
      const std::span<std::byte> to = store.add_owned(kept, dtype, shape);
      std::memcpy(to.data(), bytes.data(), std::min(to.size(), bytes.size()));
    }
    expect_error(ErrorCode::corrupt_file, parts, [&] { MaskDecoder::from_store(store); });
  }
};

TEST_F(DamagedDecoder, SaysWhatIsWrong) {
  using Shape = std::vector<int64_t>;
  using Bytes = std::vector<std::byte>;
  fails({"decoder.6.weight", "missing"}, [](std::string& name, Shape&, Bytes&) {
    if (name == "decoder.6.weight") name = "other";
  });
  fails({"decoder.3.net.2.bias", "expected", "[16]", "[4, 4]"},
        [](std::string& name, Shape& shape, Bytes&) {
          if (name == "decoder.3.net.2.bias") shape = {4, 4};
        });
  fails({"_vq_vae._embedding", "[128, ?]"}, [](std::string& name, Shape& shape, Bytes&) {
    if (name == "_vq_vae._embedding") shape = {64, 12};
  });
  fails({"decoder.0.bias", "not finite"}, [](std::string& name, Shape&, Bytes& bytes) {
    const float nan = std::nanf("");
    if (name == "decoder.0.bias") std::memcpy(bytes.data(), &nan, sizeof nan);
  });
  expect_error(ErrorCode::not_found, {"vae-oid.npz"},
               [] { MaskDecoder::open(kFolder / "none.npz"); });
}

TEST(MaskDecoder, FoundBesideTheModel) {
  EXPECT_EQ(MaskDecoder::find_beside(kFolder), kFolder / "vae-oid.npz");
  EXPECT_EQ(MaskDecoder::find_beside(kFolder / "golden.json"), kFolder / "vae-oid.npz");
  EXPECT_TRUE(MaskDecoder::find_beside(test::data("images")).empty());
}

// PALI_MASK_DECODER: a file of the true shapes, which make_masks.py --full wrote beside its .json.
TEST(MaskDecoder, TrueShapes) {
  const char* given = std::getenv("PALI_MASK_DECODER");
  if (given == nullptr) GTEST_SKIP() << "PALI_MASK_DECODER is not set";
  const MaskDecoder decoder = MaskDecoder::open(given);
  const Json golden = read_json_file(fs::path(given).replace_extension(".json"), 1 << 28);
  for (size_t i = 0; i < golden["codes"].size(); ++i) {
    const std::vector<float> mask = decoder.decode(codes_of(golden["codes"][i]));
    double worst = 0;
    for (size_t at = 0; at < mask.size(); ++at) {
      worst = std::max(worst, std::abs(mask[at] - golden["masks"][i][at].get<double>()));
    }
    EXPECT_LT(worst, 1e-3);
    RecordProperty("worst", std::to_string(worst));
  }
}

}  // namespace
}  // namespace pali
