#include "model/decoder_stack.hpp"

#include <algorithm>
#include <numeric>

#include "exec/grain.hpp"

namespace pali {
namespace {

// Rows of a memory whose keys and values are computed before they go where steps read them: 4 MB of
// PaLI-3's, which stay in the cache.
constexpr int64_t kCrossRows = 512;

}  // namespace

DecoderStack::DecoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
                           const MatmulPolicy& policy)
    : spec_(spec),
      compute_(policy.compute),
      biases_(spec, table, name),
      norm_(spec.block, table, name + ".norm") {
  for (int64_t i = 0; i < spec.layers; ++i) {
    blocks_.emplace_back(spec.block, table, name + ".blocks." + std::to_string(i), policy);
  }
}

CrossCache DecoderStack::cross_cache(const Context& context, ConstMat memory) const {
  const BlockSpec& block = spec_.block;
  const KernelType type = stored_type(compute_, context.kernels);
  const RowParts parts(memory.rows, kCrossRows);
  Tensor k(parts.most(), block.kv_width()), v(parts.most(), block.kv_width());
  CrossCache cache;
  for (const Block& layer : blocks_) {
    HeadRows& keys = cache.keys.emplace_back(memory.rows, block.kv_heads, block.head_dim, type);
    HeadRows& values = cache.values.emplace_back(memory.rows, block.kv_heads, block.head_dim, type);
    for (int64_t i = 0; i < parts.count(); ++i) {
      const int64_t first = parts.begin(i), rows = parts.begin(i + 1) - first;
      layer.cross_keys(context, memory.rows_from(first, rows), k.top(rows), v.top(rows));
      keys.write(context, first, k.top(rows));
      values.write(context, first, v.top(rows));
    }
  }
  return cache;
}

void DecoderStack::merge_memory(const Context& context, ConstMat memory, SelfCache& cache,
                                int64_t first) const {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].cross_keys(context, memory, cache.prefix_keys(i, first, memory.rows),
                          cache.prefix_values(i, first, memory.rows));
  }
}

StackRun DecoderStack::start(int64_t steps, int64_t first, int64_t positions) const {
  return {biases_.spread(/*bidirectional=*/false, steps - 1, 0),
          Rotations(spec_, first, positions)};
}

void DecoderStack::prefill(const Context& context, Mat x, const StackRun& run, SelfCache& cache,
                           int64_t first, Mat out) const {
  BlockScratch scratch(spec_.block, x.rows);
  std::vector<int32_t> rows(static_cast<size_t>(x.rows));
  std::iota(rows.begin(), rows.end(), 0);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    // Nobody asks what the prefix's other positions come to: the last block's keys are enough.
    const int64_t asking = i + 1 == blocks_.size() ? x.rows - 1 : 0;
    blocks_[i].encode(context, x, {nullptr, {}, run.rotations.of_layer(i), rows},
                      cache.prefix_keys(i, first, x.rows), cache.prefix_values(i, first, x.rows),
                      scratch, asking);
    if (context.tracing()) {
      context.trace("prefix.block." + std::to_string(i), x.rows_from(asking, x.rows - asking));
    }
  }
  norm_.run(context, x.rows_from(x.rows - 1, 1), out);
}

DecoderStack::StepScratch::StepScratch(const StackSpec& spec, int64_t capacity)
    : block(spec.block, capacity),
      self(static_cast<size_t>(capacity)),
      cross(static_cast<size_t>(capacity)) {}

void DecoderStack::step(const Context& context, Mat x, const StackRun& run,
                        const StepPlaces& places, SelfCache& cache, StepScratch& scratch) const {
  const auto batch = static_cast<size_t>(x.rows);
  const bool separate = spec_.block.cross == CrossAttention::separate;
  cache.advance(x.rows);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const bool windowed = spec_.mode(i).window > 0;
    for (size_t b = 0; b < batch; ++b) {
      const auto sequence = static_cast<int64_t>(b);
      scratch.self[b] = {StoredRows::side_by_side(cache.keys(i), spec_.block.head_dim),
                         StoredRows::side_by_side(cache.values(i), spec_.block.head_dim),
                         windowed ? cache.rows_in_window(sequence) : cache.rows(sequence)};
      if (!separate) continue;
      const CrossCache& memory = places.memories[static_cast<size_t>(places.memory_of[b])];
      scratch.cross[b] = {memory.keys[i].view(), memory.values[i].view(), {}};
    }
    const Positions positions{
        BiasTables::of_layer(run.biases, i), {}, run.rotations.of_layer(i), places.rows};
    blocks_[i].step(context, x, cache.new_keys(i, x.rows), cache.new_values(i, x.rows),
                    {scratch.self.data(), batch}, positions, {scratch.cross.data(), batch},
                    scratch.block);
  }
  norm_.run(context, x, x);
}

}  // namespace pali
