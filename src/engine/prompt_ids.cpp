// A prompt in the form its model's processor gives it: start token, images, closing text.
// Ref: PaliGemmaProcessor.prepare_inputs_layout, Gemma3Processor and T5Tokenizer in transformers.
#include <utility>

#include "engine/state.hpp"

namespace pali {
namespace {

// The text between image markers: one more part than there are markers.
std::vector<std::string> parts_of(const std::string& prompt, const std::string& marker) {
  std::vector<std::string> parts;
  size_t start = 0;
  for (size_t at = prompt.find(marker); at != prompt.npos; at = prompt.find(marker, start)) {
    parts.push_back(prompt.substr(start, at - start));
    start = at + marker.size();
  }
  parts.push_back(prompt.substr(start));
  return parts;
}

}  // namespace

std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const ModelConfig& config,
                                const std::string& prompt, size_t image_count) {
  const PromptForm& form = config.prompt_form;
  std::vector<std::string> parts{prompt};
  if (!form.image_marker.empty()) parts = parts_of(prompt, form.image_marker);
  if (parts.size() == 1) {
    parts.insert(parts.begin(), image_count, std::string());
  } else if (parts.size() - 1 != image_count) {
    throw Error(ErrorCode::invalid_argument,
                "the prompt has " + std::to_string(parts.size() - 1) + " times " +
                    form.image_marker + ", the request " + std::to_string(image_count) +
                    " images (prompt); give one marker an image, or none at all");
  }

  std::vector<int32_t> ids;
  const auto push = [&](int32_t id) {
    if (id >= 0) ids.push_back(id);
  };
  std::string text;
  const auto flush = [&] {
    if (text.empty()) return;
    const std::vector<int32_t> encoded = tokenizer.encode(std::exchange(text, {}));
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  };
  if (form.start == PromptForm::Start::first) push(form.start_token);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) {
      text += form.text_before_image;
      flush();
      push(form.id_before_image);
      ids.push_back(kImagePlace);
      push(form.id_after_image);
      text = form.text_after_image;
    }
    const bool last = i + 1 == parts.size();
    if (last && form.start == PromptForm::Start::after_images) {
      flush();
      push(form.start_token);
    }
    text += parts[i];
  }
  text += form.closing;
  flush();
  if (form.end_token) push(config.language->end_token);
  return ids;
}

}  // namespace pali
