// PaLI-3 in our own folder layout: a vision tower (SigLIP's, or one of those that the paper
// compares it with), a linear projector, a T5-shaped language model, each under the names that
// transformers gives it, with a prefix.
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
  const EncoderChoice encoder = read_encoder(fields, family);
  config.family = encoder.family == "siglip" ? "pali3" : "pali3-" + encoder.family;

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
                            fields.boolean("projector_bias", true), encoder.skipped};
  config.projector = projector;
  RuleWriter rules(family.rules, {"multi_modal_projector.linear.", "multi_modal_projector."});
  rules.matrix("projector.weight", "weight", projector.out, projector.in).least =
      Precision::bf16;  // io/tensor_table.hpp says why
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
