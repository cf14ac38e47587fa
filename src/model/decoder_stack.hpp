// A stack of blocks that grows its sequences one position at a time, and the caches it does so
// with.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/encoder_stack.hpp"

namespace pali {

// The self-attention keys and values of up to `capacity` sequences over `steps` positions, in every
// layer. Position t of sequence b is written to row t * capacity + b and never moves: an index
// table says which rows a sequence's past lies in, and reordering sequences permutes that table
// alone.
class SelfCache {
 public:
  SelfCache(int64_t layers, int64_t kv_width, int64_t capacity, int64_t steps);
  int64_t steps() const { return steps_; }
  int64_t capacity() const { return capacity_; }
  int64_t position() const { return position_; }  // positions that every sequence has

  // Opens position t = position() for sequences 0..batch-1.
  void advance(int64_t batch);
  // The rows of the newest position of layer `layer`: [batch, Hkv*Hd].
  Mat new_keys(size_t layer, int64_t batch) { return newest(keys_[layer], batch); }
  Mat new_values(size_t layer, int64_t batch) { return newest(values_[layer], batch); }
  ConstMat keys(size_t layer) const { return keys_[layer].view(); }
  ConstMat values(size_t layer) const { return values_[layer].view(); }
  // Rows of sequence b's keys, oldest first.
  std::span<const int32_t> rows(int64_t b) const {
    return {rows_.data() + b * steps_, static_cast<size_t>(position_)};
  }
  // Sequence i becomes what sequence source[i] was.
  void reorder(std::span<const int32_t> source);

 private:
  Mat newest(Tensor& cache, int64_t batch) {
    return cache.view().rows_from((position_ - 1) * capacity_, batch);
  }
  int64_t capacity_, steps_, position_ = 0;
  std::vector<Tensor> keys_, values_;         // a layer: [steps * capacity, Hkv*Hd]
  std::vector<int32_t> rows_, rows_swapped_;  // [capacity, steps]
};

// Cross-attention keys and values of one request: a layer [S, Hkv*Hd].
struct CrossCache {
  std::vector<Tensor> keys, values;
};

class DecoderStack {
 public:
  // Rows "{name}.blocks.{i}.*", "{name}.norm.*" and the bias tables.
  DecoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
               const MatmulPolicy& policy);
  const StackSpec& spec() const { return spec_; }

  // memory [S, D] -> every layer's keys and values.
  CrossCache cross_cache(const Context& context, ConstMat memory) const;
  // Biases of a run of at most `steps` positions: distances [-(steps-1), 0].
  std::vector<DistanceBias> step_biases(int64_t steps) const;

  // What a run of the stack writes into besides its caches; made once, so that a step allocates
  // nothing.
  struct StepScratch {
    StepScratch(const StackSpec& spec, int64_t capacity);
    BlockScratch block;
    std::vector<StepSequence> self, cross;
  };
  // x [B, D]: one position a sequence, in place -> hidden states after the last norm.
  // memory_of[b]: the index in `memories` of sequence b's request.
  void step(const Context& context, Mat x, SelfCache& cache,
            std::span<const DistanceBias* const> bias_of_layer,
            std::span<const CrossCache> memories, std::span<const int32_t> memory_of,
            StepScratch& scratch) const;

 private:
  StackSpec spec_;
  BiasTables biases_;
  std::vector<Block> blocks_;
  Norm norm_;
};

}  // namespace pali
