// The vision tower: patches, a class token where there is one, positions, encoder stack, and
// SigLIP's pooling head.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "io/tensor_table.hpp"
#include "model/model_config.hpp"

namespace pali {

class VisionTower {
 public:
  // Reads the rows "vision.*". resolution 0: the checkpoint's own image size; else positions are
  // resized to (resolution / patch)^2 as big_vision's resample_posemb does.
  VisionTower(const VisionConfig& config, const TensorTable& table, const MatmulPolicy& policy,
              int64_t resolution = 0);
  VisionTower(VisionTower&&) noexcept;
  ~VisionTower();

  int64_t width() const;
  int64_t image_size() const;  // after resizing of positions
  int64_t tokens() const;      // N, the class token included
  bool has_pooling_head() const;

  // pixels [3, S*S] -> visual tokens [N, Dv], the class token first where there is one: the output
  // of the last block (behind the LayerNorm after it, where the tower has that), before pooling.
  // Stages traced: pixels, patches, vision.embed, vision.block.{i}, vision.tokens.
  Tensor run(const Context& context, ConstMat pixels) const;
  // Visual tokens -> pooled embedding [1, Dv]. Stage: vision.pooled.
  Tensor pool(const Context& context, ConstMat tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// positions [g*g, D] -> [h*h, D], bilinear with corners aligned: source = i * (g-1) / (h-1).
// Ref: resample_posemb in big_vision/models/vit.py.
Tensor resize_positions(ConstMat positions, int64_t grid, int64_t new_grid);

// The rows of "vision.pos" for a grid of new_grid x new_grid patches; a class token keeps its own.
Tensor positions_for(const VisionConfig& config, const TensorTable& table, int64_t new_grid);

}  // namespace pali
