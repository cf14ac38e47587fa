// The one linear layer between the vision tower and the language model.
#include "model/assemble.hpp"

namespace pali {

Projector::Projector(const ProjectorConfig& config, const TensorTable& table,
                     const MatmulPolicy& policy)
    : weight_(pack_linear(table.matrix("projector.weight"), policy)) {
  if (config.bias) bias_ = table.values("projector.bias");
}

Tensor Projector::run(const Context& context, ConstMat tokens) const {
  Tensor projected(tokens.rows, width());  // [N, D]
  Epilogue epilogue;
  epilogue.bias = bias_.empty() ? nullptr : bias_.data();
  weight_->run(context, tokens, projected.view(), epilogue);
  context.trace("projected", projected.view());
  return projected;
}

}  // namespace pali
