// What config files may say, and what is refused in one line.
#include <gtest/gtest.h>

#include "model/configs/family.hpp"
#include "unit/model/tiny.hpp"

namespace pali::test {
namespace {

ConfigFiles files_of(const std::string& json) {
  ConfigFiles files;
  files.where = "DIR/config.json";
  files.config_text = json;
  files.config = parse_json(json, files.where);
  return files;
}

Family family_of(const std::string& json) { return read_family(files_of(json)); }

void expect_refused(const std::string& json, ErrorCode code, const std::string& word) {
  const Caught error = caught([&] { family_of(json); });
  EXPECT_EQ(error.code, code) << error.what;
  EXPECT_NE(error.what.find(word), std::string::npos) << error.what;
  EXPECT_NE(error.what.find("DIR/config.json"), std::string::npos) << error.what;
  EXPECT_EQ(error.what.find('\n'), std::string::npos) << error.what;
  EXPECT_NE(error.what.find(';'), std::string::npos) << error.what;
}

TEST(Config, RefusesUnknownFamiliesByName) {
  for (const char* json : {R"({"model_type": "longt5"})", R"({"model_type": "dinov2"})", R"({})",
                           R"({"model_type": "siglip2"})", R"({"model_type": "a\nb"})"}) {
    expect_refused(json, ErrorCode::unsupported, "umt5");
  }
  expect_refused(R"({"model_type": 7})", ErrorCode::corrupt_file, "model_type");
  expect_refused("[]", ErrorCode::corrupt_file, "object");
  expect_refused("3", ErrorCode::corrupt_file, "object");
}

// One field at a time, made hostile.
TEST(Config, ChecksEveryNumberOfT5) {
  const char* fields[] = {"d_model",
                          "d_kv",
                          "d_ff",
                          "num_heads",
                          "num_layers",
                          "num_decoder_layers",
                          "vocab_size",
                          "relative_attention_num_buckets",
                          "relative_attention_max_distance"};
  const char* values[] = {
      "0",     "-1", "1099511627776", "9223372036854775807", "18446744073709551615", "1e300", "2.5",
      "\"8\"", "[]", "true"};
  for (const char* field : fields) {
    for (const char* value : values) {
      SCOPED_TRACE(std::string(field) + " = " + value);
      expect_refused(t5_json("\"" + std::string(field) + "\": " + value), ErrorCode::corrupt_file,
                     field);
    }
  }
  for (const char* field : {"d_model", "d_kv", "d_ff", "num_heads", "num_layers", "vocab_size"}) {
    expect_refused(t5_json("\"" + std::string(field) + "\": null"), ErrorCode::corrupt_file, field);
  }
  expect_refused(t5_json(R"("relative_attention_max_distance": 16)"), ErrorCode::corrupt_file,
                 "relative_attention_max_distance");
  expect_refused(t5_json(R"("feed_forward_proj": "gated-mish")"), ErrorCode::unsupported, "mish");
  expect_refused(t5_json(R"("eos_token_id": 37)"), ErrorCode::corrupt_file, "eos_token_id");
  expect_refused(t5_json(R"("layer_norm_epsilon": -1)"), ErrorCode::corrupt_file,
                 "layer_norm_epsilon");
}

TEST(Config, ChecksEveryNumberOfSiglip) {
  const char* fields[] = {"hidden_size",         "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "image_size",        "patch_size"};
  for (const char* field : fields) {
    for (const char* value : {"0", "-1", "1099511627776", "\"8\"", "2.5", "[]"}) {
      SCOPED_TRACE(std::string(field) + " = " + value);
      for (const char* type : {"siglip_vision_model", "vit", "clip_vision_model"}) {
        expect_refused(
            std::string(R"({"model_type": ")") + type + "\", \"" + field + "\": " + value + "}",
            ErrorCode::corrupt_file, field);
      }
    }
  }
  expect_refused(R"({"model_type": "siglip_vision_model", "num_attention_heads": 7})",
                 ErrorCode::corrupt_file, "num_attention_heads");
  expect_refused(R"({"model_type": "siglip_vision_model", "image_size": 8, "patch_size": 14})",
                 ErrorCode::corrupt_file, "image_size");
  expect_refused(R"({"model_type": "siglip"})", ErrorCode::corrupt_file, "vision_config");
  expect_refused(R"({"model_type": "siglip", "vision_config": {}, "text_config": 3})",
                 ErrorCode::corrupt_file, "text_config");
  expect_refused(R"({"model_type": "siglip", "vision_config": {},
                     "text_config": {"projection_size": 12}})",
                 ErrorCode::corrupt_file, "projection_size");
  expect_refused(R"({"model_type": "siglip_vision_model", "hidden_act": "mish"})",
                 ErrorCode::unsupported, "mish");
}

TEST(Config, ChecksThePartsOfPali3) {
  expect_refused(R"({"model_type": "pali3"})", ErrorCode::corrupt_file, "vision_config");
  expect_refused(R"({"model_type": "pali3", "vision_config": {}})", ErrorCode::corrupt_file,
                 "text_config");
  Json json = Json::parse(pali3_json());
  json["text_config"]["model_type"] = "gemma";
  expect_refused(json.dump(), ErrorCode::unsupported, "gemma");
  json = Json::parse(pali3_json());
  json["vision_config"]["model_type"] = "dinov2";
  expect_refused(json.dump(), ErrorCode::unsupported, "dinov2");
  json = Json::parse(pali3_json());
  json["vision_feature_select_strategy"] = "patches";
  expect_refused(json.dump(), ErrorCode::unsupported, "patches");
  json["vision_feature_select_strategy"] = 3;
  expect_refused(json.dump(), ErrorCode::corrupt_file, "vision_feature_select_strategy");
  json = Json::parse(pali3_json());
  json["prompts"] = Json{{"vqa", 3}};
  expect_refused(json.dump(), ErrorCode::corrupt_file, "vqa");
}

TEST(Config, ChecksTheOtherEncoders) {
  expect_refused(R"({"model_type": "vit", "num_channels": 1})", ErrorCode::corrupt_file,
                 "num_channels");
  expect_refused(R"({"model_type": "vit", "qkv_bias": 1})", ErrorCode::corrupt_file, "qkv_bias");
  expect_refused(R"({"model_type": "vit", "hidden_act": "mish"})", ErrorCode::unsupported, "mish");
  expect_refused(R"({"model_type": "vit", "hidden_size": 10})", ErrorCode::corrupt_file,
                 "num_attention_heads");
  expect_refused(R"({"model_type": "clip_vision_model", "layer_norm_eps": -1})",
                 ErrorCode::corrupt_file, "layer_norm_eps");
  expect_refused(R"({"model_type": "clip"})", ErrorCode::corrupt_file, "vision_config");
  expect_refused(R"({"model_type": "clip", "vision_config": [], "text_config": {}})",
                 ErrorCode::corrupt_file, "vision_config");
}

// Files of either leave out what equals the defaults of transformers.
TEST(Config, OtherEncodersHaveTheDefaultsOfTransformers) {
  const ModelConfig vit = family_of(R"({"model_type": "vit"})").config;
  EXPECT_EQ(vit.family, "vit");
  EXPECT_EQ(vit.vision->tokens(), 197);
  EXPECT_EQ(vit.vision->eps, 1e-12f);
  EXPECT_EQ(vit.vision->activation, Activation::gelu_erf);
  EXPECT_TRUE(vit.vision->class_token && vit.vision->norm_after && !vit.vision->norm_before);
  EXPECT_EQ(vit.preprocessing.resample, Resample::bilinear);
  EXPECT_EQ(vit.preprocessing.fit, Fit::stretch);
  EXPECT_EQ(vit.preprocessing.mean[1], 0.5f);

  const ModelConfig clip = family_of(R"({"model_type": "clip_vision_model"})").config;
  EXPECT_EQ(clip.family, "clip");
  EXPECT_EQ(clip.vision->patch, 32);
  EXPECT_EQ(clip.vision->tokens(), 50);
  EXPECT_EQ(clip.vision->eps, 1e-5f);
  EXPECT_EQ(clip.vision->activation, Activation::quick_gelu);
  EXPECT_TRUE(clip.vision->class_token && !clip.vision->norm_after && clip.vision->norm_before);
  EXPECT_FALSE(clip.vision->patch_bias);
  EXPECT_EQ(clip.preprocessing.resample, Resample::bicubic);
  EXPECT_EQ(clip.preprocessing.fit, Fit::crop);
  EXPECT_EQ(clip.preprocessing.resized, 224);
  EXPECT_EQ(clip.preprocessing.mean[2], 0.40821073f);
  EXPECT_EQ(clip.preprocessing.std[0], 0.26862954f);

  // CLIPConfig: the older field goes before.
  EXPECT_EQ(family_of(R"({"model_type": "clip", "vision_config": {"patch_size": 16},
                          "vision_config_dict": {"patch_size": 14}})")
                .config.vision->patch,
            14);
}

