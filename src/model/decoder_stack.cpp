#include "model/decoder_stack.hpp"

#include <algorithm>

namespace pali {

SelfCache::SelfCache(int64_t layers, int64_t kv_width, int64_t capacity, int64_t steps)
    : capacity_(capacity),
      steps_(steps),
      rows_(static_cast<size_t>(capacity * steps)),
      rows_swapped_(rows_.size()) {
  for (int64_t i = 0; i < layers; ++i) {
    keys_.emplace_back(capacity * steps, kv_width);
    values_.emplace_back(capacity * steps, kv_width);
  }
}

void SelfCache::advance(int64_t batch) {
  PALI_ASSERT(position_ < steps_ && batch <= capacity_);
  for (int64_t b = 0; b < batch; ++b) {
    rows_[static_cast<size_t>(b * steps_ + position_)] =
        static_cast<int32_t>(position_ * capacity_ + b);
  }
  ++position_;
}

void SelfCache::reorder(std::span<const int32_t> source) {
  for (size_t i = 0; i < source.size(); ++i) {
    std::copy_n(rows_.data() + source[i] * steps_, position_,
                rows_swapped_.data() + static_cast<int64_t>(i) * steps_);
  }
  rows_.swap(rows_swapped_);
}

DecoderStack::DecoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
                           const MatmulPolicy& policy)
    : spec_(spec),
      biases_(spec, table, name),
      norm_(table, name + ".norm", spec.block.norm, spec.block.eps) {
  for (int64_t i = 0; i < spec.layers; ++i) {
    blocks_.emplace_back(spec.block, table, name + ".blocks." + std::to_string(i), policy);
  }
}

CrossCache DecoderStack::cross_cache(const Context& context, ConstMat memory) const {
  CrossCache cache;
  for (const Block& block : blocks_) {
    Tensor& k = cache.keys.emplace_back(memory.rows, spec_.block.kv_width());
    Tensor& v = cache.values.emplace_back(memory.rows, spec_.block.kv_width());
    block.cross_keys(context, memory, k.view(), v.view());
  }
  return cache;
}

std::vector<DistanceBias> DecoderStack::step_biases(int64_t steps) const {
  return biases_.spread(/*bidirectional=*/false, steps - 1, 0);
}

DecoderStack::StepScratch::StepScratch(const StackSpec& spec, int64_t capacity)
    : block(spec.block, capacity),
      self(static_cast<size_t>(capacity)),
      cross(static_cast<size_t>(capacity)) {}

void DecoderStack::step(const Context& context, Mat x, SelfCache& cache,
                        std::span<const DistanceBias* const> bias_of_layer,
                        std::span<const CrossCache> memories, std::span<const int32_t> memory_of,
                        StepScratch& scratch) const {
  const auto batch = static_cast<size_t>(x.rows);
  cache.advance(x.rows);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    for (size_t b = 0; b < batch; ++b) {
      scratch.self[b] = {cache.keys(i), cache.values(i), cache.rows(static_cast<int64_t>(b))};
      const CrossCache& memory = memories[static_cast<size_t>(memory_of[b])];
      scratch.cross[b] = {memory.keys[i].view(), memory.values[i].view(), {}};
    }
    blocks_[i].step(context, x, cache.new_keys(i, x.rows), cache.new_values(i, x.rows),
                    {scratch.self.data(), batch}, bias_of_layer[i], {scratch.cross.data(), batch},
                    scratch.block);
  }
  norm_.run(context, x, x);
}

}  // namespace pali
