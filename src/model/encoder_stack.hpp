// A stack of blocks in which every position sees every other, and the norm after it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/block.hpp"
#include "model/model_config.hpp"

namespace pali {

// Where a stack's relative position bias comes from. Ref: T5Stack (layer 0 owns the one table),
// UMT5Stack (every layer owns one).
enum class PositionBias { none, shared, per_layer };

struct StackSpec {
  BlockSpec block;
  int64_t layers = 0;
  PositionBias bias = PositionBias::none;
  int32_t max_distance = 128;
  std::vector<LayerMode> modes;  // a layer each; empty: no rotation, no window
  bool norm_after = true;        // of an encoder: the last block's output is normed
  LayerMode mode(size_t layer) const { return modes.empty() ? LayerMode{} : modes[layer]; }
};

// The window of a stack's windowed layers; 0 where none is.
int64_t window_of(const StackSpec& spec);

// The bias tables of a stack: "{name}.bias" where shared, "{name}.blocks.{i}.bias" where each layer
// has its own; [buckets, H] each.
class BiasTables {
 public:
  BiasTables(const StackSpec& spec, const TensorTable& table, const std::string& name);
  // The tables spread over distances [-left, right]: one a table, none where there is no bias.
  std::vector<DistanceBias> spread(bool bidirectional, int64_t left, int64_t right) const;
  // The entry of `spread` that layer i uses; null where there is no bias.
  static const DistanceBias* of_layer(const std::vector<DistanceBias>& biases, size_t layer);

 private:
  int32_t max_distance_;
  std::vector<Tensor> tables_;
};

// The angles of positions first, first + 1, ...: one table for every rotation that the stack's
// layers ask for.
class Rotations {
 public:
  Rotations(const StackSpec& spec, int64_t first, int64_t positions);
  // Null where the layer does not rotate.
  const RopeTable* of_layer(size_t layer) const {
    return of_layer_[layer] < 0 ? nullptr : &tables_[static_cast<size_t>(of_layer_[layer])];
  }

 private:
  std::vector<RopeTable> tables_;
  std::vector<int32_t> of_layer_;  // index of its table, -1: none
};

class EncoderStack {
 public:
  // Rows "{name}.blocks.{i}.*", "{name}.norm.*" where the spec has it, and the bias tables.
  EncoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
               const MatmulPolicy& policy);
  // x [S, D] -> output of the last block, normed where the spec has it, in place.
  // Stages traced: "{stage}.block.{i}", each block's output before the last norm.
  void run(const Context& context, Mat x, std::string_view stage) const;

 private:
  StackSpec spec_;
  BiasTables biases_;
  std::vector<Block> blocks_;
  std::optional<Norm> norm_;
};

}  // namespace pali
