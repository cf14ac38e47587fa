#include "unit/model/tiny.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "kernels/isa.hpp"
#include "model/checkpoint.hpp"
#include "model/random.hpp"

namespace pali::test {

std::string t5_json(const std::string& extra) {
  return R"({"model_type": "t5", "d_model": 18, "d_kv": 10, "d_ff": 22, "num_heads": 3,
    "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 37,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-silu", "tie_word_embeddings": true)" +
         (extra.empty() ? "" : ", " + extra) + "}";
}

std::string siglip_json(const std::string& extra) {
  return R"({"model_type": "siglip",
    "vision_config": {"hidden_size": 12, "intermediate_size": 19, "num_hidden_layers": 2,
                      "num_attention_heads": 2, "image_size": 17, "patch_size": 5},
    "text_config": {"hidden_size": 10, "intermediate_size": 13, "num_hidden_layers": 2,
                    "num_attention_heads": 2, "vocab_size": 29, "max_position_embeddings": 7,
                    "projection_size": 12})" +
         (extra.empty() ? "" : ", " + extra) + "}";
}

std::string pali3_json() {
  const Json siglip = Json::parse(siglip_json());
  Json vision = siglip["vision_config"];
  vision["vision_use_head"] = false;
  return Json{{"model_type", "pali3"},
              {"vision_config", vision},
              {"text_config", Json::parse(t5_json())},
              {"projector_bias", true}}
      .dump();
}

std::string paligemma_json(const std::string& text_extra) {
  Json vision = Json::parse(siglip_json())["vision_config"];
  const std::string text = R"({"model_type": "gemma2", "hidden_size": 12, "intermediate_size": 22,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
    "query_pre_attn_scalar": 7, "sliding_window": 3, "attn_logit_softcapping": 2.5,
    "final_logit_softcapping": 9.0, "vocab_size": 37)" +
                           (text_extra.empty() ? "" : ", " + text_extra) + "}";
  return Json{{"model_type", "paligemma"},
              {"vision_config", vision},
              {"text_config", Json::parse(text)},
              {"bos_token_id", 2}}
      .dump();
}

Checkpoint tiny_checkpoint(const std::string& config, uint64_t seed, DType dtype) {
  ConfigFiles files;
  files.where = "tiny";
  files.config_text = config;
  files.config = parse_json(config, files.where);
  Family family = read_family(files);
  RandomBits random(seed);
  WeightStore store;
  for (const TensorRule& rule : family.rules) {
    if (rule.optional && !family.config.language->separate_head) continue;
    const std::span<std::byte> out = store.add_owned(rule.name, dtype, rule.shape);
    const bool norm = rule.name.find("norm") != std::string::npos;
    const bool bias_table = rule.name.ends_with(".bias") && rule.shape.size() == 2;
    const float scale =
        bias_table || rule.shape.size() == 1 ? 0.4f : 1.5f / std::sqrt(float(rule.shape.back()));
    const int64_t bytes = dtype_bytes(dtype);
    for (size_t at = 0; at < out.size(); at += static_cast<size_t>(bytes)) {
      const float value =
          scale * random.symmetric() + (norm && rule.name.ends_with("weight") ? 1.0f : 0.0f);
      const uint16_t bits = f32_to_bf16(value);
      if (dtype == DType::f32) {
        std::memcpy(out.data() + at, &value, 4);
      } else {
        std::memcpy(out.data() + at, &bits, 2);
      }
    }
  }
  return bind_checkpoint(std::move(family), std::move(store), "huggingface", "tiny");
}

Model tiny_model(const std::string& config, uint64_t seed) {
  ModelOptions options;
  options.policy = {MatmulBackend::native, ComputeType::f32, Isa::scalar};
  return build_model(tiny_checkpoint(config, seed), options);
}

TestContext::TestContext(int threads)
    : pool(threads), kernels(kernel_table(Isa::scalar)), context{pool, kernels, nullptr} {}

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed, float scale) {
  RandomBits random(seed);
  Tensor matrix(rows, cols);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) matrix.row(i)[j] = scale * random.symmetric();
  }
  return matrix;
}

std::vector<float> flat(ConstMat values) {
  std::vector<float> out;
  for (int64_t i = 0; i < values.rows; ++i) {
    out.insert(out.end(), values.row(i), values.row(i) + values.cols);
  }
  return out;
}

void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

}  // namespace pali::test
