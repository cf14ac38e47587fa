// T5Gemma 2: an encoder-decoder on Gemma 3 blocks, SigLIP's tokens pooled 4 x 4 in its encoder's
// input. Ref: configuration_t5gemma2.py and modeling_t5gemma2.py of transformers.
#include <cmath>

#include "base/quote.hpp"
#include "model/configs/family.hpp"

namespace pali {
namespace {

constexpr int64_t kMaxVocab = 1 << 22;
constexpr int64_t kMaxPositions = 1 << 24;

// The rotation of one kind of layer: "rope_parameters" by kind in transformers 5, "rope_theta",
// "rope_scaling" and "rope_local_base_freq" before it.
RopeSpec read_rope(const JsonFields& fields, bool sliding) {
  RopeSpec rope;
  rope.theta = static_cast<float>(sliding ? fields.number("rope_local_base_freq", 1, 1e12, 1e4)
                                          : fields.number("rope_theta", 1, 1e12, 1e6));
  const auto scale = [&](const JsonFields& own) {
    const std::string type = own.string("rope_type", "default");
    if (type == "linear") {
      rope.factor = static_cast<float>(own.number("factor", 1e-6, 1e6));
    } else if (type != "default") {
      throw Error(ErrorCode::unsupported,
                  "rope_type " + quote(type) + " (" + own.where() + "); known: default, linear");
    }
    rope.theta = static_cast<float>(own.number("rope_theta", 1, 1e12, rope.theta));
  };
  const char* kind = sliding ? "sliding_attention" : "full_attention";
  if (fields.has("rope_parameters")) {
    const JsonFields kinds = fields.object("rope_parameters");
    if (kinds.has(kind)) scale(kinds.object(kind));
  } else if (!sliding && fields.has("rope_scaling")) {
    scale(fields.object("rope_scaling"));
  }
  return rope;
}

// Five sliding layers, then a full one, unless the file lists them.
std::vector<LayerMode> read_modes(const JsonFields& fields, int64_t layers) {
  const int64_t window = fields.integer("sliding_window", 1, kMaxPositions, 4096);
  const int64_t pattern = fields.integer("sliding_window_pattern", 1, kMaxLayers, 6);
  const RopeSpec near = read_rope(fields, /*sliding=*/true), far = read_rope(fields, false);
  std::vector<bool> sliding = read_sliding_layers(fields, layers);
  for (int64_t i = 0; i < layers && static_cast<int64_t>(sliding.size()) < layers; ++i) {
    sliding.push_back((i + 1) % pattern != 0);
  }
  std::vector<LayerMode> modes;
  for (const bool slides : sliding)
    modes.push_back(slides ? LayerMode{near, window} : LayerMode{far, 0});
  return modes;
}

// What encoder and decoder have in common.
LanguageConfig read_stack(const JsonFields& fields) {
  LanguageConfig config;
  config.width = fields.integer("hidden_size", 1, kMaxWidth, 2304);
  config.mlp = fields.integer("intermediate_size", 1, kMaxMlp, 9216);
  config.heads = fields.integer("num_attention_heads", 1, 4096, 8);
  config.kv_heads = fields.integer("num_key_value_heads", 1, 4096, 4);
  config.head_dim = fields.integer("head_dim", 2, 4096, 256);
  check_heads(config, fields.where());
  if (fields.boolean("attention_bias", false)) {
    throw Error(ErrorCode::unsupported,
                "attention_bias (" + fields.where() + "); T5Gemma 2's projections have none");
  }
  config.vocab = fields.integer("vocab_size", 2, kMaxVocab, 262208);
  config.eps = static_cast<float>(fields.number("rms_norm_eps", 0.0, 1.0, 1e-6));
  config.activation =
      parse_activation(fields.string("hidden_activation", "gelu_pytorch_tanh"), fields.where());
  config.attention_scale =
      1.0f / std::sqrt(static_cast<float>(fields.number("query_pre_attn_scalar", 1e-3, 1e6, 256)));
  // attn_logit_softcapping is in the file, but no attention of the reference reads it.
  config.logit_cap = static_cast<float>(number_or_none(fields, "final_logit_softcapping", 1e6, 0));
  config.norm_offset = 1;
  config.norms_after = true;
  config.head_norms = true;
  config.merged_cross = true;
  config.scale_embedding = true;
  const auto token = [&](const char* key, int32_t fallback) {
    return static_cast<int32_t>(fields.integer(key, 0, config.vocab - 1, fallback));
  };
  config.pad_token = token("pad_token_id", 0);
  config.end_token = token("eos_token_id", 1);
  config.start_token = token("bos_token_id", 2);  // decoder_start_token_id where a file has it
  return config;
}

void check_same_stacks(const LanguageConfig& encoder, const LanguageConfig& decoder,
                       const std::string& where) {
  const auto same = [&](const char* key, double a, double b) {
    if (a == b) return;
    throw Error(ErrorCode::unsupported, std::string(key) + " of encoder and decoder differ (" +
                                            where + "); those of T5Gemma 2 are the same");
  };
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  same("hidden_size", number(encoder.width), number(decoder.width));
  same("intermediate_size", number(encoder.mlp), number(decoder.mlp));
  same("num_attention_heads", number(encoder.heads), number(decoder.heads));
  same("num_key_value_heads", number(encoder.kv_heads), number(decoder.kv_heads));
  same("head_dim", number(encoder.head_dim), number(decoder.head_dim));
  same("vocab_size", number(encoder.vocab), number(decoder.vocab));
  same("rms_norm_eps", encoder.eps, decoder.eps);
  same("query_pre_attn_scalar", encoder.attention_scale, decoder.attention_scale);
  if (encoder.activation != decoder.activation) same("hidden_activation", 0, 1);
}

void add_stack_rules(RuleWriter& rules, const std::string& stack, int64_t layers,
                     const LanguageConfig& config) {
  const int64_t width = config.width;
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  for (int64_t i = 0; i < layers; ++i) {
    const std::string ours = stack + ".blocks." + std::to_string(i);
    const std::string theirs = "layers." + std::to_string(i);
    const auto vector = [&](const std::string& name, const std::string& source, int64_t n) {
      rules.vector(ours + name + ".weight", theirs + source + ".weight", n);
    };
    const auto matrix = [&](const std::string& name, const std::string& source, int64_t out,
                            int64_t in) {
      rules.matrix(ours + name + ".weight", theirs + source + ".weight", out, in);
    };
    vector(".norm1", ".pre_self_attn_layernorm", width);
    matrix(".attn.q", ".self_attn.q_proj", q, width);
    matrix(".attn.k", ".self_attn.k_proj", kv, width);
    matrix(".attn.v", ".self_attn.v_proj", kv, width);
    matrix(".attn.o", ".self_attn.o_proj", width, q);
    vector(".attn.q_norm", ".self_attn.q_norm", config.head_dim);
    vector(".attn.k_norm", ".self_attn.k_norm", config.head_dim);
    vector(".norm1_after", ".post_self_attn_layernorm", width);
    vector(".norm2", ".pre_feedforward_layernorm", width);
    matrix(".mlp.gate", ".mlp.gate_proj", config.mlp, width);
    matrix(".mlp.up", ".mlp.up_proj", config.mlp, width);
    matrix(".mlp.down", ".mlp.down_proj", width, config.mlp);
    vector(".norm2_after", ".post_feedforward_layernorm", width);
  }
  rules.vector(stack + ".norm.weight", "norm.weight", width);
}

// Flat names on the hub, nested ones ("text_model.") in memory and in later files.
void add_language_rules(const LanguageConfig& config, std::vector<TensorRule>& all) {
  const std::vector<std::string> encoder = {"model.encoder.", "model.encoder.text_model.",
                                            "encoder.", "encoder.text_model."};
  const std::vector<std::string> decoder = {"model.decoder.", "decoder."};
  std::vector<std::string> both = encoder;
  both.insert(both.end(), decoder.begin(), decoder.end());
  RuleWriter tied(all, both);
  tied.matrix("lm.embed", "embed_tokens.weight", config.vocab, config.width).least =
      Precision::int8;  // io/tensor_table.hpp says why
  tied.vector("lm.own_row", "embed_tokens.eoi_embedding", config.width);
  RuleWriter encoder_rules(all, encoder), decoder_rules(all, decoder);
  add_stack_rules(encoder_rules, "lm.encoder", config.encoder_layers, config);
  add_stack_rules(decoder_rules, "lm.decoder", config.decoder_layers, config);
  RuleWriter head(all, {"lm_head.out_proj."});
  head.matrix("lm.head.weight", "weight", config.vocab, config.width).optional = true;
}

// Average pooling, RMSNorm and a matrix stored [in, out]: T5Gemma2MultiModalProjector.
void read_projector(const JsonFields& encoder, ModelConfig& config, std::vector<TensorRule>& all) {
  const VisionConfig& vision = *config.vision;
  const int64_t tokens = encoder.integer("mm_tokens_per_image", 1, 1 << 24, 256);
  const auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(tokens)));
  ProjectorConfig projector{vision.width, config.language->width, /*bias=*/false};
  projector.pool = vision.grid() / side;
  if (projector.pool < 1 || vision.grid() / projector.pool != side) {
    throw Error(ErrorCode::corrupt_file, "mm_tokens_per_image " + std::to_string(tokens) +
                                             " does not come of " + std::to_string(vision.grid()) +
                                             " x " + std::to_string(vision.grid()) + " patches (" +
                                             encoder.where() + "); restore the file");
  }
  projector.norm = true;
  projector.norm_eps = vision.eps;
  config.projector = projector;
  RuleWriter rules(all, {"model.encoder.multi_modal_projector.", "encoder.multi_modal_projector."});
  TensorRule& weight =
      rules.matrix("projector.weight", "mm_input_projection_weight", projector.out, projector.in);
  weight.transform = Transform::axes;
  weight.axes = "io>o,i";
  weight.least = Precision::bf16;  // io/tensor_table.hpp says why
  rules.vector("projector.norm.weight", "mm_soft_emb_norm.weight", projector.in);
}

}  // namespace