// Which tokens the language model sees, by the encoder or by the config.
TEST(Config, TheClassTokenGoesOnWhereTheModelSaysSo) {
  const auto skipped = [](const char* type, const char* strategy) {
    Json json = Json::parse(pali3_json());
    json["vision_config"]["model_type"] = type;
    if (strategy != nullptr) json["vision_feature_select_strategy"] = strategy;
    return family_of(json.dump()).config.projector->skip;
  };
  EXPECT_EQ(skipped("vit", nullptr), 0);
  EXPECT_EQ(skipped("vit", "default"), 1);
  EXPECT_EQ(skipped("clip_vision_model", nullptr), 1);
  EXPECT_EQ(skipped("clip_vision_model", "full"), 0);
  EXPECT_EQ(skipped("siglip_vision_model", "default"), 0) << "it has no class token";
}

// Sizes as image processors have written them over the years.
TEST(Config, ReadsHowImagesAreCropped) {
  const auto read = [](const std::string& type, const Json& preprocessor) {
    ConfigFiles files = files_of(R"({"model_type": ")" + type + R"(", "image_size": 224})");
    files.preprocessor = preprocessor;
    return read_family(files);
  };
  const Json square{{"height", 224}, {"width", 224}};
  for (const Json& json :
       {Json::object(), Json{{"size", 224}, {"crop_size", 224}, {"do_center_crop", true}},
        Json{{"size", {{"shortest_edge", 224}}}, {"crop_size", square}}}) {
    const Family family = read("clip_vision_model", json);
    EXPECT_EQ(family.config.preprocessing.fit, Fit::crop) << json;
    EXPECT_EQ(family.config.preprocessing.resized, 224) << json;
    EXPECT_TRUE(family.warnings.empty()) << json;
  }
  Family family =
      read("clip_vision_model", {{"size", {{"shortest_edge", 256}}}, {"crop_size", 224}});
  EXPECT_EQ(family.config.preprocessing.resized, 256);
  EXPECT_TRUE(family.warnings.empty());
  // The model's size rules; the proportion stays.
  family = read("clip_vision_model", {{"size", 384}, {"crop_size", 336}});
  EXPECT_EQ(family.config.preprocessing.size, 224);
  EXPECT_EQ(family.config.preprocessing.resized, 256);
  EXPECT_EQ(family.warnings.size(), 1u);
  EXPECT_EQ(read("clip_vision_model", {{"size", square}, {"do_center_crop", false}})
                .config.preprocessing.fit,
            Fit::stretch);
  EXPECT_EQ(read("vit", {{"size", 224}}).config.preprocessing.fit, Fit::stretch);
  EXPECT_EQ(read("vit", {{"size", 384}}).warnings.size(), 1u);

  const auto refused = [&](const char* type, const Json& json) {
    return caught([&] { read(type, json); }).code;
  };
  const Json uneven{{"height", 224}, {"width", 200}};
  const char* clip = "clip_vision_model";
  EXPECT_EQ(refused(clip, {{"do_center_crop", false}}), ErrorCode::unsupported);
  EXPECT_EQ(refused(clip, {{"crop_size", uneven}}), ErrorCode::unsupported);
  EXPECT_EQ(refused(clip, {{"crop_size", {{"height", 224}}}}), ErrorCode::corrupt_file);
  EXPECT_EQ(refused(clip, {{"crop_size", "224"}}), ErrorCode::corrupt_file);
  EXPECT_EQ(refused(clip, {{"size", {{"shortest_edge", 0}}}}), ErrorCode::corrupt_file);
  EXPECT_EQ(refused(clip, {{"size", -3}}), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("vit", {{"size", "x"}}), ErrorCode::corrupt_file);
  EXPECT_EQ(refused("vit", {{"size", 256}, {"crop_size", 224}, {"do_center_crop", true}}),
            ErrorCode::unsupported);
}

