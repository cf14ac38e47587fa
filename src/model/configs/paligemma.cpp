// PaliGemma 1 and 2: SigLIP, a linear projector, and Gemma 1 or 2 reading image and prompt as a
// prefix. Ref: configuration_{paligemma,gemma,gemma2}.py and the modeling files of transformers.
#include <cmath>

#include "base/quote.hpp"
#include "model/configs/family.hpp"
#include "model/configs/task_style.hpp"

namespace pali {
namespace {

constexpr int64_t kMaxVocab = 1 << 22;
constexpr int64_t kMaxPositions = 1 << 24;

// What GemmaConfig and Gemma2Config give to fields that a file leaves out; PaliGemmaConfig's own
// defaults of a Gemma 1 inside it go first.
struct GemmaDefaults {
  int64_t width, layers, mlp, heads, kv_heads, window;
  double attention_cap, logit_cap;
};
constexpr GemmaDefaults kGemma{2048, 18, 16384, 8, 1, 0, 0, 0};
constexpr GemmaDefaults kGemma2{2304, 26, 9216, 8, 4, 4096, 50, 30};

// "rope_parameters" of transformers 5, "rope_theta" of files before it. Gemma 1 and 2 do not scale.
RopeSpec read_rope(const JsonFields& fields) {
  RopeSpec rope;
  rope.theta = static_cast<float>(fields.number("rope_theta", 1, 1e12, 1e4));
  const Json* parameters = fields.find("rope_parameters");
  if (parameters == nullptr || parameters->is_null()) return rope;
  const JsonFields own = fields.object("rope_parameters");
  const std::string type = own.string("rope_type", "default");
  if (type != "default") {
    throw Error(ErrorCode::unsupported, "rope_type " + quote(type) + " (" + own.where() +
                                            "); Gemma 1 and 2 are known with \"default\"");
  }
  rope.theta = static_cast<float>(own.number("rope_theta", 1, 1e12, rope.theta));
  return rope;
}

// Every other layer is windowed, the first one too, unless the file lists them.
std::vector<LayerMode> read_modes(const JsonFields& fields, const GemmaDefaults& defaults,
                                  int64_t layers) {
  const RopeSpec rope = read_rope(fields);
  std::vector<LayerMode> modes(static_cast<size_t>(layers), LayerMode{rope, 0});
  const Json* stored = fields.find("sliding_window");
  const bool none = defaults.window == 0 || (stored != nullptr && stored->is_null());
  if (none) return modes;
  const int64_t window = fields.integer("sliding_window", 1, kMaxPositions, defaults.window);
  const std::vector<bool> sliding = read_sliding_layers(fields, layers);
  for (size_t i = 0; i < modes.size(); ++i) {
    const bool windowed = sliding.empty() ? i % 2 == 0 : sliding[i];
    if (windowed) modes[i].window = window;
  }
  return modes;
}

}  // namespace

double number_or_none(const JsonFields& fields, const char* key, double largest, double fallback) {
  const Json* value = fields.find(key);
  if (value != nullptr && value->is_null()) return 0;
  return fields.number(key, 0, largest, fallback);
}

void check_heads(const LanguageConfig& config, const std::string& where) {
  if (config.heads % config.kv_heads == 0 && config.head_dim % 2 == 0) return;
  throw Error(ErrorCode::corrupt_file, "num_attention_heads " + std::to_string(config.heads) +
                                           " must be a multiple of num_key_value_heads " +
                                           std::to_string(config.kv_heads) + ", and head_dim " +
                                           std::to_string(config.head_dim) + " even (" + where +
                                           "); restore the file");
}

std::vector<bool> read_sliding_layers(const JsonFields& fields, int64_t layers) {
  const Json* types = fields.find("layer_types");
  if (types == nullptr || types->is_null()) return {};
  std::vector<bool> sliding;
  const bool list = types->is_array() && static_cast<int64_t>(types->size()) == layers;
  for (size_t i = 0; list && i < types->size(); ++i) {
    const Json& type = (*types)[i];
    if (type == "sliding_attention" || type == "full_attention") {
      sliding.push_back(type == "sliding_attention");
    }
  }
  if (static_cast<int64_t>(sliding.size()) != layers) {
    throw Error(ErrorCode::corrupt_file,
                "field \"layer_types\" must list sliding_attention or full_attention for each of " +
                    std::to_string(layers) + " layers (" + fields.where() + "); restore the file");
  }
  return sliding;
}

LanguageConfig read_gemma_config(const JsonFields& fields, const std::string& model_type) {
  const GemmaDefaults& defaults = model_type == "gemma2" ? kGemma2 : kGemma;
  LanguageConfig config;
  config.width = fields.integer("hidden_size", 1, kMaxWidth, defaults.width);
  config.mlp = fields.integer("intermediate_size", 1, kMaxMlp, defaults.mlp);
  config.decoder_layers = fields.integer("num_hidden_layers", 1, kMaxLayers, defaults.layers);
  config.heads = fields.integer("num_attention_heads", 1, 4096, defaults.heads);
  config.kv_heads = fields.integer("num_key_value_heads", 1, 4096, defaults.kv_heads);
  config.head_dim = fields.integer("head_dim", 2, 4096, 256);
  check_heads(config, fields.where());
  if (fields.boolean("attention_bias", false)) {
    throw Error(ErrorCode::unsupported,
                "attention_bias (" + fields.where() + "); Gemma's projections have none");
  }
  config.vocab = fields.integer("vocab_size", 2, kMaxVocab, 257152);
  config.eps = static_cast<float>(fields.number("rms_norm_eps", 0.0, 1.0, 1e-6));
  config.norm_offset = 1;
  config.scale_embedding = true;
  config.gated = true;
  // Gemma 1's "hidden_act": "gelu" means the tanh form: GemmaConfig.__post_init__ and, in older
  // releases, a "hidden_activation" beside it.
  config.activation = Activation::gelu_tanh;
  if (model_type == "gemma2") {
    config.activation =
        parse_activation(fields.string("hidden_activation", "gelu_pytorch_tanh"), fields.where());
    config.norms_after = true;
    config.attention_cap = static_cast<float>(
        number_or_none(fields, "attn_logit_softcapping", 1e6, defaults.attention_cap));
    config.logit_cap = static_cast<float>(
        number_or_none(fields, "final_logit_softcapping", 1e6, defaults.logit_cap));
    config.attention_scale =
        1.0f /
        std::sqrt(static_cast<float>(fields.number("query_pre_attn_scalar", 1e-3, 1e6, 256)));
  } else {
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  }
  config.decoder_modes = read_modes(fields, defaults, config.decoder_layers);
  const auto token = [&](const char* key, int32_t fallback) {
    return static_cast<int32_t>(fields.integer(key, 0, config.vocab - 1, fallback));
  };
  config.pad_token = token("pad_token_id", 0);
  config.end_token = token("eos_token_id", 1);
  config.start_token = token("bos_token_id", 2);
  return config;
}

void add_gemma_rules(const LanguageConfig& config, const std::vector<std::string>& prefixes,
                     std::vector<TensorRule>& all) {
  RuleWriter rules(all, prefixes);
  const int64_t width = config.width;
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  TensorRule& embed = rules.matrix("lm.embed", "embed_tokens.weight", config.vocab, width);
  embed.least = Precision::int8;  // io/tensor_table.hpp says why
  for (int64_t i = 0; i < config.decoder_layers; ++i) {
    const std::string ours = "lm.decoder.blocks." + std::to_string(i);
    const std::string theirs = "layers." + std::to_string(i);
    const auto norm = [&](const std::string& name, const std::string& source) {
      rules.vector(ours + name + ".weight", theirs + source + ".weight", width);
    };
    norm(".norm1", ".input_layernorm");
    rules.matrix(ours + ".attn.q.weight", theirs + ".self_attn.q_proj.weight", q, width);
    rules.matrix(ours + ".attn.k.weight", theirs + ".self_attn.k_proj.weight", kv, width);
    rules.matrix(ours + ".attn.v.weight", theirs + ".self_attn.v_proj.weight", kv, width);
    rules.matrix(ours + ".attn.o.weight", theirs + ".self_attn.o_proj.weight", width, q);
    // The same name for two things: in Gemma 1 the norm before the MLP, in Gemma 2 the one behind
    // the attention.
    if (config.norms_after) {
      norm(".norm1_after", ".post_attention_layernorm");
      norm(".norm2", ".pre_feedforward_layernorm");
      norm(".norm2_after", ".post_feedforward_layernorm");
    } else {
      norm(".norm2", ".post_attention_layernorm");
    }
    rules.matrix(ours + ".mlp.gate.weight", theirs + ".mlp.gate_proj.weight", config.mlp, width);
    rules.matrix(ours + ".mlp.up.weight", theirs + ".mlp.up_proj.weight", config.mlp, width);
    rules.matrix(ours + ".mlp.down.weight", theirs + ".mlp.down_proj.weight", width, config.mlp);
  }
  rules.vector("lm.decoder.norm.weight", "norm.weight", width);
}

void read_paligemma(const JsonFields& fields, Family& family) {
  ModelConfig& config = family.config;
  config.family = "paligemma";

  const JsonFields vision = fields.object("vision_config");
  const std::string vision_type = vision.string("model_type", "siglip_vision_model");
  if (vision_type != "siglip_vision_model") {
    throw Error(ErrorCode::unsupported, "vision_config with model_type " + quote(vision_type) +
                                            " (" + fields.where() +
                                            "); siglip_vision_model is what runs here");
  }
  config.vision = read_siglip_vision(vision);
  config.vision->pooling_head = false;  // it has none, whatever vision_use_head's default is
  // On the hub; in memory since transformers 4.52; as 5 saves it.
  add_siglip_vision_rules(*config.vision,
                          {"vision_tower.vision_model.", "model.vision_tower.vision_model.",
                           "vision_tower.", "model.vision_tower."},
                          family.rules);

  // The text_config is the authority: saved files carry stale copies of its fields beside it.
  const JsonFields text = fields.object("text_config");
  const std::string text_type = text.string("model_type", "gemma");
  if (text_type != "gemma" && text_type != "gemma2") {
    throw Error(ErrorCode::unsupported, "text_config with model_type " + quote(text_type) + " (" +
                                            fields.where() + "); gemma and gemma2 run here");
  }
  config.language = read_gemma_config(text, text_type);
  LanguageConfig& language = *config.language;
  language.first_position = 1;  // "Paligemma positions are 1-indexed"
  add_gemma_rules(language, {"language_model.model.", "model.language_model.", "language_model."},
                  family.rules);
  RuleWriter head(family.rules, {"language_model.", "model.", ""});
  head.matrix("lm.head.weight", "lm_head.weight", language.vocab, language.width).optional = true;

  const ProjectorConfig projector{config.vision->width, language.width, /*bias=*/true};
  config.projector = projector;
  RuleWriter rules(family.rules,
                   {"multi_modal_projector.linear.", "model.multi_modal_projector.linear."});
  rules.matrix("projector.weight", "weight", projector.out, projector.in).least =
      Precision::bf16;  // io/tensor_table.hpp says why
  rules.vector("projector.bias", "bias", projector.out);

  config.task_style = "pt";  // what the name does not say otherwise
  config.prompts = prompts_of_style(config.task_style);
  // "<image>"... "<bos>" prompt "\n": PaliGemmaProcessor.prepare_inputs_layout.
  PromptForm& form = config.prompt_form;
  form.start = PromptForm::Start::after_images;
  form.start_token = static_cast<int32_t>(
      fields.integer("bos_token_id", 0, language.vocab - 1, language.start_token));
  form.end_token = false;
  form.closing = "\n";
  form.image_marker = "<image>";
}

}  // namespace pali
