// The PaliGemma folders of the hub, name by name and shape by shape, with small numbers in the
// place of the large ones. Names: convert_paligemma_weights_to_hf.py of transformers 4.41 (as the
// files of google/paligemma-3b-pt-224 and -mix-448 have them) and
// convert_paligemma2_weights_to_hf.py.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "model/configs/family.hpp"
#include "unit/engine/fixtures.hpp"

namespace pali::testing {
namespace {

namespace fs = std::filesystem;

struct Sizes {
  int64_t dv, fv, layers_v, heads_v, patch, image;        // SigLIP
  int64_t d, f, layers, heads, kv_heads, head_dim, rows;  // Gemma
};
using Shapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

int64_t product(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

Shapes hub_shapes(const Sizes& s, bool gemma2) {
  Shapes out;
  const auto linear = [&](const std::string& name, int64_t to, int64_t from) {
    out.push_back({name + ".weight", {to, from}});
    out.push_back({name + ".bias", {to}});
  };
  const auto norm = [&](const std::string& name) {
    out.push_back({name + ".weight", {s.dv}});
    out.push_back({name + ".bias", {s.dv}});
  };
  const std::string vision = "vision_tower.vision_model.";
  out.push_back({vision + "embeddings.patch_embedding.weight", {s.dv, 3, s.patch, s.patch}});
  out.push_back({vision + "embeddings.patch_embedding.bias", {s.dv}});
  const int64_t grid = s.image / s.patch;
  out.push_back({vision + "embeddings.position_embedding.weight", {grid * grid, s.dv}});
  for (int64_t i = 0; i < s.layers_v; ++i) {
    const std::string layer = vision + "encoder.layers." + std::to_string(i) + ".";
    norm(layer + "layer_norm1");
    norm(layer + "layer_norm2");
    for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      linear(layer + "self_attn." + part, s.dv, s.dv);
    }
    linear(layer + "mlp.fc1", s.fv, s.dv);
    linear(layer + "mlp.fc2", s.dv, s.fv);
  }
  norm(vision + "post_layernorm");
  linear("multi_modal_projector.linear", s.d, s.dv);
  const std::string language = "language_model.model.";
  out.push_back({language + "embed_tokens.weight", {s.rows, s.d}});
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = language + "layers." + std::to_string(i) + ".";
    const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    out.push_back({layer + "self_attn.q_proj.weight", {q, s.d}});
    out.push_back({layer + "self_attn.k_proj.weight", {kv, s.d}});
    out.push_back({layer + "self_attn.v_proj.weight", {kv, s.d}});
    out.push_back({layer + "self_attn.o_proj.weight", {s.d, q}});
    out.push_back({layer + "mlp.gate_proj.weight", {s.f, s.d}});
    out.push_back({layer + "mlp.up_proj.weight", {s.f, s.d}});
    out.push_back({layer + "mlp.down_proj.weight", {s.d, s.f}});
    out.push_back({layer + "input_layernorm.weight", {s.d}});
    out.push_back({layer + "post_attention_layernorm.weight", {s.d}});
    if (!gemma2) continue;
    out.push_back({layer + "pre_feedforward_layernorm.weight", {s.d}});
    out.push_back({layer + "post_feedforward_layernorm.weight", {s.d}});
  }
  out.push_back({language + "norm.weight", {s.d}});
  return out;
}

// config.json as the hub's files have it: fields that GemmaConfig gives a default are left out,
// and those beside text_config are stale.
Json hub_config(const Sizes& s, bool gemma2) {
  Json text = {{"hidden_size", s.d},
               {"intermediate_size", s.f},
               {"model_type", gemma2 ? "gemma2" : "gemma"},
               {"num_attention_heads", s.heads},
               {"num_hidden_layers", s.layers},
               {"num_image_tokens", 256},
               {"num_key_value_heads", s.kv_heads},
               {"head_dim", s.head_dim},
               {"torch_dtype", "float32"},
               {"vocab_size", s.rows}};
  if (gemma2) text["hidden_activation"] = "gelu_pytorch_tanh";
  return Json{{"architectures", {"PaliGemmaForConditionalGeneration"}},
              {"bos_token_id", 2},
              {"eos_token_id", 1},
              {"hidden_size", 2048},
              {"ignore_index", -100},
              {"image_token_index", s.rows - 64},
              {"model_type", "paligemma"},
              {"pad_token_id", 0},
              {"projection_dim", s.d},
              {"text_config", text},
              {"torch_dtype", "float32"},
              {"transformers_version", "4.41.0.dev0"},
              {"vision_config",
               {{"hidden_size", s.dv},
                {"image_size", s.image},
                {"intermediate_size", s.fv},
                {"model_type", "siglip_vision_model"},
                {"num_attention_heads", s.heads_v},
                {"num_hidden_layers", s.layers_v},
                {"num_image_tokens", 256},
                {"patch_size", s.patch},
                {"projection_dim", s.d},
                {"projector_hidden_act", "gelu_fast"},
                {"vision_use_head", false}}},
              {"vocab_size", 257152}};
}

void write_folder(const fs::path& folder, const Sizes& sizes, bool gemma2, DType dtype) {
  std::vector<SafetensorsOutput> tensors;
  uint32_t state = 7;
  for (const auto& [name, shape] : hub_shapes(sizes, gemma2)) {
    const float spread = 1.0f / std::sqrt(static_cast<float>(shape.back()));
    tensors.push_back(
        {name, dtype, shape, [&state, spread, dtype](std::span<std::byte> out) {
           const size_t width = dtype == DType::f32 ? 4 : 2;
           for (size_t at = 0; at < out.size(); at += width) {
             state = state * 1664525u + 1013904223u;
             const float unit = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
             const float value = spread * unit;
             const uint16_t half = f32_to_bf16(value);
             std::memcpy(out.data() + at,
                         dtype == DType::f32 ? static_cast<const void*>(&value) : &half, width);
           }
         }});
  }
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  std::ofstream(folder / "config.json") << hub_config(sizes, gemma2).dump(2);
  fs::copy_file(model("paligemma") / "tokenizer.model", folder / "tokenizer.model");
}

struct Row {
  const char* name;
  bool gemma2;
  DType dtype;
  Task task;
  const char* prompt;    // what a person gives
  const char* rendered;  // what the model reads
};

class HubFolders : public ::testing::TestWithParam<Row> {};

TEST_P(HubFolders, OpenAndRun) {
  const Row& row = GetParam();
  const Sizes sizes{12, 20, 2, 2, 14, 28, 16, 24, 2, 4, 1, 6, 512};
  const TempFolder scratch;
  const fs::path folder = scratch / row.name;  // the name says which prompts these are
  fs::create_directory(folder);
  write_folder(folder, sizes, row.gemma2, row.dtype);
  const Engine engine = Engine::open(folder, threads(1));
  EXPECT_EQ(engine.info().family, "paligemma");
  EXPECT_TRUE(engine.info().warnings.empty()) << engine.info().warnings.front();
  int64_t parameters = 0;
  for (const auto& [name, shape] : hub_shapes(sizes, row.gemma2)) parameters += product(shape);
  EXPECT_EQ(engine.info().parameters, parameters);
  Request request = ask(3, row.prompt);
  request.task = row.task;
  const Result result = engine.run(request);
  EXPECT_EQ(result.prompt, row.rendered);
  EXPECT_LE(result.tokens.size(), 8u);
}

INSTANTIATE_TEST_SUITE_P(Rows, HubFolders,
                         ::testing::Values(Row{"paligemma_3b_pt_224", false, DType::f32,
                                               Task::caption, "", "caption en"},
                                           Row{"paligemma_3b_mix_448", false, DType::f32, Task::vqa,
                                               "what is this", "answer en what is this"},
                                           Row{"paligemma2_3b_pt_224", true, DType::bf16, Task::ocr,
                                               "", "ocr"},
                                           Row{"paligemma2_10b_mix_448", true, DType::bf16,
                                               Task::detect, "cat;dog", "detect cat ; dog"}),
                         [](const auto& test) { return std::string(test.param.name); });

struct Large {
  const char* preset;
  bool gemma2;
  Sizes sizes;
  size_t tensors;
  int64_t parameters;  // the hub says 2.92B, 3.03B, 9.66B, 27.7B
};

// The presets of the large models ask for the tensors that the hub's files hold, name by name and
// size by size, and for no others.
TEST(HubFolders, CountsOfTheLargeModels) {
  const Large rows[] = {{"paligemma-3b-224",
                         false,
                         {1152, 4304, 27, 16, 14, 224, 2048, 16384, 18, 8, 1, 256, 257216},
                         603,
                         2923466480},
                        {"paligemma2-3b",
                         true,
                         {1152, 4304, 27, 16, 14, 224, 2304, 9216, 26, 8, 4, 256, 257216},
                         727,
                         3032242416},
                        {"paligemma2-10b",
                         true,
                         {1152, 4304, 27, 16, 14, 224, 3584, 14336, 42, 16, 8, 256, 257216},
                         903,
                         9662638832},
                        {"paligemma2-28b",
                         true,
                         {1152, 4304, 27, 16, 14, 224, 4608, 36864, 46, 32, 16, 128, 257216},
                         947,
                         27650487024}};
  for (const Large& row : rows) {
    SCOPED_TRACE(row.preset);
    ConfigFiles files;
    files.where = row.preset;
    files.config =
        read_json_file(test::source("models/configs") / (std::string(row.preset) + ".json"));
    const Family family = read_family(files);
    std::map<std::string, int64_t> asked;  // elements by every name that the rows look for
    size_t rules = 0;
    for (const TensorRule& rule : family.rules) {
      rules += rule.optional ? 0 : 1;
      for (const std::string& source : rule.sources) {
        EXPECT_TRUE(asked.emplace(source, product(rule.shape)).second) << source << " twice";
      }
    }
    const Shapes shapes = hub_shapes(row.sizes, row.gemma2);
    int64_t parameters = 0;
    for (const auto& [name, shape] : shapes) {
      const auto found = asked.find(name);
      ASSERT_NE(found, asked.end()) << name;
      EXPECT_EQ(found->second, product(shape)) << name;
      parameters += product(shape);
    }
    EXPECT_EQ(shapes.size(), row.tensors);
    EXPECT_EQ(rules, row.tensors);
    EXPECT_EQ(parameters, row.parameters);
  }
}

}  // namespace
}  // namespace pali::testing