// Hub files of SigLIP leave out what equals the defaults of transformers.
TEST(Config, SiglipHasTheDefaultsOfTransformers) {
  const ModelConfig config =
      family_of(R"({"model_type": "siglip", "vision_config": {}, "text_config": {}})").config;
  EXPECT_EQ(config.vision->width, 768);
  EXPECT_EQ(config.vision->layers, 12);
  EXPECT_EQ(config.vision->mlp, 3072);
  EXPECT_EQ(config.vision->tokens(), 196);
  EXPECT_TRUE(config.vision->pooling_head);
  EXPECT_EQ(config.text_tower->vocab, 32000);
  EXPECT_EQ(config.text_tower->length, 64);
  EXPECT_EQ(config.text_tower->projection, 768);
  EXPECT_EQ(config.text_tower->pad, 1);
}

TEST(Config, ScalesTheHeadAsEachFamilyDoes) {
  struct Row {
    const char* extra;
    bool scaled;
  };
  const Row rows[] = {
      {R"("tie_word_embeddings": true)", true},
      {R"("tie_word_embeddings": false)", false},
      {R"("tie_word_embeddings": true, "scale_decoder_outputs": false)", false},
      {R"("tie_word_embeddings": false, "scale_decoder_outputs": true)", true},
      {R"("model_type": "mt5", "tie_word_embeddings": true)", false},
      {R"("model_type": "umt5", "tie_word_embeddings": true)", true},
      {R"("model_type": "umt5", "tie_word_embeddings": false)", false},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(family_of(t5_json(row.extra)).config.language->scale_head, row.scaled) << row.extra;
  }
  // Original T5 files do not mention it.
  Json bare = Json::parse(t5_json());
  bare.erase("tie_word_embeddings");
  EXPECT_TRUE(family_of(bare.dump()).config.language->scale_head);
}

