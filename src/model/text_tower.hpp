// SigLIP's text tower and the two-tower logit.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "io/tensor_table.hpp"
#include "model/model_config.hpp"

namespace pali {

class TextTower {
 public:
  // Reads the rows "text.*".
  TextTower(const TextTowerConfig& config, const TensorTable& table, const MatmulPolicy& policy);
  TextTower(TextTower&&) noexcept;
  ~TextTower();
  int64_t length() const;
  // ids: length() of them (padded) -> pooled embedding [1, projection].
  // Stages traced: text.embed, text.block.{i}, text.tokens, text.pooled.
  Tensor run(const Context& context, std::span<const int32_t> ids) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// cos(image, text) * exp(logit_scale) + logit_bias. Ref: SiglipModel.forward. A logit that is not
// finite throws Error(corrupt_file): weights made it.
double siglip_logit(std::span<const float> image, std::span<const float> text, float logit_scale,
                    float logit_bias);

}  // namespace pali
