// The same checkpoint as a folder, as a converted file, and composed of its parts: the same bits.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "io/json.hpp"
#include "pali/pali.hpp"
#include "parity/golden.hpp"
#include "parity/rig.hpp"
#include "support/temp_folder.hpp"

namespace pali::parity {
namespace {

namespace fs = std::filesystem;

// A folder of its own for every test.
class Files : public ::testing::Test {
 protected:
  fs::path file(const std::string& name) const { return folder_ / name; }

 private:
  const test::TempFolder folder_;
};

class Convert : public Files, public ::testing::WithParamInterface<std::string> {};

void expect_same_result(const Result& a, const Result& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.logprob, b.logprob);
  ASSERT_EQ(a.candidates.size(), b.candidates.size());
  for (size_t i = 0; i < a.candidates.size(); ++i) {
    EXPECT_EQ(a.candidates[i].tokens, b.candidates[i].tokens);
    EXPECT_EQ(a.candidates[i].logprob, b.candidates[i].logprob);
  }
}

// Everything that the golden's cases ask of a model, from both engines.
void expect_same_engine(const Engine& a, const Engine& b, const Golden& golden) {
  const Json& json = golden.json();
  EXPECT_EQ(a.info().family, b.info().family);
  EXPECT_EQ(a.info().parameters, b.info().parameters);
  if (json.contains("cases")) {
    for (const Json& item : json["cases"]) {
      Request request;
      if (item.contains("images")) {
        for (const Json& image : item["images"]) {
          request.images.push_back(Image::from_file(image_file(image.get<std::string>())));
        }
      }
      request.prompt = item["prompt"].get<std::string>();
      request.generation.max_tokens = 12;
      expect_same_result(a.run(request), b.run(request));
      request.generation.beams = request.generation.n_best = 4;
      expect_same_result(a.run(request), b.run(request));
    }
  }
  if (json.contains("images")) {
    for (const Json& file : json["images"]) {
      const Image image = Image::from_file(image_file(file.get<std::string>()));
      EXPECT_EQ(a.embed_tokens(image).values, b.embed_tokens(image).values);
      if (json.contains("texts")) {
        EXPECT_EQ(a.embed(image), b.embed(image));
      }
    }
  }
  if (json.contains("texts")) {
    for (const Json& text : json["texts"]) {
      const std::string label = text["text"].get<std::string>();
      EXPECT_EQ(a.embed(std::string_view(label)), b.embed(std::string_view(label)));
    }
  }
}

EngineOptions exact() { return engine_options({Isa::best, MatmulBackend::native}, 1); }

TEST_P(Convert, FileGivesTheBitsOfTheFolder) {
  ConvertOptions options;
  options.source = model_dir(GetParam());
  options.output = file("model.safetensors");
  const ConvertReport report = convert(options);
  EXPECT_GT(report.tensors, 0);
  EXPECT_GT(report.bytes, 0);
  const Engine folder = Engine::open(options.source, exact());
  const Engine converted = Engine::open(options.output, exact());
  EXPECT_EQ(folder.info().format, "huggingface");
  EXPECT_EQ(converted.info().format, "pali");
  expect_same_engine(folder, converted, Golden::of_model(GetParam()));

  // A second time, from the file: nothing is lost on the way.
  ConvertOptions again;
  again.source = options.output;
  again.output = file("again.safetensors");
  convert(again);
  expect_same_engine(converted, Engine::open(again.output, exact()), Golden::of_model(GetParam()));
}

TEST_P(Convert, ReadingIntoMemoryGivesTheSameBits) {
  EngineOptions in_memory = exact();
  in_memory.mmap = false;
  expect_same_engine(Engine::open(model_dir(GetParam()), exact()),
                     Engine::open(model_dir(GetParam()), in_memory), Golden::of_model(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Models, Convert,
                         ::testing::Values("siglip_vision", "siglip_two_tower", "t5_v1_1", "ul2",
                                           "mt5", "umt5", "t5_original", "flan_t5", "ul2_bf16",
                                           "ul2_f16", "ul2_sharded", "pali3", "pali3_bf16",
                                           "pali3_f16", "pali3_sharded", "paligemma",
                                           "paligemma_bf16", "paligemma2", "paligemma2_bf16",
                                           "t5gemma2", "t5gemma2_bf16"),
                         [](const auto& test) { return test.param; });

TEST_F(Files, ComposedGivesTheBitsOfTheWhole) {
  const fs::path parts = model_dir("pali3_parts");
  ConvertOptions options;
  options.vision = parts / "vision";
  options.language = parts / "language";
  options.projector = parts / "projector.safetensors";
  options.output = file("composed.safetensors");
  convert(options);
  expect_same_engine(Engine::open(model_dir("pali3"), exact()),
                     Engine::open(options.output, exact()), Golden::of_model("pali3"));
}

// What users will do: a two-tower SigLIP as published, any T5, no projector. The parts behave as
// they do alone: visual tokens to the bit, and without an image the language model's own answers.
class ComposeAny : public Files, public ::testing::WithParamInterface<std::string> {};

TEST_P(ComposeAny, KeepsItsParts) {
  ConvertOptions options;
  options.vision = model_dir("siglip_two_tower");
  options.language = model_dir(GetParam());
  options.seed = 7;
  options.output = file("composed.safetensors");
  const ConvertReport report = convert(options);
  EXPECT_FALSE(report.warnings.empty()) << "a random projector is worth a warning";
  const Engine composed = Engine::open(options.output, exact());
  const Engine towers = Engine::open(options.vision, exact());
  const Engine language = Engine::open(options.language, exact());
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  EXPECT_EQ(composed.embed_tokens(image).values, towers.embed_tokens(image).values);
  EXPECT_EQ(composed.embed_tokens(image, true).columns,
            Golden::of_model(GetParam()).tensor("case0/encoder.memory").shape.back());

  const Golden golden = Golden::of_model(GetParam());
  Request request;
  request.prompt = golden.json()["cases"][0]["prompt"].get<std::string>();
  request.generation.max_tokens = 12;
  expect_same_result(composed.run(request), language.run(request));
  expect_logprob(GetParam(), "logprob", composed.run(request).logprob,
                 golden.json()["cases"][0]["greedy"]["logprob"].get<double>());
  request.images.push_back(image);
  expect_same_result(composed.run(request), composed.run(request));
}

INSTANTIATE_TEST_SUITE_P(Languages, ComposeAny,
                         ::testing::Values("t5_v1_1", "ul2", "mt5", "umt5", "t5_original",
                                           "flan_t5", "ul2_bf16", "ul2_sharded"),
                         [](const auto& test) { return test.param; });

// Older writers do not pad the header: every tensor then lies at an odd address. Every tier and
// backend gives the bits of the aligned file.
class Unaligned : public Files, public ::testing::WithParamInterface<Run> {};

TEST_P(Unaligned, GivesTheBitsOfTheAlignedFile) {
  const auto& [name, way] = GetParam();
  PALI_PARITY_REQUIRE(way);
  const fs::path copy = file("model");
  fs::copy(model_dir(name), copy);
  for (const auto& entry : fs::directory_iterator(model_dir(name))) {
    if (!entry.path().filename().string().starts_with("model") ||
        entry.path().extension() != ".safetensors") {
      continue;
    }
    std::ifstream in(entry.path(), std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), {}};
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    bytes.insert(8 + header, 1, ' ');
    ++header;
    std::memcpy(bytes.data(), &header, 8);
    std::ofstream(copy / entry.path().filename(), std::ios::binary) << bytes;
  }
  EngineOptions options = engine_options(way, 1);
  for (const bool mmap : {true, false}) {
    options.mmap = mmap;
    expect_same_engine(Engine::open(model_dir(name), options), Engine::open(copy, options),
                       Golden::of_model(name));
  }
}

std::vector<Run> unaligned_runs() {
  std::vector<Run> runs = runs_of({"pali3_bf16", "ul2_sharded"});
  for (const Run& run : runs_of({"pali3_bf16"})) {
    if (run.way.isa < Isa::avx512_bf16) continue;
    runs.push_back(run);
    runs.back().way.compute = ComputeType::bf16;
  }
  return runs;
}

INSTANTIATE_TEST_SUITE_P(Models, Unaligned, ::testing::ValuesIn(unaligned_runs()), run_name);

// PyTorch's own files, whole and in shards, of a model that the folder has as safetensors.
TEST(Containers, PytorchModelBinGivesTheBitsOfSafetensors) {
  const Engine folder = Engine::open(model_dir("ul2_bf16"), exact());
  for (const char* name : {"ul2_bin", "ul2_bin_sharded"}) {
    const Engine other = Engine::open(model_dir(name), exact());
    EXPECT_TRUE(other.info().warnings.empty()) << name;
    expect_same_engine(folder, other, Golden::of_model("ul2_bf16"));
  }
}

// big_vision's .npz: its own layouts, stored or deflated, with and without "params/".
class Npz : public Files {
 protected:
  // Opens the one .npz of a folder, processing images as Hugging Face does.
  static Engine open(const std::string& folder) {
    EngineOptions options = exact();
    options.preprocess = Preprocess::hf;
    return Engine::open(npz_of(folder), options);
  }
  static fs::path npz_of(const std::string& folder) {
    for (const auto& entry : fs::directory_iterator(model_dir(folder))) {
      if (entry.path().extension() == ".npz") return entry.path();
    }
    return {};
  }
  // The folder with what big_vision always does, whatever its config says.
  fs::path as_big_vision(const std::string& name) const {
    const fs::path copy = file(name);
    fs::copy(model_dir(name), copy);
    Json config = read_json_file(copy / "config.json");
    Json& text = config["text_config"];
    text["final_logit_softcapping"] = text["sliding_window"] = nullptr;
    text["attn_logit_softcapping"] = 50.0;
    text["query_pre_attn_scalar"] = text["head_dim"];
    std::ofstream(copy / "config.json") << config.dump();
    return copy;
  }
};

TEST_F(Npz, SiglipGivesTheBitsOfTheFolder) {
  const Engine npz = open("siglip_npz");
  EXPECT_EQ(npz.info().format, "big_vision");
  EXPECT_EQ(npz.info().image_size, 48);
  EXPECT_TRUE(npz.info().warnings.empty());
  expect_same_engine(Engine::open(model_dir("siglip_two_tower"), exact()), npz,
                     Golden::of_model("siglip_two_tower"));
}

TEST_F(Npz, PaliGemmaGivesTheBitsOfTheFolder) {
  for (const auto& [npz_folder, folder] : {std::pair("paligemma_npz", "paligemma_bf16"),
                                           std::pair("paligemma2_npz", "paligemma2_bf16")}) {
    const Engine npz = open(npz_folder);
    EXPECT_EQ(npz.info().family, "paligemma");
    EXPECT_EQ(npz.info().image_size, 44) << "by the file's name: 42 px have as many patches";
    EXPECT_TRUE(npz.info().warnings.empty());
    expect_same_engine(Engine::open(as_big_vision(folder), exact()), npz, Golden::of_model(folder));
  }
}

TEST_F(Npz, ProcessingFollowsTheOriginAlsoThroughConversion) {
  const fs::path source = npz_of("paligemma_npz");
  const Engine npz = Engine::open(source, exact());
  EXPECT_EQ(npz.info().preprocess, "bv-aa");
  EXPECT_EQ(Engine::open(model_dir("paligemma_bf16"), exact()).info().preprocess, "hf");
  ConvertOptions options;
  options.source = source;
  options.output = file("model.safetensors");
  convert(options);
  const Engine converted = Engine::open(options.output, exact());
  EXPECT_EQ(converted.info().preprocess, "bv-aa");
  expect_same_engine(npz, converted, Golden::of_model("paligemma_bf16"));
  // Another processing gives other pixels.
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  EXPECT_NE(npz.embed_tokens(image).values, open("paligemma_npz").embed_tokens(image).values);
}

TEST_F(Npz, PartsOfAComposedModel) {
  ConvertOptions options;
  options.vision = npz_of("siglip_npz");
  options.language = model_dir("ul2_bin");
  options.resolution = 64;  // not the file's: its positions are resized
  options.output = file("composed.safetensors");
  convert(options);
  EngineOptions resized = exact();
  resized.resolution = 64;
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  EXPECT_EQ(Engine::open(options.output, exact()).embed_tokens(image).values,
            Engine::open(options.vision, resized).embed_tokens(image).values);
}

// Norms and tables stay f32 in a bf16 checkpoint, unlike in the bf16 folder; so this compares with
// the f32 golden, at bf16's precision.
TEST_F(Files, ConvertsToBf16) {
  ConvertOptions options;
  options.source = model_dir("pali3");
  options.dtype = WeightType::bf16;
  options.output = file("bf16.safetensors");
  convert(options);
  EXPECT_LT(fs::file_size(options.output), fs::file_size(model_dir("pali3") / "model.safetensors"));
  const Engine engine = Engine::open(options.output, exact());
  const Golden golden = Golden::of_model("pali3");
  const Image image = Image::from_file(image_file("rgb_37x53.png"));
  // 2^-8 a weight, over a few hundred of them and three layers.
  EXPECT_LT(relative_error(engine.embed_tokens(image, true).values,
                           golden.values("case0/image0/projected")),
            0.03);
}

}  // namespace
}  // namespace pali::parity
