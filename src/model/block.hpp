// The one transformer block of the engine: a BlockSpec says which of its parts a family has.
// encoder_stack and decoder_stack decide what the queries see.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "io/tensor_table.hpp"
#include "matmul/matmul.hpp"
#include "ops/attention.hpp"
#include "ops/rope.hpp"

namespace pali {

enum class NormKind { layer, rms };
enum class MlpKind { plain, gated };
// separate: a sublayer of its own, as in T5. merged: the self-attention's projections and softmax
// take the memory in, as in T5Gemma 2.
enum class CrossAttention { none, separate, merged };

// Shapes and switches of a block. Biases are there where the checkpoint has them.
struct BlockSpec {
  int64_t width = 0;  // D
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float attention_scale = 1.0f;  // on q . k
  float attention_cap = 0;       // scores become cap * tanh(score / cap); 0: they stay
  NormKind norm = NormKind::layer;
  float eps = 1e-6f;
  float norm_offset = 0;     // added to every norm's weights: 1 where files store w of 1 + w
  bool norms_after = false;  // what leaves attention and MLP is normed before it is added
  bool head_norms = false;   // queries and keys are normed over each head
  int64_t mlp_width = 0;     // F
  MlpKind mlp = MlpKind::plain;
  Activation activation = Activation::gelu_tanh;
  CrossAttention cross = CrossAttention::none;

  AttentionShape attention(ComputeType compute = ComputeType::f32) const {
    return {heads, kv_heads, head_dim, attention_scale, attention_cap, compute};
  }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

// y = x W^T + b. Rows "{name}.weight" and, where present, "{name}.bias".
class Linear {
 public:
  Linear(const TensorTable& table, const std::string& name, const MatmulPolicy& policy);
  // What the epilogue asks for beside the bias: act(x W^T + b) * gate + residual.
  void run(const Context& context, ConstMat x, Mat y, Epilogue epilogue = {}) const;
  // The same as one of several products of one x: see run_products().
  Product product(Mat y, Epilogue epilogue = {}) const;
  int64_t out() const { return weight_->out(); }

 private:
  std::unique_ptr<PackedLinear> weight_;
  std::vector<float> bias_;
};

// LayerNorm or RMSNorm over rows, of a block's kind. Rows "{name}.weight" and, for LayerNorm,
// "{name}.bias".
class Norm {
 public:
  Norm(const BlockSpec& spec, const TensorTable& table, const std::string& name);
  void run(const Context& context, ConstMat x, Mat y) const;
  // Over each head of x [M, H*Hd] on its own, in place: weights [Hd].
  void run_heads(const Context& context, Mat x) const;

 private:
  NormKind kind_;
  float eps_;
  std::vector<float> weight_, bias_;
};

// The four projections of an attention. Rows "{name}.{q,k,v,o}.*", and "{name}.{q,k}_norm.*" where
// heads are normed.
struct AttentionLayer {
  AttentionLayer(const BlockSpec& spec, const TensorTable& table, const std::string& name,
                 const MatmulPolicy& policy);
  // x [M, D] -> q, k, v of each row, as the products give them.
  void project(const Context& context, ConstMat x, Mat queries, Mat keys, Mat values) const;
  Linear q, k, v, o;
  std::unique_ptr<Norm> q_norm, k_norm;
};

// The feed-forward half of a block. Rows "{name}.{up,down}.*", and "{name}.gate.*" where gated.
class Mlp {
 public:
  Mlp(const BlockSpec& spec, const TensorTable& table, const std::string& name,
      const MatmulPolicy& policy);
  // x [M, D] -> y = mlp(x) + residual [M, D], at most hidden.rows of them at a time (all, or
  // a multiple of RowParts::kStep). hidden and gated: as many rows of F; gated is empty where the
  // MLP is plain. y may be x or residual.
  void run(const Context& context, ConstMat x, Mat hidden, Mat gated, ConstMat residual,
           Mat y) const;

 private:
  Activation activation_;
  std::unique_ptr<Linear> gate_;
  Linear up_, down_;
};

// Buffers that the blocks of a stack share: `rows` is the most they are ever run on. They are one
// allocation, of those that glibc keeps once it has seen one freed (up to 32 MB): of several,
// memory went back to the system after each image and was faulted in for the next, 1 to 2 % of a
// So400m's time in bf16 at 224 px.
class BlockScratch {
 public:
  // The MLP's widest values take rows * F floats: of PaliGemma's 4112 rows at 896 px, 270 MB, and
  // twice that where it is gated.
  static constexpr int64_t kMlpRows = 1024;

  BlockScratch(const BlockSpec& spec, int64_t rows);
  Mat normed;       // [rows, D]
  Mat q, attended;  // [rows, H*Hd]
  Mat hidden;       // [R, F], R at most kMlpRows
  Mat gated;        // [R, F], empty where the MLP is plain

 private:
  AlignedBuffer<float> memory_;
};

// The positions of the rows that a block is run on, as far as its attention asks for them.
struct Positions {
  const DistanceBias* bias = nullptr;   // added to the scores; null: none
  std::span<const KeyRange> ranges;     // encode: the keys each row sees; empty: all
  const RopeTable* rotation = nullptr;  // of queries and keys; null: none
  std::span<const int32_t> rows;        // row i of x stands at row rows[i] of the rotation's table
};

class Block {
 public:
  // Rows "{name}.norm1", "{name}.attn", "{name}.norm_cross", "{name}.cross", "{name}.norm2",
  // "{name}.mlp", and "{name}.norm1_after", "{name}.norm2_after" where norms come after too.
  Block(const BlockSpec& spec, const TensorTable& table, const std::string& name,
        const MatmulPolicy& policy);

  // Self-attention of x [S, D] over itself, all positions seeing all; then the MLP. In place.
  // k, v [S, Hkv*Hd]: keys and values of x, written here. Rows before `first` are asked for theirs
  // alone and stay what they are (a bias or ranges do not go with that).
  void encode(const Context& context, Mat x, const Positions& positions, Mat k, Mat v,
              BlockScratch& scratch, int64_t first = 0) const;

  // Keys and values of the memory, once a request: memory [S, D] -> k, v [S, Hkv*Hd].
  void cross_keys(const Context& context, ConstMat memory, Mat k, Mat v) const;

  // One position a sequence, x [B, D], in place: self-attention over the sequence's own keys (the
  // new one goes into new_k, new_v [B, Hkv*Hd], rows that `self` already names), cross-attention
  // over its request's memory, MLP.
  void step(const Context& context, Mat x, Mat new_k, Mat new_v, std::span<const StepSequence> self,
            const Positions& positions, std::span<const StepSequence> cross,
            BlockScratch& scratch) const;

 private:
  // Queries, or keys, in place as the attention takes them: normed and rotated.
  void place(const Context& context, const Norm* norm, const Positions& positions, Mat heads) const;
  // x += o(attended), through the norm after it where there is one.
  void add_attended(const Context& context, ConstMat attended, Mat x, BlockScratch& scratch) const;
  void feed_forward(const Context& context, Mat x, BlockScratch& scratch) const;

  AttentionShape shape_;
  Norm norm1_;
  AttentionLayer attention_;
  std::unique_ptr<Norm> norm_cross_;
  std::unique_ptr<AttentionLayer> cross_;
  Norm norm2_;
  Mlp mlp_;
  std::unique_ptr<Norm> norm1_after_, norm2_after_;
};

// a += b, row by row.
void add_rows(const Context& context, ConstMat b, Mat a);

}  // namespace pali
