// The block's arithmetic, one line a step. References are to transformers' modeling files.
#include "model/block.hpp"

#include <algorithm>
#include <utility>

#include "exec/grain.hpp"
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

Norm::Norm(const BlockSpec& spec, const TensorTable& table, const std::string& name)
    : kind_(spec.norm), eps_(spec.eps), weight_(table.values(name + ".weight")) {
  for (float& weight : weight_) weight += spec.norm_offset;
  if (kind_ == NormKind::layer) bias_ = table.values(name + ".bias");
}

void Norm::run(const Context& context, ConstMat x, Mat y) const {
  if (kind_ == NormKind::layer) {
    layer_norm(context, x, weight_.data(), bias_.data(), eps_, y);
  } else {
    rms_norm(context, x, weight_.data(), eps_, y);
  }
}

void Norm::run_heads(const Context& context, Mat x) const {
  PALI_ASSERT(kind_ == NormKind::rms);
  rms_norm_heads(context, x, weight_, eps_);
}

AttentionLayer::AttentionLayer(const BlockSpec& spec, const TensorTable& table,
                               const std::string& name, const MatmulPolicy& policy)
    : q(table, name + ".q", policy),
      k(table, name + ".k", policy),
      v(table, name + ".v", policy),
      o(table, name + ".o", policy) {
  if (!spec.head_norms) return;
  q_norm = std::make_unique<Norm>(spec, table, name + ".q_norm");
  k_norm = std::make_unique<Norm>(spec, table, name + ".k_norm");
}

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
  PALI_ASSERT(x.rows >= 1);
  PALI_ASSERT(hidden.rows >= x.rows || (hidden.rows >= 1 && hidden.rows % RowParts::kStep == 0));
  const RowParts parts(x.rows, hidden.rows);
  for (int64_t part = 0; part < parts.count(); ++part) {
    const int64_t first = parts.begin(part), rows = parts.begin(part + 1) - first;
    const ConstMat x_part = x.rows_from(first, rows);
    const Mat y_part = y.rows_from(first, rows), hidden_part = hidden.rows_from(0, rows);
    Epilogue activate, add;
    activate.activation = activation_;
    if (!residual.empty()) add.residual = residual.rows_from(first, rows);
    if (gate_) {
      // T5DenseGatedActDense: wo(act(wi_0(x)) * wi_1(x))
      const Mat gated_part = gated.rows_from(0, rows);
      activate.gate = hidden_part;
      const Product products[] = {up_.product(hidden_part), gate_->product(gated_part, activate)};
      run_chain(context, x_part, products, down_.product(y_part, add));
    } else {
      // SiglipMLP: fc2(act(fc1(x))); T5DenseActDense: wo(act(wi(x)))
      const Product product = up_.product(hidden_part, activate);
      run_chain(context, x_part, {&product, 1}, down_.product(y_part, add));
    }
  }
}

BlockScratch::BlockScratch(const BlockSpec& spec, int64_t rows) {
  const int64_t mlp_rows = std::min(rows, kMlpRows);
  const auto shape = [](int64_t count, int64_t cols) {
    return Mat(nullptr, count, cols, row_stride(cols));
  };
  normed = shape(rows, spec.width);
  q = attended = shape(rows, spec.q_width());
  hidden = shape(mlp_rows, spec.mlp_width);
  if (spec.mlp == MlpKind::gated) gated = hidden;
  Mat* const parts[] = {&normed, &q, &attended, &hidden, &gated};
  int64_t floats = 0;
  for (const Mat* part : parts) floats += part->rows * part->stride;
  memory_ = AlignedBuffer<float>(floats);
  float* next = memory_.data();
  for (Mat* part : parts) {
    if (part->rows > 0) part->data = std::exchange(next, next + part->rows * part->stride);
  }
}

Block::Block(const BlockSpec& spec, const TensorTable& table, const std::string& name,
             const MatmulPolicy& policy)
    : shape_(spec.attention(policy.compute)),
      norm1_(spec, table, name + ".norm1"),
      attention_(spec, table, name + ".attn", policy),
      norm2_(spec, table, name + ".norm2"),
      mlp_(spec, table, name + ".mlp", policy) {
  if (spec.cross == CrossAttention::separate) {
    norm_cross_ = std::make_unique<Norm>(spec, table, name + ".norm_cross");
    cross_ = std::make_unique<AttentionLayer>(spec, table, name + ".cross", policy);
  }
  if (spec.norms_after) {
    norm1_after_ = std::make_unique<Norm>(spec, table, name + ".norm1_after");
    norm2_after_ = std::make_unique<Norm>(spec, table, name + ".norm2_after");
  }
}

