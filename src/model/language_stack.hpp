// What the language models share: a stack's spec, limits, and the output head of a LanguageConfig.
#pragma once

#include <memory>

#include "io/tensor_table.hpp"
#include "model/decoder.hpp"
#include "model/encoder_stack.hpp"
#include "model/model_config.hpp"

namespace pali {

StackSpec language_stack(const LanguageConfig& config, int64_t layers, CrossAttention cross,
                         const std::vector<LayerMode>& modes);

// The vocabulary product: "lm.head.weight", else the embedding table.
std::shared_ptr<const PackedLinear> pack_head(const LanguageConfig& config,
                                              const TensorTable& table, const MatmulPolicy& policy);
LmHead make_head(const LanguageConfig& config, std::shared_ptr<const PackedLinear> table);

// Throws Error(invalid_argument) where the cache's rows, prefixes' and steps', could not be
// numbered in 32 bits.
void check_limits(std::span<const ConstMat> prefixes, const DecoderLimits& limits);

// Error(out_of_memory) that names what to ask less of.
[[noreturn]] void throw_no_cache(const DecoderLimits& limits);

}  // namespace pali
