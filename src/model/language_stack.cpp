#include "model/language_stack.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "base/assert.hpp"
#include "pali/error.hpp"

namespace pali {

StackSpec language_stack(const LanguageConfig& config, int64_t layers, CrossAttention cross,
                         const std::vector<LayerMode>& modes) {
  StackSpec spec;
  spec.block.width = config.width;
  spec.block.heads = config.heads;
  spec.block.kv_heads = config.kv_heads;
  spec.block.head_dim = config.head_dim;
  spec.block.attention_scale = config.attention_scale;
  spec.block.attention_cap = config.attention_cap;
  spec.block.norm = NormKind::rms;
  spec.block.eps = config.eps;
  spec.block.norm_offset = config.norm_offset;
  spec.block.norms_after = config.norms_after;
  spec.block.head_norms = config.head_norms;
  spec.block.mlp_width = config.mlp;
  spec.block.mlp = config.gated ? MlpKind::gated : MlpKind::plain;
  spec.block.activation = config.activation;
  spec.block.cross = cross;
  spec.layers = layers;
  if (config.buckets > 0) {
    spec.bias = config.bias_per_layer ? PositionBias::per_layer : PositionBias::shared;
  }
  spec.max_distance = config.max_distance;
  spec.modes = modes;
  return spec;
}

std::shared_ptr<const PackedLinear> pack_head(const LanguageConfig& config,
                                              const TensorTable& table,
                                              const MatmulPolicy& policy) {
  MatmulPolicy streaming = policy;
  streaming.prepack = false;  // the largest matrix, and few rows at a time meet it
  return pack_linear(table.matrix(config.separate_head ? "lm.head.weight" : "lm.embed"), streaming);
}

LmHead make_head(const LanguageConfig& config, std::shared_ptr<const PackedLinear> table) {
  const float scale = config.scale_head ? 1.0f / std::sqrt(static_cast<float>(config.width)) : 1.0f;
  return LmHead(std::move(table), scale, config.logit_cap);
}

void check_limits(std::span<const ConstMat> prefixes, const DecoderLimits& limits) {
  PALI_ASSERT(!prefixes.empty() && limits.max_steps >= 1);
  PALI_ASSERT(limits.max_sequences >= static_cast<int64_t>(prefixes.size()));
  int64_t rows = 0;
  for (const ConstMat& prefix : prefixes) rows += prefix.rows;
  if (limits.max_steps > (std::numeric_limits<int32_t>::max() - rows) / limits.max_sequences) {
    throw Error(ErrorCode::invalid_argument,
                std::to_string(limits.max_steps) + " tokens x " +
                    std::to_string(limits.max_sequences) +
                    " sequences are too many (--max-tokens, --beams); ask for fewer");
  }
}

void throw_no_cache(const DecoderLimits& limits) {
  throw Error(ErrorCode::out_of_memory, "no memory for the decoder's cache of " +
                                            std::to_string(limits.max_steps) + " tokens x " +
                                            std::to_string(limits.max_sequences) +
                                            " sequences (--max-tokens, --beams); ask for fewer");
}

}  // namespace pali
