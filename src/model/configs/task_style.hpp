// Prompts of PaliGemma's checkpoints: one set a kind of training, named as in the checkpoints'
// names.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.hpp"

namespace pali {

// "pt", "mix", "ft-aokvqa-mc", ...
std::vector<std::string> task_style_names();

bool is_task_style(std::string_view style);  // in any spelling

// The prompts of one kind. Throws Error(invalid_argument), which names those there are.
PromptTemplates prompts_of_style(std::string_view style);

// The kind in a model's name, of "paligemma-3b-ft-vqav2-448-jax", "pt_224.npz" or a snapshot folder
// of the hub's cache; empty where it names none.
std::string task_style_of(const std::filesystem::path& model);

// Puts the prompts of `style`, where not empty, else of the model's name into a config whose family
// has styles; without a name in either it stays as it is. Throws Error(invalid_argument) where a
// style is asked of a family that has none.
void apply_task_style(const std::string& style, const std::filesystem::path& model,
                      ModelConfig& config);

}  // namespace pali
