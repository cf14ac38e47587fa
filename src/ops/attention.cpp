// Brings keys and values of a head into the kernel's blocks, then cuts the queries into tiles; the
// kernel streams over the blocks. Blocks and tiles follow from the shape alone, so the bits do not
// depend on the threads. Few queries do without blocks.
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

void check_keys(const AttentionShape& shape, const StoredRows& k, const StoredRows& v) {
  PALI_ASSERT(k.rows >= 1 && v.rows == k.rows && v.type == k.type);
  for (const StoredRows& stored : {k, v}) {
    PALI_ASSERT(stored.heads == shape.kv_heads && stored.head_dim == shape.head_dim);
  }
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

constexpr int64_t kFewQueries = 2;  // up to here, reading K and V in place is faster

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

const void* head_of(const StoredRows& stored, int64_t head) {
  const int64_t bytes = stored.type == KernelType::f32 ? 4 : 2;
  return static_cast<const std::byte*>(stored.data) + head * stored.apart * bytes;
}

// What the queries of one head have in common: `q`, `bias` and `out` are theirs to add.
AttentionRow head_row(const AttentionShape& shape, int64_t head, const StoredRows& k,
                      const StoredRows& v) {
  const int64_t kv_head = head / (shape.heads / shape.kv_heads);
  AttentionRow row{};
  row.queries = 1;
  row.type = k.type;
  row.k = head_of(k, kv_head);
  row.k_stride = k.stride;
  row.v = head_of(v, kv_head);
  row.v_stride = v.stride;
  row.keys = k.rows;
  row.head_dim = shape.head_dim;
  row.scale = shape.scale;
  row.soft_cap = shape.soft_cap;
  return row;
}

// All rows of the same memory.
bool same_keys(const StepSequence& a, const StepSequence& b) {
  return a.rows.empty() && b.rows.empty() && a.k.data == b.k.data && a.v.data == b.v.data &&
         a.k.rows == b.k.rows;
}

void attend_few(const Context& context, const AttentionShape& shape, ConstMat q, ConstMat k,
                ConstMat v, const AttentionMask& mask, Mat out) {
  context.pool.parallel_for(shape.heads, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t head = begin; head < end; ++head) {
      for (int64_t m = 0; m < q.rows; ++m) {
        const KeyRange all{0, static_cast<int32_t>(k.rows)};
        const KeyRange seen = mask.ranges.empty() ? all : mask.ranges[static_cast<size_t>(m)];
        const int64_t first = seen.first, count = seen.end - seen.first;
        AttentionRow row = head_row(
            shape, head, StoredRows::side_by_side(k.rows_from(first, count), shape.head_dim),
            StoredRows::side_by_side(v.rows_from(first, count), shape.head_dim));
        row.q = q.row(m) + head * shape.head_dim;
        row.out = out.row(m) + head * shape.head_dim;
        if (mask.bias != nullptr) row.bias = mask.bias->head(head) + (first - m);
        context.kernels.attend_row(row);
      }
    }
  });
}

// Key heads whose blocks are made together: enough for tiles that keep the threads evenly busy, no
// more, so that blocks stay in the cache and in memory that is kept.
int64_t heads_together(const AttentionShape& shape, int64_t tiles, int threads) {
  constexpr int64_t kTilesPerThread = 16;
  const int64_t tiles_of_key_head = tiles * (shape.heads / shape.kv_heads);
  return std::clamp<int64_t>(ceil_div(kTilesPerThread * threads, tiles_of_key_head), 1,
                             shape.kv_heads);
}

}  // namespace

