// PaLI-3 in our own folder layout: a SigLIP vision tower, a linear projector, a T5-shaped language
// model, each under the names that transformers gives it, with a prefix.
#include "base/quote.hpp"
#include "model/configs/family.hpp"

namespace pali {

// Ref: PaLI (2209.06794) and PaLI-3 for captions and questions; OCR and detection as PaLI-X words
// them, boxes as plain text.
PromptTemplates pali3_prompts() {
  PromptTemplates prompts;
  prompts.caption = "Generate the alt_text in {lang} at 0";
  prompts.vqa = "Answer in {lang}: {question}";
  prompts.ocr = "Generate the ocr_text in {lang}:";
  prompts.detect = "detect: {objects}";
  return prompts;
}

void read_pali3(const JsonFields& fields, Family& family) {
  ModelConfig& config = family.config;
  config.family = "pali3";

  const JsonFields vision = fields.object("vision_config");
  const std::string vision_type = vision.string("model_type", "siglip_vision_model");
  if (vision_type != "siglip_vision_model") {
    throw Error(ErrorCode::unsupported, "vision_config with model_type " + quote(vision_type) +
                                            " (" + fields.where() +
                                            "); siglip_vision_model is what runs here");
  }
  config.vision = read_siglip_vision(vision);
  add_siglip_vision_rules(*config.vision,
                          {"vision_tower.vision_model.", "vision_tower.", "vision_model."},
                          family.rules);

  const JsonFields text = fields.object("text_config");
  const std::string text_type = text.string("model_type", "t5");
  if (text_type != "t5" && text_type != "mt5" && text_type != "umt5") {
    throw Error(ErrorCode::unsupported, "text_config with model_type " + quote(text_type) + " (" +
                                            fields.where() + "); t5, mt5 and umt5 run here");
  }
  config.language = read_t5_config(text, text_type);
  family.extra_ids = kT5ExtraIds;
  add_t5_rules(*config.language, {"language_model."}, family.rules);

  if (fields.has("siglip_text_config")) {
    config.text_tower = read_siglip_text(fields.object("siglip_text_config"));
    add_siglip_text_rules(*config.text_tower,
                          {"text_tower.text_model.", "text_tower.", "text_model."}, family.rules);
  }

  // PaLI-3, section 3.1: visual tokens are linearly projected.
  ProjectorConfig projector{config.vision->width, config.language->width,
                            fields.boolean("projector_bias", true)};
  config.projector = projector;
  RuleWriter rules(family.rules, {"multi_modal_projector.linear.", "multi_modal_projector."});
  rules.matrix("projector.weight", "weight", projector.out, projector.in);
  if (projector.bias) rules.vector("projector.bias", "bias", projector.out);

  config.prompts = pali3_prompts();
  if (fields.has("prompts")) {
    const JsonFields own = fields.object("prompts");
    PromptTemplates& prompts = config.prompts;
    prompts.caption = own.string("caption", prompts.caption);
    prompts.vqa = own.string("vqa", prompts.vqa);
    prompts.ocr = own.string("ocr", prompts.ocr);
    prompts.detect = own.string("detect", prompts.detect);
    prompts.segment = own.string("segment", prompts.segment);
    prompts.default_lang = own.string("default_lang", prompts.default_lang);
  }
}

}  // namespace pali
