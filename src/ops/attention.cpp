// Cuts attention into tiles of one head and up to kAttentionQueries queries; the kernel streams
// over the keys. Tiles follow from the shape alone, so the bits do not depend on the threads.
#include "ops/attention.hpp"

#include <algorithm>

#include "exec/scratch.hpp"

namespace pali {
namespace {

void check(const AttentionShape& shape, ConstMat q, Mat out) {
  PALI_ASSERT(shape.heads >= 1 && shape.kv_heads >= 1 && shape.heads % shape.kv_heads == 0);
  PALI_ASSERT(shape.head_dim >= 1);
  PALI_ASSERT(q.cols == shape.heads * shape.head_dim);
  PALI_ASSERT(out.rows == q.rows && out.cols == q.cols);
}

void check_keys(const AttentionShape& shape, ConstMat k, ConstMat v) {
  PALI_ASSERT(k.rows >= 1 && v.rows == k.rows);
  PALI_ASSERT(k.cols == shape.kv_heads * shape.head_dim && v.cols == k.cols);
}

void check_bias(const AttentionShape& shape, const DistanceBias& bias, int64_t left,
                int64_t right) {
  PALI_ASSERT(bias.values.rows() == shape.heads);
  PALI_ASSERT(bias.left >= left && bias.values.cols() - 1 - bias.left >= right);
}

void check_mask(const AttentionShape& shape, const AttentionMask& mask, int64_t queries,
                int64_t keys) {
  if (mask.bias != nullptr) check_bias(shape, *mask.bias, queries - 1, keys - 1);
  if (mask.ranges.empty()) return;
  PALI_ASSERT(static_cast<int64_t>(mask.ranges.size()) == queries);
  for (const KeyRange& range : mask.ranges) {
    PALI_ASSERT(range.first >= 0 && range.first < range.end && range.end <= keys);
  }
}

// What a head's tiles have in common; the caller adds its queries.
AttentionTile head_tile(const AttentionShape& shape, int64_t head, ConstMat k, ConstMat v,
                        float* scratch) {
  const int64_t column = head / (shape.heads / shape.kv_heads) * shape.head_dim;
  AttentionTile tile{};
  tile.k = k.data + column;
  tile.k_stride = k.stride;
  tile.v = v.data + column;
  tile.v_stride = v.stride;
  tile.keys = k.rows;
  tile.head_dim = shape.head_dim;
  tile.scale = shape.scale;
  tile.soft_cap = shape.soft_cap;
  tile.scratch = scratch;
  return tile;
}

}  // namespace

void attention(const Context& context, const AttentionShape& shape, ConstMat q, ConstMat k,
               ConstMat v, const AttentionMask& mask, Mat out) {
  check(shape, q, out);
  if (q.rows == 0) return;
  check_keys(shape, k, v);
  check_mask(shape, mask, q.rows, k.rows);
  const int64_t blocks = (q.rows + kAttentionQueries - 1) / kAttentionQueries;
  // Blocks of one head follow each other: its keys and values stay in the cache.
  context.pool.parallel_for(shape.heads * blocks, 1, [&](int64_t begin, int64_t end, int) {
    const Scratch scratch(attention_scratch(shape.head_dim) * 4);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t head = index / blocks, first = index % blocks * kAttentionQueries;
      AttentionTile tile = head_tile(shape, head, k, v, scratch.as<float>());
      tile.q = q.row(first) + head * shape.head_dim;
      tile.q_stride = q.stride;
      tile.queries = std::min(kAttentionQueries, q.rows - first);
      tile.bias = mask.bias == nullptr ? nullptr : mask.bias->head(head) - first;
      tile.ranges = mask.ranges.empty() ? nullptr : mask.ranges.data() + first;
      tile.out = out.row(first) + head * shape.head_dim;
      tile.out_stride = out.stride;
      context.kernels.attention(tile);
    }
  });
}

void attention_step(const Context& context, const AttentionShape& shape, ConstMat q,
                    std::span<const StepSequence> sequences, const DistanceBias* bias, Mat out) {
  check(shape, q, out);
  PALI_ASSERT(q.rows == static_cast<int64_t>(sequences.size()));
  int64_t most_keys = 1;
  for (const StepSequence& sequence : sequences) {
    check_keys(shape, sequence.k, sequence.v);
    const int64_t keys =
        sequence.rows.empty() ? sequence.k.rows : static_cast<int64_t>(sequence.rows.size());
    if (bias != nullptr) check_bias(shape, *bias, keys - 1, 0);
    most_keys = std::max(most_keys, keys);
  }
  // A few keys of one head are less work than a fork and join.
  const int64_t grain = std::max<int64_t>(1, 32768 / (most_keys * shape.head_dim));
  const int64_t heads = q.rows * shape.heads;
  context.pool.parallel_for(heads, grain, [&](int64_t begin, int64_t end, int) {
    const Scratch scratch(attention_scratch(shape.head_dim) * 4);
    for (int64_t index = begin; index < end; ++index) {
      // One head of all sequences, then the next: beams find what they share in the cache.
      const int64_t b = index % q.rows, head = index / q.rows;
      const StepSequence& sequence = sequences[static_cast<size_t>(b)];
      AttentionTile tile = head_tile(shape, head, sequence.k, sequence.v, scratch.as<float>());
      if (!sequence.rows.empty()) {
        tile.rows = sequence.rows.data();
        tile.keys = static_cast<int64_t>(sequence.rows.size());
      }
      tile.q = q.row(b) + head * shape.head_dim;
      tile.q_stride = q.stride;
      tile.queries = 1;
      tile.bias = bias == nullptr ? nullptr : bias->head(head) - (tile.keys - 1);
      tile.out = out.row(b) + head * shape.head_dim;
      tile.out_stride = out.stride;
      context.kernels.attention(tile);
    }
  });
}

}  // namespace pali
