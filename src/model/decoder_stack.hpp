// A stack of blocks that grows its sequences one position at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/cross_cache.hpp"
#include "model/encoder_stack.hpp"
#include "model/self_cache.hpp"

namespace pali {

// What a run of the stack goes by, beside its cache; made once a run.
struct StackRun {
  std::vector<DistanceBias> biases;
  Rotations rotations;
};

// Where a step's B sequences stand.
struct StepPlaces {
  std::span<const int32_t> rows;         // of the rotations' tables; empty where nothing is rotated
  std::span<const CrossCache> memories;  // empty where there is no separate cross-attention
  std::span<const int32_t> memory_of;    // sequence -> its request's memory
};

class DecoderStack {
 public:
  // Rows "{name}.blocks.{i}.*", "{name}.norm.*" and the bias tables.
  DecoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
               const MatmulPolicy& policy);
  const StackSpec& spec() const { return spec_; }
  // memory [S, D] -> every layer's keys and values.
  CrossCache cross_cache(const Context& context, ConstMat memory) const;
  // The same into prefix rows [first, first + S) of the cache: blocks that merge cross-attention.
  void merge_memory(const Context& context, ConstMat memory, SelfCache& cache, int64_t first) const;
  // Biases of at most `steps` positions, distances [-(steps-1), 0]; angles of positions `first`,
  // `first` + 1, ..., as many as the longest sequence has.
  StackRun start(int64_t steps, int64_t first, int64_t positions) const;

  // A prefix that sees all of itself: x [S, D], overwritten; keys and values go to rows [first,
  // first + S) of the cache. out [1, D]: the last position's hidden state after the last norm.
  // Stages traced: prefix.block.{i}, of the last block the last row alone.
  void prefill(const Context& context, Mat x, const StackRun& run, SelfCache& cache, int64_t first,
               Mat out) const;

  // What a run of the stack writes into besides its caches; made once, so that a step allocates
  // nothing.
  struct StepScratch {
    StepScratch(const StackSpec& spec, int64_t capacity);
    BlockScratch block;
    std::vector<StepSequence> self, cross;
  };
  // x [B, D]: one position a sequence, in place -> hidden states after the last norm.
  void step(const Context& context, Mat x, const StackRun& run, const StepPlaces& places,
            SelfCache& cache, StepScratch& scratch) const;

 private:
  StackSpec spec_;
  ComputeType compute_;
  BiasTables biases_;
  std::vector<Block> blocks_;
  Norm norm_;
};

}  // namespace pali
