// The encoder-decoder language model: encoder stack over the prefix, decoder stack with cross K/V.
#pragma once

#include <memory>

#include "io/tensor_table.hpp"
#include "model/decoder.hpp"
#include "model/model_config.hpp"

namespace pali {

// Reads the rows "lm.*". Stages traced: encoder.input, encoder.block.{i}, encoder.memory (for the
// first request of a batch).
std::unique_ptr<LanguageModel> make_encoder_decoder(const LanguageConfig& config,
                                                    const TensorTable& table,
                                                    const MatmulPolicy& policy);

}  // namespace pali
