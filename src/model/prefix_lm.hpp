// A decoder that reads its prefix itself: image and prompt see each other, what follows is causal.
#pragma once

#include <memory>

#include "io/tensor_table.hpp"
#include "model/decoder.hpp"
#include "model/model_config.hpp"

namespace pali {

// Reads the rows "lm.*". Stages traced (for the first request of a batch): prefix.input,
// prefix.block.{i}, prefix.hidden.
std::unique_ptr<LanguageModel> make_prefix_lm(const LanguageConfig& config,
                                              const TensorTable& table, const MatmulPolicy& policy);

}  // namespace pali
