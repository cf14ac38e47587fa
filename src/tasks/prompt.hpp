// Task templates: what a request says becomes the prompt the model was trained on.
#pragma once

#include <string>

#include "model/model_config.hpp"
#include "pali/engine.hpp"

namespace pali {

// Task::run: the prompt as it is. Throws Error(invalid_argument) where a vqa question or the
// objects to detect are empty, or the template is missing.
std::string render_prompt(const PromptTemplates& templates, Task task, const std::string& prompt,
                          const std::string& lang);
// 64 caption, 32 vqa, 256 otherwise.
int default_max_tokens(Task task);

}  // namespace pali