void attention(const Context& context, const AttentionShape& shape, ConstMat q, ConstMat k,
               ConstMat v, const AttentionMask& mask, Mat out) {
  check(shape, q, out);
  if (q.rows == 0) return;
  PALI_ASSERT(k.cols == shape.kv_heads * shape.head_dim && v.cols == k.cols);
  check_keys(shape, StoredRows::side_by_side(k, shape.head_dim),
             StoredRows::side_by_side(v, shape.head_dim));
  check_mask(shape, mask, q.rows, k.rows);
  if (q.rows <= kFewQueries) return attend_few(context, shape, q, k, v, mask, out);

  const AttentionKernels& kernels = attends_in_bf16(shape.compute, context.kernels)
                                        ? context.kernels.attention_bf16
                                        : context.kernels.attention_f32;
  const int64_t dim = shape.head_dim, shared = shape.heads / shape.kv_heads;
  const int64_t blocks = ceil_div(k.rows, kernels.keys), tiles = ceil_div(q.rows, kernels.queries);
  const int64_t block_bytes = kernels.block_bytes(dim);
  const int64_t together = heads_together(shape, tiles, context.pool.size());
  const Scratch memory(together * blocks * block_bytes);

  for (int64_t first = 0; first < shape.kv_heads; first += together) {
    const int64_t count = std::min(together, shape.kv_heads - first);
    context.pool.parallel_for(count * blocks, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t index = begin; index < end; ++index) {
        const int64_t column = (first + index / blocks) * dim;
        const int64_t key = index % blocks * kernels.keys;
        kernels.prepare(k.row(key) + column, k.stride, v.row(key) + column, v.stride,
                        std::min(kernels.keys, k.rows - key), dim,
                        memory.as<std::byte>() + index * block_bytes);
      }
    });
    // Tiles of one head follow each other: its blocks stay in the cache.
    context.pool.parallel_for(count * shared * tiles, 1, [&](int64_t begin, int64_t end, int) {
      const Scratch scratch(kernels.scratch_bytes(dim));
      for (int64_t index = begin; index < end; ++index) {
        const int64_t head = first * shared + index / tiles;
        const int64_t query = index % tiles * kernels.queries;
        AttentionTile tile{};
        tile.q = q.row(query) + head * dim;
        tile.q_stride = q.stride;
        tile.queries = std::min(kernels.queries, q.rows - query);
        tile.blocks = memory.as<std::byte>() + index / tiles / shared * blocks * block_bytes;
        tile.keys = k.rows;
        tile.head_dim = dim;
        tile.scale = shape.scale;
        tile.soft_cap = shape.soft_cap;
        tile.bias = mask.bias == nullptr ? nullptr : mask.bias->head(head) - query;
        tile.ranges = mask.ranges.empty() ? nullptr : mask.ranges.data() + query;
        tile.out = out.row(query) + head * dim;
        tile.out_stride = out.stride;
        tile.scratch = scratch.as<std::byte>();
        kernels.attend(tile);
      }
    });
  }
}

bool attends_in_bf16(ComputeType compute, const KernelTable& kernels) {
  if (kernels.attention_bf16.attend == nullptr) return false;
  return compute == ComputeType::bf16 ||
         (compute == ComputeType::int8 && kernels.fused_bf16.multiply != nullptr);
}

KernelType stored_type(ComputeType compute, const KernelTable& kernels) {
  const bool coarse = compute == ComputeType::bf16 || compute == ComputeType::int8;
  return coarse && kernels.gemm_bf16.multiply != nullptr ? KernelType::bf16 : KernelType::f32;
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
    for (int64_t index = begin; index < end;) {
      // One head of all sequences, then the next: beams find what they share in the cache, and go
      // together where they see the same keys.
      const int64_t b = index % q.rows, head = index / q.rows;
      const StepSequence& sequence = sequences[static_cast<size_t>(b)];
      AttentionRow row = head_row(shape, head, sequence.k, sequence.v);
      if (!sequence.rows.empty()) {
        row.rows = sequence.rows.data();
        row.keys = static_cast<int64_t>(sequence.rows.size());
      }
      const int64_t most = std::min({kRowQueries, q.rows - b, end - index});
      while (row.queries < most &&
             same_keys(sequence, sequences[static_cast<size_t>(b + row.queries)])) {
        ++row.queries;
      }
      row.q = q.row(b) + head * shape.head_dim;
      row.q_stride = q.stride;
      row.bias = bias == nullptr ? nullptr : bias->head(head) - (row.keys - 1);
      row.out = out.row(b) + head * shape.head_dim;
      row.out_stride = out.stride;
      context.kernels.attend_row(row);
      index += row.queries;
    }
  });
}

}  // namespace pali
