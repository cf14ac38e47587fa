#include "model/encoder_stack.hpp"

#include <algorithm>

#include "ops/relative_bias.hpp"

namespace pali {
namespace {

// A small matrix of the checkpoint widened to f32.
Tensor widened(const TensorTable& table, const std::string& name) {
  const WeightRef& ref = table.matrix(name);
  const std::vector<float> values = table.values(name);
  Tensor matrix(ref.out, ref.in);
  for (int64_t o = 0; o < ref.out; ++o) {
    std::copy_n(values.data() + o * ref.in, ref.in, matrix.row(o));
  }
  return matrix;
}

}  // namespace

BiasTables::BiasTables(const StackSpec& spec, const TensorTable& table, const std::string& name)
    : max_distance_(spec.max_distance) {
  if (spec.bias == PositionBias::shared) {
    tables_.push_back(widened(table, name + ".bias"));
  } else if (spec.bias == PositionBias::per_layer) {
    for (int64_t i = 0; i < spec.layers; ++i) {
      tables_.push_back(widened(table, name + ".blocks." + std::to_string(i) + ".bias"));
    }
  }
}

std::vector<DistanceBias> BiasTables::spread(bool bidirectional, int64_t left,
                                             int64_t right) const {
  std::vector<DistanceBias> biases;
  for (const Tensor& table : tables_) {
    biases.push_back(distance_bias(table.view(), bidirectional, max_distance_, left, right));
  }
  return biases;
}

const DistanceBias* BiasTables::of_layer(const std::vector<DistanceBias>& biases, size_t layer) {
  if (biases.empty()) return nullptr;
  return biases.size() == 1 ? &biases[0] : &biases[layer];
}

EncoderStack::EncoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
                           const MatmulPolicy& policy)
    : spec_(spec),
      biases_(spec, table, name),
      norm_(table, name + ".norm", spec.block.norm, spec.block.eps) {
  for (int64_t i = 0; i < spec.layers; ++i) {
    blocks_.emplace_back(spec.block, table, name + ".blocks." + std::to_string(i), policy);
  }
}

void EncoderStack::run(const Context& context, Mat x, std::string_view stage) const {
  BlockScratch scratch(spec_.block, x.rows);
  Tensor k(x.rows, spec_.block.kv_width()), v(x.rows, spec_.block.kv_width());
  // The bias of (query m, key n) depends on n - m alone: 2S-1 numbers a head.
  const std::vector<DistanceBias> biases =
      biases_.spread(/*bidirectional=*/true, x.rows - 1, x.rows - 1);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].encode(context, x, BiasTables::of_layer(biases, i), k.view(), v.view(), scratch);
    if (context.tracing()) {
      context.trace(std::string(stage) + ".block." + std::to_string(i), x);
    }
  }
  norm_.run(context, x, x);
}

}  // namespace pali
