// The models again, as plain loops in double: written from the references, sharing no code with the
// engine but the tensor table.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "io/tensor_table.hpp"
#include "model/model_config.hpp"

namespace pali::test {

using Rows = std::vector<std::vector<double>>;

Rows rows_of(ConstMat values);
// prefix [S, D] -> encoder memory [S, D].
Rows t5_encode(const LanguageConfig& config, const TensorTable& table, const Rows& prefix);
// All decoder positions at once under a causal mask: logits [T, V] for decoder inputs ids[T].
Rows t5_decode(const LanguageConfig& config, const TensorTable& table, const Rows& memory,
               std::span<const int32_t> ids);
// pixels [3][size * size] -> tokens [N, D]; and the pooled embedding of tokens.
Rows vit_tokens(const VisionConfig& config, const TensorTable& table, const Rows& pixels);
std::vector<double> vit_pool(const VisionConfig& config, const TensorTable& table,
                             const Rows& tokens);
// ids -> pooled embedding of the text tower.
std::vector<double> text_embedding(const TextTowerConfig& config, const TensorTable& table,
                                   std::span<const int32_t> ids);

// Largest |a - b| over the largest |b|.
double relative_error(std::span<const float> found, std::span<const double> expected);

}  // namespace pali::test
