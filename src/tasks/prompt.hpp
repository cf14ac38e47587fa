// Task templates: what a request says becomes the prompt the model was trained on.
#pragma once

#include <string>

#include "model/model_config.hpp"
#include "pali/engine.hpp"

namespace pali {

// Task::run: the prompt as it is. Throws Error(invalid_argument) where a vqa question or the
// objects to detect or segment are empty, the template is missing, or choices are given to a
// template without a place for them, or missing where it has one.
std::string render_prompt(const PromptTemplates& templates, const Request& request);
// 64 caption, 32 vqa, 256 otherwise.
int default_max_tokens(Task task);

}  // namespace pali
