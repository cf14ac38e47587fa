// Family adapters: each reads its config.json into plain numbers (ModelConfig) and writes its rows
// of the provenance table. The only files that know names of families and of other people's
// tensors. Adding a family touches this folder.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/json.hpp"
#include "io/tensor_table.hpp"
#include "model/model_config.hpp"

namespace pali {

// The small files of a checkpoint, from its folder or from a pali checkpoint's metadata.
struct ConfigFiles {
  std::string where;  // "DIR/config.json", for messages
  std::string config_text;
  Json config;
  std::optional<Json> preprocessor, generation, tokenizer;
  std::string preprocessor_name = "preprocessor_config.json";  // where it was read from
  std::string task_style;  // what a pali checkpoint says of its prompts; may be empty
};

struct Family {
  ModelConfig config;
  std::vector<TensorRule> rules;
  int extra_ids = 0;  // <extra_id_N> beyond the tokenizer's own pieces, where no file says
  bool extra_ids_given = false;
  std::vector<std::string> warnings;
};

// family.cpp: picks the adapter by model_type and reads the other files. Throws Error: unsupported
// (a model_type that no adapter knows), corrupt_file (a field that is missing, of another type or
// out of range).
Family read_family(const ConfigFiles& files);

// Rows whose sources are `prefix + name` for every prefix.
class RuleWriter {
 public:
  RuleWriter(std::vector<TensorRule>& rules, std::vector<std::string> prefixes)
      : rules_(rules), prefixes_(std::move(prefixes)) {}
  // Vectors stay f32 when a checkpoint is converted to a narrower type.
  TensorRule& vector(const std::string& ours, const std::string& theirs, int64_t n);
  TensorRule& matrix(const std::string& ours, const std::string& theirs, int64_t out, int64_t in);
  // "{ours}.weight" [out, in] and "{ours}.bias" [out].
  void linear(const std::string& ours, const std::string& theirs, int64_t out, int64_t in);
  // "{ours}.weight" and "{ours}.bias", both [n].
  void layer_norm(const std::string& ours, const std::string& theirs, int64_t n);

 private:
  TensorRule& add(const std::string& ours, const std::string& theirs, std::vector<int64_t> shape);
  std::vector<TensorRule>& rules_;
  std::vector<std::string> prefixes_;
};

// "gelu_pytorch_tanh" -> Activation::gelu_tanh. Throws Error(unsupported).
Activation parse_activation(const std::string& name, const std::string& where);

// Limits that no model comes near: what exceeds them is a damaged file.
inline constexpr int64_t kMaxLayers = 1024, kMaxWidth = 1 << 16, kMaxMlp = 1 << 18;

// siglip.cpp. The rows are those of CLIP's vision tower too: the config says what each has.
struct TowerShape {
  int64_t width, layers, heads, mlp;
};
TowerShape read_tower_shape(const JsonFields& fields);
VisionConfig read_siglip_vision(const JsonFields& fields);
TextTowerConfig read_siglip_text(const JsonFields& fields);
void add_siglip_vision_rules(const VisionConfig& config, const std::vector<std::string>& prefixes,
                             std::vector<TensorRule>& rules);
void add_siglip_text_rules(const TextTowerConfig& config, const std::vector<std::string>& prefixes,
                           std::vector<TensorRule>& rules);
void read_siglip(const JsonFields& fields, Family& family);  // model_type siglip

// vit.cpp, clip.cpp: the tower, and what its image processor does where no file says.
VisionConfig read_vit_vision(const JsonFields& fields, Preprocessing& preprocessing);
void add_vit_rules(const VisionConfig& config, const std::vector<std::string>& prefixes,
                   std::vector<TensorRule>& rules);
VisionConfig read_clip_vision(const JsonFields& fields, Preprocessing& preprocessing);
void read_clip(const JsonFields& fields, Family& family);  // model_type clip: the vision half

// encoders.cpp: any of these towers, alone or before a language model.
// model_type siglip_vision_model, vit, clip_vision_model.
void read_tower(const JsonFields& fields, const std::string& model_type, Family& family);
// The "vision_config" of a composed model, and which of its tokens go on. Throws Error.
struct EncoderChoice {
  std::string family;  // "siglip", "vit", "clip"
  int64_t skipped;     // tokens at the beginning that the language model does not see
};
EncoderChoice read_encoder(const JsonFields& composed, Family& family);
// The vision half of any config.json, as a composed model has it in "vision_config", and its
// "vision_feature_select_strategy".
struct EncoderPart {
  Json config;
  std::string strategy;
};
EncoderPart encoder_part(const Json& config);

// t5.cpp: model_type t5, mt5, umt5.
inline constexpr int kT5ExtraIds = 100;  // T5Tokenizer's default
LanguageConfig read_t5_config(const JsonFields& fields, const std::string& model_type);
void add_t5_rules(const LanguageConfig& config, const std::vector<std::string>& prefixes,
                  std::vector<TensorRule>& rules);
void read_t5(const JsonFields& fields, const std::string& model_type, Family& family);

// paligemma.cpp: model_type paligemma over gemma (1) or gemma2.
LanguageConfig read_gemma_config(const JsonFields& fields, const std::string& model_type);
void add_gemma_rules(const LanguageConfig& config, const std::vector<std::string>& prefixes,
                     std::vector<TensorRule>& rules);
// Heads that share keys evenly, and halves to rotate. Throws Error.
void check_heads(const LanguageConfig& config, const std::string& where);
// A number that may be null: 0 then.
double number_or_none(const JsonFields& fields, const char* key, double largest, double fallback);
// Which layers are windowed, by "layer_types"; empty where the file does not say.
std::vector<bool> read_sliding_layers(const JsonFields& fields, int64_t layers);
void read_paligemma(const JsonFields& fields, Family& family);

// t5gemma2.cpp: model_type t5gemma2.
void read_t5gemma2(const JsonFields& fields, Family& family);

// pali3.cpp: our own folder layout, see models/FORMAT.md.
void read_pali3(const JsonFields& fields, Family& family);
PromptTemplates pali3_prompts();  // where a checkpoint has none of its own

}  // namespace pali
