// Opening folders and files, and writing pali checkpoints: same bits, clear refusals.
#include <gtest/gtest.h>

#include <fstream>

#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "support/paths.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = test::data("models");

std::vector<float> values(const Checkpoint& checkpoint) {
  std::vector<float> all;
  for (const auto& [name, tensor] : checkpoint.table.bound()) {
    const std::vector<float> own = checkpoint.table.values(name);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

TEST(Checkpoint, FoldersBecomeFilesWithTheSameBits) {
  TempFolder folder;
  for (const char* name : {"pali3", "pali3_bf16", "ul2_f16", "umt5", "t5_original",
                           "siglip_two_tower", "siglip_vision"}) {
    SCOPED_TRACE(name);
    const Checkpoint source = open_checkpoint(kModels / name);
    EXPECT_EQ(source.format, "huggingface");
    EXPECT_TRUE(source.warnings.empty()) << source.warnings[0];
    write_checkpoint(source, std::nullopt, folder / "out.safetensors");
    const Checkpoint copy = open_checkpoint(folder / "out.safetensors");
    EXPECT_EQ(copy.format, "pali");
    EXPECT_TRUE(copy.warnings.empty()) << copy.warnings[0];
    EXPECT_EQ(copy.config.family, source.config.family);
    EXPECT_EQ(copy.config.json, source.config.json);
    EXPECT_EQ(copy.table.parameters_by_dtype(), source.table.parameters_by_dtype());
    EXPECT_EQ(values(copy), values(source));
    ASSERT_EQ(copy.tokenizer.has_value(), source.tokenizer.has_value());
    if (source.tokenizer) {
      EXPECT_EQ(copy.tokenizer->size(), source.tokenizer->size());
      EXPECT_EQ(copy.tokenizer->encode("a cat"), source.tokenizer->encode("a cat"));
    }
    if (source.config.language) {
      EXPECT_EQ(copy.config.language->separate_head, source.config.language->separate_head);
      EXPECT_EQ(copy.config.language->end_token, source.config.language->end_token);
    }
    // A second copy is the same file.
    write_checkpoint(copy, std::nullopt, folder / "again.safetensors");
    std::ifstream a(folder / "out.safetensors", std::ios::binary);
    std::ifstream b(folder / "again.safetensors", std::ios::binary);
    const std::string first{std::istreambuf_iterator<char>(a), {}};
    const std::string second{std::istreambuf_iterator<char>(b), {}};
    EXPECT_TRUE(first == second);
  }
}

TEST(Checkpoint, NarrowingRoundsMatricesAndKeepsNorms) {
  TempFolder folder;
  const Checkpoint source = open_checkpoint(kModels / "pali3");
  write_checkpoint(source, DType::bf16, folder / "bf16.safetensors");
  const Checkpoint narrow = open_checkpoint(folder / "bf16.safetensors");
  int kept = 0, rounded = 0;
  for (const auto& [name, tensor] : narrow.table.bound()) {
    const std::vector<float> now = narrow.table.values(name), before = source.table.values(name);
    if (tensor.ref.dtype == DType::f32) {
      EXPECT_EQ(now, before) << name;
      ++kept;
    } else {
      ASSERT_EQ(tensor.ref.dtype, DType::bf16) << name;
      for (size_t i = 0; i < now.size(); ++i) {
        ASSERT_EQ(now[i], bf16_to_f32(f32_to_bf16(before[i]))) << name;
      }
      ++rounded;
    }
    const bool must_keep = name.find("norm") != std::string::npos || name.ends_with(".bias");
    EXPECT_EQ(must_keep || name == "vision.pos", tensor.ref.dtype == DType::f32) << name;
  }
  EXPECT_GT(kept, 10);
  EXPECT_GT(rounded, 10);
  write_checkpoint(narrow, DType::f32, folder / "f32.safetensors");
  EXPECT_EQ(values(open_checkpoint(folder / "f32.safetensors")), values(narrow));
  const Caught error =
      caught([&] { write_checkpoint(source, DType::i16, folder / "i16.safetensors"); });
  EXPECT_EQ(error.code, ErrorCode::unsupported);
  EXPECT_FALSE(fs::exists(folder / "i16.safetensors"));
}

void expect_refused(const fs::path& path, ErrorCode code, const std::string& word) {
  const Caught error = caught([&] { open_checkpoint(path); });
  EXPECT_EQ(error.code, code) << error.what;
  EXPECT_NE(error.what.find(word), std::string::npos) << error.what;
  EXPECT_NE(error.what.find(path.filename().string()), std::string::npos) << error.what;
  EXPECT_EQ(error.what.find('\n'), std::string::npos) << error.what;
}

// transformers 5 saves one processor_config.json with the image processor in it, and reads it
// first; without either file each family has its own default.
TEST(Checkpoint, FindsTheImageProcessorWhereverItWasSaved) {
  TempFolder folder;
  const auto resample_of = [](const fs::path& model) {
    return open_checkpoint(model).config.preprocessing.resample;
  };
  struct Row {
    const char* model;
    Resample without_files;
  };
  for (const Row& row :
       {Row{"t5gemma2", Resample::bilinear}, Row{"paligemma", Resample::bicubic}}) {
    SCOPED_TRACE(row.model);
    const fs::path copy = folder / row.model;
    fs::copy(kModels / row.model, copy);
    const fs::path own = copy / "preprocessor_config.json", whole = copy / "processor_config.json";
    const Json saved = read_json_file(own);
    fs::remove(own);
    EXPECT_EQ(resample_of(copy), row.without_files);
    EXPECT_TRUE(open_checkpoint(copy).warnings.empty());

    Json image = saved;
    for (const auto& [number, expected] :
         {std::pair(2, Resample::bilinear), std::pair(3, Resample::bicubic)}) {
      image["resample"] = number;
      image["image_mean"] = {0.25, 0.5, 0.75};
      write_text(whole, Json{{"image_processor", image}, {"image_seq_length", 9}}.dump());
      EXPECT_EQ(resample_of(copy), expected);
      EXPECT_EQ(open_checkpoint(copy).config.preprocessing.mean[2], 0.75f);
    }
    // Beside it the older file says nothing, unless the new one has no image processor.
    write_text(own, saved.dump());
    EXPECT_EQ(open_checkpoint(copy).config.preprocessing.mean[2], 0.75f);
    for (const char* text : {R"({"image_seq_length": 9})", R"({"image_processor": null})", "[]"}) {
      write_text(whole, text);
      EXPECT_EQ(open_checkpoint(copy).config.preprocessing.mean[2], 0.5f) << text;
    }
    write_text(whole, R"({"image_processor": {"resample": 1}})");
    const Caught error = caught([&] { open_checkpoint(copy); });
    EXPECT_NE(error.what.find("processor_config.json"), std::string::npos) << error.what;
    EXPECT_EQ(error.what.find("preprocessor_config.json"), std::string::npos) << error.what;
    write_text(whole, R"({"image_processor": 3})");
    EXPECT_EQ(caught([&] { open_checkpoint(copy); }).code, ErrorCode::corrupt_file);
    write_text(whole, "{");
    EXPECT_EQ(caught([&] { open_checkpoint(copy); }).code, ErrorCode::corrupt_file);
  }
}

TEST(Checkpoint, RefusesWhatIsNoModel) {
  TempFolder folder;
  expect_refused(folder / "nowhere", ErrorCode::not_found, "no such file");
  fs::create_directory(folder / "empty");
  expect_refused(folder / "empty", ErrorCode::not_found, "config.json");
  fs::create_directory(folder / "bare");
  write_text(folder.path() / "bare" / "config.json", t5_json());
  expect_refused(folder / "bare", ErrorCode::not_found, "model.safetensors");
  expect_refused(test::data("images/rgb420.jpg"), ErrorCode::invalid_argument, "an image");
  expect_refused(test::data("images/rgba.png"), ErrorCode::invalid_argument, "an image");
  write_text(folder / "weights.npz", "PK\x03\x04");
  expect_refused(folder / "weights.npz", ErrorCode::corrupt_file, "zip directory");
  write_text(folder / "nothing.safetensors", "");
  expect_refused(folder / "nothing.safetensors", ErrorCode::corrupt_file, "empty");
  expect_refused(kModels / "ul2" / "model.safetensors", ErrorCode::unsupported, "pali convert");
}

TEST(Checkpoint, RefusesConfigAndWeightsThatDoNotBelongTogether) {
  TempFolder folder;
  const fs::path copy = folder / "copy";
  fs::copy(kModels / "ul2", copy);
  Json config = read_json_file(copy / "config.json");
  config["num_layers"] = 3;
  write_text(copy / "config.json", config.dump());
  expect_refused(copy, ErrorCode::corrupt_file, "encoder.block.2");
  config["num_layers"] = 2;
  config["d_ff"] = 41;
  write_text(copy / "config.json", config.dump());
  expect_refused(copy, ErrorCode::corrupt_file, "shape");
  config["num_layers"] = int64_t{1} << 40;
  write_text(copy / "config.json", config.dump());
  expect_refused(copy, ErrorCode::corrupt_file, "num_layers");
  // Fewer layers than the file has: runs, and says so.
  config = read_json_file(kModels / "ul2" / "config.json");
  config["num_decoder_layers"] = 1;
  write_text(copy / "config.json", config.dump());
  const Checkpoint fewer = open_checkpoint(copy);
  ASSERT_EQ(fewer.warnings.size(), 1u);
  EXPECT_NE(fewer.warnings[0].find("not used"), std::string::npos);
}

TEST(Checkpoint, RefusesATokenizerOfAnotherModel) {
  CheckpointOptions options;
  options.tokenizer = test::data("tokenizers/t5/spiece.model");
  const Caught error = caught([&] { open_checkpoint(kModels / "pali3", options); });
  EXPECT_EQ(error.code, ErrorCode::corrupt_file) << error.what;
  EXPECT_NE(error.what.find("tokens"), std::string::npos) << error.what;
}

// A row of 63 int4 weights takes as many bytes as one of 64: without its true shape no such tensor.
TEST(Checkpoint, Int4NeedsItsTrueShapes) {
  TempFolder folder;
  const fs::path file = folder / "int4.safetensors";
  ASSERT_FALSE(write_checkpoint(open_checkpoint(kModels / "ul2"), DType::i4, file).rounded.empty());
  open_checkpoint(file);
  std::ifstream in(file, std::ios::binary);
  const std::string good(std::istreambuf_iterator<char>(in), {});
  const size_t key = good.find("int4_shapes");
  ASSERT_NE(key, std::string::npos);
  std::string bad = good;
  bad[key] = 'j';
  std::ofstream(file, std::ios::binary) << bad;
  const Caught missing = caught([&] { open_checkpoint(file); });
  EXPECT_EQ(missing.code, ErrorCode::corrupt_file);
  EXPECT_NE(missing.what.find("int4_shapes"), std::string::npos) << missing.what;
  bad = good;
  char& digit = bad[good.find(']', key) - 1];
  digit = digit == '9' ? '8' : static_cast<char>(digit + 1);
  std::ofstream(file, std::ios::binary) << bad;
  EXPECT_EQ(caught([&] { open_checkpoint(file); }).code, ErrorCode::corrupt_file);
}

// Metadata of a pali file, one key at a time damaged.
TEST(Checkpoint, RefusesDamagedMetadata) {
  TempFolder folder;
  const std::map<std::string, std::string> good{{"format", "pali"},
                                                {"format_version", "1"},
                                                {"config", t5_json()},
                                                {"generation_config", "{}"}};
  const auto refused = [&](const std::string& key, const std::string& value) {
    std::map<std::string, std::string> metadata = good;
    metadata[key] = value;
    if (value == "-") metadata.erase(key);
    const std::vector<SafetensorsOutput> one{
        {"x", DType::u8, {1}, [](std::span<std::byte> out) { out[0] = std::byte{1}; }}};
    write_safetensors(folder / "m.safetensors", one, metadata);
    return caught([&] { open_checkpoint(folder / "m.safetensors"); }).code;
  };
  EXPECT_EQ(refused("format", "-"), ErrorCode::unsupported);
  EXPECT_EQ(refused("format", "pt"), ErrorCode::unsupported);
  EXPECT_EQ(refused("format_version", "3"), ErrorCode::unsupported);
  EXPECT_EQ(refused("config", "-"), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("config", "{"), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("config", "[]"), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("generation_config", "3"), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("format", "pali"), ErrorCode::corrupt_file);  // no weights
}

}  // namespace
}  // namespace pali::test
