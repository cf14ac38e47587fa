// What a checkpoint says about its model, as plain numbers: family adapters (configs/) fill these
// in, everything below reads them. No names of models here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "image/image.hpp"
#include "matmul/matmul.hpp"
#include "pali/options.hpp"

namespace pali {

// A ViT. Ref: SiglipVisionTransformer in transformers' modeling_siglip.py; big_vision's vit.py.
struct VisionConfig {
  int64_t width = 0, layers = 0, heads = 0, mlp = 0;
  int64_t patch = 0;
  int64_t image_size = 0;  // side the checkpoint's positions are for
  float eps = 1e-6f;
  Activation activation = Activation::gelu_tanh;
  bool pooling_head = false;                           // SigLIP's MAP head
  int64_t grid() const { return image_size / patch; }  // remainder pixels are ignored
  int64_t tokens() const { return grid() * grid(); }
};

// SigLIP's text tower: the same pre-LN encoder over token and position embeddings, no mask, the
// last position pooled, then a linear head.
struct TextTowerConfig {
  int64_t width = 0, layers = 0, heads = 0, mlp = 0;
  int64_t vocab = 0, length = 0, projection = 0;
  float eps = 1e-6f;
  Activation activation = Activation::gelu_tanh;
  int32_t pad = 1;
};

// T5-shaped encoder-decoder. Ref: modeling_t5.py, modeling_mt5.py, modeling_umt5.py.
struct EncoderDecoderConfig {
  int64_t width = 0, inner_head = 0, mlp = 0, heads = 0;  // d_model, d_kv, d_ff, num_heads
  int64_t encoder_layers = 0, decoder_layers = 0;
  int64_t vocab = 0;  // rows of the embedding table
  int32_t buckets = 32, max_distance = 128;
  bool bias_per_layer = false;  // umT5: every layer owns a table
  bool gated = true;            // wi_0 and wi_1, else one wi
  Activation activation = Activation::gelu_tanh;
  bool separate_head = false;  // lm_head.weight exists
  bool scale_head = false;     // logits are taken of h * width^-1/2
  float eps = 1e-6f;
  int32_t start_token = 0, end_token = 1, pad_token = 0;
  int extra_ids = 0;  // <extra_id_N> beyond the tokenizer's pieces
};

struct ProjectorConfig {
  int64_t in = 0, out = 0;
  bool bias = true;
};

// Prompt templates with {lang}, {question}, {choices}, {objects}; from the checkpoint, else the
// family's own. Empty: the model does not know the task.
struct PromptTemplates {
  std::string caption, vqa, ocr, detect, segment;
  std::string default_lang = "EN";
  bool caption_region = false;  // a caption may be of what a red frame in the image surrounds
};

struct ModelConfig {
  std::string family;  // "pali3", "siglip", "t5": for people, not for switches
  std::optional<VisionConfig> vision;
  std::optional<TextTowerConfig> text_tower;
  std::optional<EncoderDecoderConfig> language;
  std::optional<ProjectorConfig> projector;
  Preprocessing preprocessing;
  std::string preprocess_name = "hf";
  PromptTemplates prompts;
  // Families whose checkpoints were trained for different tasks: which one this is ("pt",
  // "ft-vqav2"; configs/task_style.hpp). Empty: the family has one set of prompts.
  std::string task_style;
  // What generation_config.json says, kept so that a converted copy says it too. Requests do not
  // take it up: greedy unless asked otherwise, and a task's own limit of tokens, whatever the file.
  // Of that file only the special tokens are in force (EncoderDecoderConfig).
  GenerationOptions generation;
  std::string json;  // config.json as read, for inspect and convert
};

}  // namespace pali
