// What comes before the model: tokenizers, decoded and resized images, pixel values, and resized
// position embeddings, against SentencePiece, transformers, Pillow and SciPy.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "image/image.hpp"
#include "model/vision.hpp"
#include "pali/image.hpp"
#include "parity/golden.hpp"
#include "text/tokenizer.hpp"

namespace pali::parity {
namespace {

// ---- tokenizers

class T5Tokenizer : public ::testing::TestWithParam<std::string> {};

TEST_P(T5Tokenizer, AgreesWithItsReference) {
  const Golden golden = Golden::of_files("tokenizers/" + GetParam() + "/golden.json", "");
  const Json& json = golden.json();
  TokenizerOptions options;
  options.extra_ids = json["extra_ids"].get<int>();
  const Tokenizer tokenizer =
      Tokenizer::open(data_dir() / "tokenizers" / GetParam() / "spiece.model", options);
  EXPECT_EQ(tokenizer.size(), json["pieces"].get<int>() + options.extra_ids);
  for (const Json& item : json["cases"]) {
    const std::string text = item["text"].get<std::string>();
    const std::vector<int32_t> found = tokenizer.encode(text);
    std::vector<int32_t> spm = ids(item["spm_ids"]), hf = ids(item["hf_ids"]);
    hf.pop_back();  // </s>
    // Sentinels are transformers' (SentencePiece does not know them); for all else SentencePiece is
    // the authority: transformers also takes "</s>" in a text for the token, and splits at white
    // space that a model without a character map keeps.
    const bool sentinel = options.extra_ids > 0 && text.find("<extra_id_") != std::string::npos &&
                          text.find("<extra_id_100>") == std::string::npos;
    EXPECT_EQ(found, sentinel ? hf : spm) << GetParam() << " \"" << text << "\"";
    if (!sentinel) {
      EXPECT_EQ(tokenizer.decode(spm), item["spm_decoded"].get<std::string>())
          << GetParam() << " \"" << text << "\"";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, T5Tokenizer, ::testing::Values("t5", "mt5", "small"),
                         [](const auto& test) { return test.param; });

TEST(SiglipTokenizer, AgreesWithTransformers) {
  const Golden golden = Golden::of_files("tokenizers/siglip/golden.json", "");
  const Json& json = golden.json();
  const Tokenizer tokenizer = Tokenizer::open(data_dir() / "tokenizers/siglip/spiece.model");
  for (const Json& item : json["cases"]) {
    const std::string text = item["text"].get<std::string>();
    if (text.find("</s>") != std::string::npos) continue;  // transformers takes it for the token
    EXPECT_EQ(siglip_encode(tokenizer, text, json["length"].get<int>(), 1), ids(item["hf_ids"]))
        << '"' << text << '"';
  }
}

// ---- images

TEST(Images, DecodeAsPillow) {
  const Golden golden = Golden::of_files("images/golden.json", "images/decoded.golden.safetensors");
  for (const Json& item : golden.json()["files"]) {
    const std::string name = item["file"].get<std::string>();
    const Image image = Image::from_file(image_file(name));
    EXPECT_EQ(image.width(), item["width"].get<int>()) << name;
    EXPECT_EQ(image.height(), item["height"].get<int>()) << name;
    const auto expected = golden.bytes(name), found = image.rgb();
    ASSERT_EQ(found.size(), expected.size()) << name;
    double sum = 0;
    int worst = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      const int difference = std::abs(int{found[i]} - int{expected[i]});
      sum += difference;
      worst = std::max(worst, difference);
    }
    if (item["exact"].get<bool>()) {
      EXPECT_EQ(worst, 0) << name;
    } else {
      // JPEG decoders differ in the inverse transform and in how chroma is enlarged.
      record("jpeg mean levels", sum / static_cast<double>(found.size()));
      record("jpeg largest level", worst);
      EXPECT_LT(sum / static_cast<double>(found.size()), 1.5) << name;
      EXPECT_LT(worst, 24) << name;
    }
  }
}

// "37x53" -> {37, 53}
std::pair<int, int> size_of(const std::string& text) {
  const auto x = text.find('x');
  return {std::stoi(text.substr(0, x)), std::stoi(text.substr(x + 1))};
}

TEST(Images, ResizeAsPillow) {
  const Golden golden = Golden::of_files("", "images/resize.golden.safetensors");
  int count = 0;
  for (const char* filter : {"bicubic", "bilinear"}) {
    for (const std::string& name : golden.names(std::string(filter) + "/")) {
      const std::string from = name.substr(0, name.find('/')), to = name.substr(name.find('/') + 1);
      const auto [width, height] = size_of(from);
      const auto [new_width, new_height] = size_of(to);
      const ImageU8 out =
          resize(width, height, golden.bytes("in/" + from), new_width, new_height,
                 filter == std::string("bicubic") ? Resample::bicubic : Resample::bilinear);
      const auto expected = golden.bytes(std::string(filter) + "/" + name);
      EXPECT_TRUE(std::equal(out.rgb.begin(), out.rgb.end(), expected.begin(), expected.end()))
          << filter << ' ' << name;
      ++count;
    }
  }
  EXPECT_EQ(count, 60);
}

TEST(Images, PixelsAsTheImageProcessor) {
  const Golden golden = Golden::of_files("", "images/pixels.golden.safetensors");
  int count = 0;
  for (const std::string& name : golden.names("siglip/")) {
    const auto slash = name.find('/');
    Preprocessing how;
    how.size = std::stoi(name.substr(0, slash));
    const Image image = Image::from_file(image_file(name.substr(slash + 1)));
    expect_stage(name, "pixels", flat(preprocess(image, how).view()),
                 golden.values("siglip/" + name));
    ++count;
  }
  EXPECT_EQ(count, 4);
}

// ---- position embeddings

TEST(Positions, ResizeAsBigVision) {
  const Golden golden = Golden::of_files("posemb.golden.json", "posemb.golden.safetensors");
  int count = 0;
  for (const Json& item : golden.json()["cases"]) {
    const auto in = item["in"].get<std::vector<int64_t>>(),
               out = item["out"].get<std::vector<int64_t>>();
    if (in[0] != in[1] || out[0] != out[1]) continue;  // the engine's grids are square
    const std::string name = item["name"].get<std::string>();
    const StoredTensor& stored = golden.tensor(name + "/in");
    const int64_t width = stored.shape.back();
    const Tensor resized =
        resize_positions({golden.values(name + "/in").data(), in[0] * in[1], width}, in[0], out[0]);
    ASSERT_EQ(resized.rows(), out[0] * out[1]) << name;
    std::vector<float> found;
    for (const Json& row : item["rows"]) {
      const auto part = flat(resized.view().rows_from(row.get<int64_t>() * out[1], out[1]));
      found.insert(found.end(), part.begin(), part.end());
    }
    const double error = relative_error(found, golden.values(name + "/out"));
    record("resized positions", error);
    EXPECT_LE(error, 1e-6) << name;  // three f32 roundings
    ++count;
  }
  EXPECT_EQ(count, 7);
}

}  // namespace
}  // namespace pali::parity