void Block::encode(const Context& context, Mat x, const Positions& positions, Mat k, Mat v,
                   BlockScratch& scratch, int64_t first) const {
  PALI_ASSERT(first >= 0 && first < x.rows && x.rows <= scratch.normed.rows);
  PALI_ASSERT(first == 0 || (positions.bias == nullptr && positions.ranges.empty()));
  const Mat asking = x.rows_from(first, x.rows - first);            // [M, D]
  const Mat normed = scratch.normed.rows_from(0, x.rows);           // [S, D]
  const Mat q = scratch.q.rows_from(0, asking.rows);                // [M, H*Hd]
  const Mat attended = scratch.attended.rows_from(0, asking.rows);  // [M, H*Hd]
  Positions theirs = positions;
  if (positions.rotation != nullptr) {
    theirs.rows = positions.rows.subspan(static_cast<size_t>(first));
  }

  // h = layer_norm1(x)
  norm1_.run(context, x, normed);
  // q, k, v = q_proj(h), k_proj(h), v_proj(h)
  if (first == 0) {
    attention_.project(context, normed, q, k, v);
  } else {
    attention_.q.run(context, normed.rows_from(first, asking.rows), q);
    attention_.k.run(context, normed, k);
    attention_.v.run(context, normed, v);
  }
  place(context, attention_.q_norm.get(), theirs, q);
  place(context, attention_.k_norm.get(), positions, k);
  // a = softmax(scale * q k^T + position_bias) v
  attention(context, shape_, q, k, v, {positions.bias, positions.ranges}, attended);
  // x = x + out_proj(a)
  add_attended(context, attended, asking, scratch);

  feed_forward(context, asking, scratch);
}

void Block::place(const Context& context, const Norm* norm, const Positions& positions,
                  Mat heads) const {
  // T5Gemma2SelfAttention: q_norm(q), then apply_rotary_pos_emb
  if (norm != nullptr) norm->run_heads(context, heads);
  if (positions.rotation != nullptr) rope(context, *positions.rotation, positions.rows, heads);
}

void Block::add_attended(const Context& context, ConstMat attended, Mat x,
                         BlockScratch& scratch) const {
  if (!norm1_after_) {
    Epilogue add;
    add.residual = x;
    return attention_.o.run(context, attended, x, add);
  }
  // Gemma2DecoderLayer: x = x + post_attention_layernorm(o_proj(a))
  const Mat branch = scratch.normed.rows_from(0, x.rows);
  attention_.o.run(context, attended, branch);
  norm1_after_->run(context, branch, branch);
  add_rows(context, branch, x);
}

void Block::cross_keys(const Context& context, ConstMat memory, Mat k, Mat v) const {
  // T5LayerCrossAttention: keys and values of the encoder's output, as it is.
  // T5Gemma2MergedAttention: by the self-attention's projections and norm, not rotated.
  const AttentionLayer& layer = cross_ ? *cross_ : attention_;
  layer.k.run(context, memory, k);
  place(context, layer.k_norm.get(), {}, k);
  layer.v.run(context, memory, v);
}

void Block::step(const Context& context, Mat x, Mat new_k, Mat new_v,
                 std::span<const StepSequence> self, const Positions& positions,
                 std::span<const StepSequence> cross, BlockScratch& scratch) const {
  PALI_ASSERT(x.rows <= scratch.normed.rows);
  const Mat normed = scratch.normed.rows_from(0, x.rows);      // [B, D]
  const Mat q = scratch.q.rows_from(0, x.rows);                // [B, H*Hd]
  const Mat attended = scratch.attended.rows_from(0, x.rows);  // [B, H*Hd]

  // T5LayerSelfAttention: x = x + o(attend(q(h), k(h_0..t), v(h_0..t))), h = layer_norm(x)
  norm1_.run(context, x, normed);
  attention_.project(context, normed, q, new_k, new_v);
  place(context, attention_.q_norm.get(), positions, q);
  place(context, attention_.k_norm.get(), positions, new_k);
  attention_step(context, shape_, q, self, positions.bias, attended);
  add_attended(context, attended, x, scratch);

  // T5LayerCrossAttention: x = x + o(attend(q(h), K, V)), h = layer_norm(x); no position bias
  if (cross_) {
    Epilogue add;
    add.residual = x;
    norm_cross_->run(context, x, normed);
    cross_->q.run(context, normed, q);
    attention_step(context, shape_, q, cross, nullptr, attended);
    cross_->o.run(context, attended, x, add);
  }

  feed_forward(context, x, scratch);
}

void Block::feed_forward(const Context& context, Mat x, BlockScratch& scratch) const {
  const Mat normed = scratch.normed.rows_from(0, x.rows);  // [M, D]
  const Mat hidden = scratch.hidden, gated = scratch.gated;
  // h = layer_norm2(x); x = x + mlp(h)
  norm2_.run(context, x, normed);
  if (!norm2_after_) return mlp_.run(context, normed, hidden, gated, x, x);
  // Gemma2DecoderLayer: x = x + post_feedforward_layernorm(mlp(h))
  mlp_.run(context, normed, hidden, gated, ConstMat(), normed);
  norm2_after_->run(context, normed, normed);
  add_rows(context, normed, x);
}

void add_rows(const Context& context, ConstMat b, Mat a) {
  PALI_ASSERT(a.rows == b.rows && a.cols == b.cols);
  context.pool.parallel_for(a.rows, rows_per_grain(a.cols), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      context.kernels.epilogue(a.row(i), nullptr, KernelActivation::none, nullptr, b.row(i), a.cols,
                               a.row(i));
    }
  });
}

}  // namespace pali