void read_t5gemma2(const JsonFields& fields, Family& family) {
  ModelConfig& config = family.config;
  config.family = "t5gemma2";
  const JsonFields encoder = fields.object("encoder"), decoder = fields.object("decoder");
  const JsonFields text = encoder.object("text_config");
  const LanguageConfig reading = read_stack(text);
  config.language = read_stack(decoder);
  LanguageConfig& language = *config.language;
  check_same_stacks(reading, language, fields.where());
  language.encoder_layers = text.integer("num_hidden_layers", 1, kMaxLayers, 26);
  language.decoder_layers = decoder.integer("num_hidden_layers", 1, kMaxLayers, 26);
  language.encoder_modes = read_modes(text, language.encoder_layers);
  language.decoder_modes = read_modes(decoder, language.decoder_layers);
  const auto image_token = [&](const char* key, int64_t fallback) {
    return static_cast<int32_t>(
        fields.has(key)
            ? fields.integer(key, 0, language.vocab - 1)
            : encoder.integer(key, 0, language.vocab - 1, std::min(fallback, language.vocab - 1)));
  };
  language.own_row_token = image_token("eoi_token_index", 256000);
  add_language_rules(language, family.rules);

  config.vision = read_siglip_vision(encoder.object("vision_config"));
  config.vision->pooling_head = false;
  add_siglip_vision_rules(
      *config.vision,
      {"model.encoder.vision_tower.vision_model.", "model.encoder.vision_tower.",
       "encoder.vision_tower.vision_model.", "encoder.vision_tower."},
      family.rules);
  read_projector(encoder, config, family.rules);
  config.preprocessing.resample = Resample::bilinear;  // Gemma3ImageProcessor

  // Gemma3Processor: "<bos>" text, each "<start_of_image>" in it with line breaks, image tokens and
  // the end of the image about it; no end token (add_eos_token is off).
  PromptForm& form = config.prompt_form;
  form.start = PromptForm::Start::first;
  form.start_token = static_cast<int32_t>(text.integer("bos_token_id", 0, language.vocab - 1,
                                                       std::min<int64_t>(2, language.vocab - 1)));
  form.end_token = false;
  form.image_marker = "<start_of_image>";
  form.text_before_image = form.text_after_image = "\n\n";
  form.id_before_image = image_token("boi_token_index", 255999);
  form.id_after_image = language.own_row_token;
}

}  // namespace pali
