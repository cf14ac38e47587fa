// What preprocessor_config.json and generation_config.json say, the same for every family; and how
// a pali checkpoint writes it down again.
#pragma once

#include <string>
#include <vector>

#include "io/json.hpp"
#include "model/model_config.hpp"

namespace pali {

// What the file leaves out stays as `how` has it. Images are always resized to the model's own
// `how.size`; a file that says otherwise gives a warning. Throws Error.
void read_preprocessing(const Json& json, const std::string& where, Preprocessing& how,
                        std::vector<std::string>& warnings);
// Token ids go before those of config.json, as in transformers. Throws Error.
void read_generation(const Json& json, const std::string& where, ModelConfig& config);

Json preprocessing_json(const Preprocessing& how);
Json generation_json(const ModelConfig& config);

}  // namespace pali
