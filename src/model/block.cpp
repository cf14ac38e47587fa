// The block's arithmetic, one line a step. References are to transformers' modeling files.
#include "model/block.hpp"

#include "ops/norm.hpp"

namespace pali {
namespace {

std::vector<float> values_if_present(const TensorTable& table, const std::string& name) {
  return table.has(name) ? table.values(name) : std::vector<float>{};
}

const float* data_or_null(const std::vector<float>& values) {
  return values.empty() ? nullptr : values.data();
}

}  // namespace

Linear::Linear(const TensorTable& table, const std::string& name, const MatmulPolicy& policy)
    : weight_(pack_linear(table.matrix(name + ".weight"), policy)),
      bias_(values_if_present(table, name + ".bias")) {}

void Linear::run(const Context& context, ConstMat x, Mat y, Epilogue epilogue) const {
  const Product run = product(y, epilogue);
  weight_->run(context, x, y, run.epilogue);
}

Product Linear::product(Mat y, Epilogue epilogue) const {
  epilogue.bias = data_or_null(bias_);
  return {weight_.get(), y, epilogue};
}

Norm::Norm(const TensorTable& table, const std::string& name, NormKind kind, float eps)
    : kind_(kind), eps_(eps), weight_(table.values(name + ".weight")) {
  if (kind == NormKind::layer) bias_ = table.values(name + ".bias");
}

void Norm::run(const Context& context, ConstMat x, Mat y) const {
  if (kind_ == NormKind::layer) {
    layer_norm(context, x, weight_.data(), bias_.data(), eps_, y);
  } else {
    rms_norm(context, x, weight_.data(), eps_, y);
  }
}

AttentionLayer::AttentionLayer(const TensorTable& table, const std::string& name,
                               const MatmulPolicy& policy)
    : q(table, name + ".q", policy),
      k(table, name + ".k", policy),
      v(table, name + ".v", policy),
      o(table, name + ".o", policy) {}

void AttentionLayer::project(const Context& context, ConstMat x, Mat queries, Mat keys,
                             Mat values) const {
  const Product products[] = {q.product(queries), k.product(keys), v.product(values)};
  run_products(context, x, products);
}

Mlp::Mlp(const BlockSpec& spec, const TensorTable& table, const std::string& name,
         const MatmulPolicy& policy)
    : activation_(spec.activation),
      gate_(spec.mlp == MlpKind::gated ? std::make_unique<Linear>(table, name + ".gate", policy)
                                       : nullptr),
      up_(table, name + ".up", policy),
      down_(table, name + ".down", policy) {}

void Mlp::run(const Context& context, ConstMat x, Mat hidden, Mat gated, ConstMat residual,
              Mat y) const {
  Epilogue activate, add;
  activate.activation = activation_;
  add.residual = residual;
  if (gate_) {
    // T5DenseGatedActDense: wo(act(wi_0(x)) * wi_1(x))
    activate.gate = hidden;
    const Product products[] = {up_.product(hidden), gate_->product(gated, activate)};
    run_products(context, x, products);
    down_.run(context, gated, y, add);
  } else {
    // SiglipMLP: fc2(act(fc1(x))); T5DenseActDense: wo(act(wi(x)))
    up_.run(context, x, hidden, activate);
    down_.run(context, hidden, y, add);
  }
}

BlockScratch::BlockScratch(const BlockSpec& spec, int64_t rows)
    : normed(rows, spec.width),
      q(rows, spec.q_width()),
      attended(rows, spec.q_width()),
      hidden(rows, spec.mlp_width),
      gated(spec.mlp == MlpKind::gated ? Tensor(rows, spec.mlp_width) : Tensor()) {}

Block::Block(const BlockSpec& spec, const TensorTable& table, const std::string& name,
             const MatmulPolicy& policy)
    : shape_(spec.attention()),
      norm1_(table, name + ".norm1", spec.norm, spec.eps),
      attention_(table, name + ".attn", policy),
      norm2_(table, name + ".norm2", spec.norm, spec.eps),
      mlp_(spec, table, name + ".mlp", policy) {
  if (spec.cross == CrossAttention::separate) {
    norm_cross_ = std::make_unique<Norm>(table, name + ".norm_cross", spec.norm, spec.eps);
    cross_ = std::make_unique<AttentionLayer>(table, name + ".cross", policy);
  }
}

void Block::encode(const Context& context, Mat x, const DistanceBias* bias, Mat k, Mat v,
                   BlockScratch& scratch) const {
  const Mat normed = scratch.normed.top(x.rows);      // [S, D]
  const Mat q = scratch.q.top(x.rows);                // [S, H*Hd]
  const Mat attended = scratch.attended.top(x.rows);  // [S, H*Hd]
  Epilogue add;
  add.residual = x;

  // h = layer_norm1(x)
  norm1_.run(context, x, normed);
  // q, k, v = q_proj(h), k_proj(h), v_proj(h)
  attention_.project(context, normed, q, k, v);
  // a = softmax(scale * q k^T + position_bias) v
  attention(context, shape_, q, k, v, {.bias = bias}, attended);
  // x = x + out_proj(a)
  attention_.o.run(context, attended, x, add);

  feed_forward(context, x, scratch);
}

void Block::cross_keys(const Context& context, ConstMat memory, Mat k, Mat v) const {
  // T5LayerCrossAttention: keys and values of the encoder's output, as it is
  cross_->k.run(context, memory, k);
  cross_->v.run(context, memory, v);
}

void Block::step(const Context& context, Mat x, Mat new_k, Mat new_v,
                 std::span<const StepSequence> self, const DistanceBias* bias,
                 std::span<const StepSequence> cross, BlockScratch& scratch) const {
  const Mat normed = scratch.normed.top(x.rows);      // [B, D]
  const Mat q = scratch.q.top(x.rows);                // [B, H*Hd]
  const Mat attended = scratch.attended.top(x.rows);  // [B, H*Hd]
  Epilogue add;
  add.residual = x;

  // T5LayerSelfAttention: x = x + o(attend(q(h), k(h_0..t), v(h_0..t))), h = layer_norm(x)
  norm1_.run(context, x, normed);
  attention_.project(context, normed, q, new_k, new_v);
  attention_step(context, shape_, q, self, bias, attended);
  attention_.o.run(context, attended, x, add);

  // T5LayerCrossAttention: x = x + o(attend(q(h), K, V)), h = layer_norm(x); no position bias
  if (cross_) {
    norm_cross_->run(context, x, normed);
    cross_->q.run(context, normed, q);
    attention_step(context, shape_, q, cross, nullptr, attended);
    cross_->o.run(context, attended, x, add);
  }

  feed_forward(context, x, scratch);
}

void Block::feed_forward(const Context& context, Mat x, BlockScratch& scratch) const {
  const Mat normed = scratch.normed.top(x.rows);  // [M, D]
  // h = layer_norm2(x); x = x + mlp(h)
  norm2_.run(context, x, normed);
  mlp_.run(context, normed, scratch.hidden.top(x.rows), scratch.gated.top(x.rows), x, x);
}

void add_rows(const Context& context, ConstMat b, Mat a) {
  PALI_ASSERT(a.rows == b.rows && a.cols == b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    context.kernels.epilogue(a.row(i), nullptr, KernelActivation::none, nullptr, b.row(i), a.cols,
                             a.row(i));
  }
}

}  // namespace pali