TEST(Config, ReadsTheOtherFiles) {
  ConfigFiles files = files_of(pali3_json());
  files.preprocessor = Json{{"resample", 2},
                            {"image_mean", {0.1, 0.2, 0.3}},
                            {"image_std", {0.4, 0.5, 0.6}},
                            {"rescale_factor", 0.5},
                            {"size", {{"height", 99}, {"width", 99}}}};
  files.generation = Json{{"eos_token_id", {5, 6}},
                          {"num_beams", 4},
                          {"max_new_tokens", 20},
                          {"decoder_start_token_id", 2},
                          {"length_penalty", 0.6}};
  files.tokenizer = Json{{"extra_ids", 7}};
  const Family family = read_family(files);
  EXPECT_EQ(family.config.preprocessing.resample, Resample::bilinear);
  EXPECT_EQ(family.config.preprocessing.size, 17);  // the model's, not the file's
  EXPECT_EQ(family.warnings.size(), 1u);
  EXPECT_FLOAT_EQ(family.config.preprocessing.std[2], 0.6f);
  EXPECT_EQ(family.config.language->end_token, 5);
  EXPECT_EQ(family.config.language->start_token, 2);
  EXPECT_EQ(family.config.generation.beams, 4);
  EXPECT_EQ(family.config.generation.max_tokens, 20);
  EXPECT_EQ(family.extra_ids, 7);

  const auto refused = [&](auto change) {
    ConfigFiles bad = files_of(pali3_json());
    change(bad);
    return caught([&] { read_family(bad); }).code;
  };
  using F = ConfigFiles&;
  EXPECT_EQ(refused([](F f) { f.preprocessor = Json{{"resample", 1}}; }), ErrorCode::unsupported);
  EXPECT_EQ(refused([](F f) {
              f.preprocessor = Json{{"image_std", {0, 0, 0}}};
            }),
            ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) {
              f.preprocessor = Json{{"image_mean", {1, 2}}};
            }),
            ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) {
              f.preprocessor = Json{{"image_mean", {1, "x", 2}}};
            }),
            ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) { f.preprocessor = Json(3); }), ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) {
              f.generation = Json{{"eos_token_id", 1 << 30}};
            }),
            ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) {
              f.generation = Json{{"eos_token_id", {"x"}}};
            }),
            ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) { f.generation = Json{{"num_beams", -3}}; }), ErrorCode::corrupt_file);
  EXPECT_EQ(refused([](F f) { f.tokenizer = Json{{"extra_ids", -1}}; }), ErrorCode::corrupt_file);
}

}  // namespace
}  // namespace pali::test
