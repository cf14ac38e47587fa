// What lies between the vision tower and the language model.
#include <algorithm>
#include <cmath>
#include <utility>

#include "model/assemble.hpp"
#include "ops/norm.hpp"

namespace pali {
namespace {

int64_t side_of(int64_t tokens) {
  return static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(tokens))));
}

// tokens [g*g, Dv], row by row -> [(g/pool)^2, Dv], the mean of each square; rows and columns
// beyond the last whole square are ignored. Ref: nn.AvgPool2d.
Tensor pooled(ConstMat tokens, int64_t pool) {
  const int64_t grid = side_of(tokens.rows), side = grid / pool;
  PALI_ASSERT(grid * grid == tokens.rows && side >= 1);
  Tensor out(side * side, tokens.cols);
  const float share = 1.0f / static_cast<float>(pool * pool);
  for (int64_t s = 0; s < out.rows(); ++s) {
    float* sum = out.row(s);
    std::fill_n(sum, tokens.cols, 0.0f);
    for (int64_t i = 0; i < pool * pool; ++i) {
      const int64_t y = s / side * pool + i / pool, x = s % side * pool + i % pool;
      const float* token = tokens.row(y * grid + x);
      for (int64_t d = 0; d < tokens.cols; ++d) sum[d] += token[d];
    }
    for (int64_t d = 0; d < tokens.cols; ++d) sum[d] *= share;
  }
  return out;
}

}  // namespace

Projector::Projector(const ProjectorConfig& config, const TensorTable& table,
                     const MatmulPolicy& policy)
    : config_(config), weight_(pack_linear(table.matrix("projector.weight"), policy)) {
  if (config.bias) bias_ = table.values("projector.bias");
  if (!config.norm) return;
  norm_ = table.values("projector.norm.weight");
  for (float& weight : norm_) weight += 1.0f;
}

int64_t Projector::tokens(int64_t visual) const {
  visual -= config_.skip;
  const int64_t side = side_of(visual) / config_.pool;
  return config_.pool == 1 ? visual : side * side;
}

Tensor Projector::run(const Context& context, ConstMat tokens) const {
  tokens = tokens.rows_from(config_.skip, tokens.rows - config_.skip);
  Tensor own;
  if (config_.pool > 1) {
    own = pooled(tokens, config_.pool);
    tokens = own.view();
  }
  if (config_.norm) {
    Tensor normed(tokens.rows, tokens.cols);
    rms_norm(context, tokens, norm_.data(), config_.norm_eps, normed.view());
    own = std::move(normed);
    tokens = own.view();
  }
  Tensor projected(tokens.rows, width());  // [N, D]
  Epilogue epilogue;
  epilogue.bias = bias_.empty() ? nullptr : bias_.data();
  weight_->run(context, tokens, projected.view(), epilogue);
  context.trace("projected", projected.view());
  return projected;
}

}  // namespace pali
