#include "model/encoder_stack.hpp"

#include <algorithm>
#include <numeric>

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

// A window about each of `count` positions, its own included: what is odd falls ahead of it.
// Ref: sliding_window_mask_function(is_causal=False) in modeling_t5gemma2.py.
std::vector<KeyRange> window_ranges(int64_t window, int64_t count) {
  std::vector<KeyRange> ranges;
  if (window == 0) return ranges;
  const int64_t back = (window + 1) / 2 - 1, ahead = window / 2;
  for (int64_t q = 0; q < count; ++q) {
    ranges.push_back({static_cast<int32_t>(std::max<int64_t>(q - back, 0)),
                      static_cast<int32_t>(std::min(q + ahead + 1, count))});
  }
  return ranges;
}

}  // namespace

int64_t window_of(const StackSpec& spec) {
  int64_t window = 0;
  for (const LayerMode& mode : spec.modes) {
    PALI_ASSERT(window == 0 || mode.window == 0 || mode.window == window);
    window = std::max(window, mode.window);
  }
  return window;
}

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

Rotations::Rotations(const StackSpec& spec, int64_t first, int64_t positions) {
  std::vector<RopeSpec> specs;
  for (int64_t i = 0; i < spec.layers; ++i) {
    const RopeSpec wanted = spec.mode(static_cast<size_t>(i)).rope;
    if (wanted.theta == 0) {
      of_layer_.push_back(-1);
      continue;
    }
    const auto found = std::find(specs.begin(), specs.end(), wanted);
    of_layer_.push_back(static_cast<int32_t>(found - specs.begin()));
    if (found != specs.end()) continue;
    specs.push_back(wanted);
    tables_.push_back(rope_table(wanted, spec.block.head_dim, first, positions));
  }
}

EncoderStack::EncoderStack(const StackSpec& spec, const TensorTable& table, const std::string& name,
                           const MatmulPolicy& policy)
    : spec_(spec), biases_(spec, table, name) {
  if (spec.norm_after) norm_.emplace(spec.block, table, name + ".norm");
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
  const Rotations rotations(spec_, 0, x.rows);
  std::vector<int32_t> rows(static_cast<size_t>(x.rows));
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<KeyRange> ranges = window_ranges(window_of(spec_), x.rows);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Positions positions{BiasTables::of_layer(biases, i), {}, rotations.of_layer(i), rows};
    if (spec_.mode(i).window > 0) positions.ranges = ranges;
    blocks_[i].encode(context, x, positions, k.view(), v.view(), scratch);
    if (context.tracing()) {
      context.trace(std::string(stage) + ".block." + std::to_string(i), x);
    }
  }
  if (norm_) norm_->run(context, x, x);
}

}  // namespace pali
