// What a checkpoint says about its model, as plain numbers: family adapters (configs/) fill these
// in, everything below reads them. No names of models here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "image/image.hpp"
#include "matmul/matmul.hpp"
#include "ops/rope.hpp"
#include "pali/options.hpp"

namespace pali {

// A ViT. Ref: transformers' modeling_{siglip,vit,clip}.py; big_vision's vit.py.
struct VisionConfig {
  int64_t width = 0, layers = 0, heads = 0, mlp = 0;
  int64_t patch = 0;
  int64_t image_size = 0;  // side the checkpoint's positions are for
  float eps = 1e-6f;
  Activation activation = Activation::gelu_tanh;
  bool patch_bias = true, qkv_bias = true;
  bool class_token = false;   // a learned token before the patches, with a position of its own
  bool norm_before = false;   // LayerNorm between the embeddings and the first block
  bool norm_after = true;     // LayerNorm behind the last block
  bool pooling_head = false;  // SigLIP's MAP head
  int64_t grid() const { return image_size / patch; }  // remainder pixels are ignored
  int64_t class_tokens() const { return class_token ? 1 : 0; }
  int64_t tokens() const { return grid() * grid() + class_tokens(); }
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

// What may differ between the layers of one stack.
struct LayerMode {
  RopeSpec rope;  // theta 0: positions are not rotated
  // Positions that a query sees, its own included: a decoder's up to it, an encoder's about it. 0:
  // all.
  int64_t window = 0;
};

// A language model that writes text: an encoder-decoder, or, without encoder layers, a decoder that
// reads its prefix itself under the prefix-LM mask.
// Ref: modeling_{t5,mt5,umt5,gemma,gemma2,t5gemma2}.py.
struct LanguageConfig {
  int64_t width = 0, head_dim = 0, mlp = 0, heads = 0, kv_heads = 0;
  int64_t encoder_layers = 0, decoder_layers = 0;
  int64_t vocab = 0;  // rows of the embedding table
  float eps = 1e-6f;
  bool gated = true;  // two matrices into the MLP's width, else one
  Activation activation = Activation::gelu_tanh;

  // Attention. T5 folds 1/sqrt(d) into the initialisation of q: scale 1.
  float attention_scale = 1.0f;
  float attention_cap = 0;    // scores become cap * tanh(score / cap); 0: they stay
  bool head_norms = false;    // queries and keys are normed over each head
  bool merged_cross = false;  // one softmax over a sequence's own keys and those of the memory
  std::vector<LayerMode> encoder_modes, decoder_modes;  // a layer each; empty: none has any
  int32_t first_position = 0;                           // angle 1 of a rotation: PaliGemma

  // T5's relative bias; no buckets: none.
  int32_t buckets = 0, max_distance = 128;
  bool bias_per_layer = false;  // umT5: every layer owns a table

  // Norms. Gemma stores w of 1 + w, and norms what leaves attention and MLP as well.
  float norm_offset = 0;
  bool norms_after = false;

  // Ends.
  bool scale_embedding = false;  // by sqrt(D), rounded to the table's type
  int32_t own_row_token = -1;    // its embedding is the row "lm.own_row", not scaled; -1: none
  bool separate_head = false;    // lm_head.weight exists
  bool scale_head = false;       // logits are taken of h * width^-1/2
  float logit_cap = 0;           // logits become cap * tanh(logit / cap); 0: they stay
  int32_t start_token = 0, end_token = 1, pad_token = 0;
  int extra_ids = 0;  // <extra_id_N> beyond the tokenizer's pieces
};

// Visual tokens into the language model's width: pooled, normed, multiplied.
struct ProjectorConfig {
  int64_t in = 0, out = 0;
  bool bias = true;
  int64_t skip = 0;   // tokens at the beginning that are left out: the class token
  int64_t pool = 1;   // squares of pool x pool tokens are averaged
  bool norm = false;  // RMSNorm before the product, weights stored as w of 1 + w
  float norm_eps = 1e-6f;
};

// How a prompt and its images become the model's input.
struct PromptForm {
  enum class Start { none, first, after_images };
  Start start = Start::none;  // where the id `start_token` goes
  int32_t start_token = -1;
  bool end_token = true;  // ends with the language model's end token
  std::string closing;    // text behind the prompt, tokenised with it: PaliGemma's "\n"
  // What stands for an image in a prompt; a prompt without any takes its images first. Empty:
  // prompts cannot say.
  std::string image_marker;
  // Around each image's tokens: text, tokenised with its neighbours, and ids (-1: none).
  std::string text_before_image, text_after_image;
  int32_t id_before_image = -1, id_after_image = -1;
};

// Prompt templates with {lang}, {question}, {choices}, {objects}; from the checkpoint, else the
// family's own. Empty: the model does not know the task.
struct PromptTemplates {
  std::string caption, vqa, ocr, detect, segment;
  std::string default_lang = "EN";
  bool caption_region = false;  // a caption may be of what a red frame in the image surrounds
};

struct ModelConfig {
  std::string family;  // "pali3", "siglip", "paligemma", ...: for people, not for switches
  std::optional<VisionConfig> vision;
  std::optional<TextTowerConfig> text_tower;
  std::optional<LanguageConfig> language;
  std::optional<ProjectorConfig> projector;
  Preprocessing preprocessing;
  PromptTemplates prompts;
  PromptForm prompt_form;
  // Families whose checkpoints were trained for different tasks: which one this is ("pt",
  // "ft-vqav2"; configs/task_style.hpp). Empty: the family has one set of prompts.
  std::string task_style;
  // What generation_config.json says, kept so that a converted copy says it too. Requests do not
  // take it up: greedy unless asked otherwise, and a task's own limit of tokens, whatever the file.
  // Of that file only the special tokens are in force (LanguageConfig).
  GenerationOptions generation;
  std::string json;  // config.json as read, for inspect and convert
};

}  // namespace pali
