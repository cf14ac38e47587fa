// A tile of queries against the keys of one head, softmax streaming and in f32. Included once by
// each ISA source. Lanes are queries: S^T = K Q^T and O^T = V^T P^T, so that any head width runs
// without padding, K and V are read one broadcast at a time, and maxima and sums need no horizontal
// steps. O: what the products read (attention_operands-inl.hpp).
#pragma once

#include "kernels/attention_mask-inl.hpp"
#include "kernels/attention_operands-inl.hpp"

namespace pali {
namespace {

// Rows of K (or of V^T) times the queries' tile: kRows x kWidth sums over `depth` dwords. Row i's
// factor of step t lies at a + i * row_step + t * depth_step, the tile's row t at b + t * kWidth.
template <class S, class O, int kRows, bool kRowsContiguous>
[[gnu::always_inline]] inline void product(const float* a, int64_t stride, const float* b,
                                           int64_t depth, typename S::F (&sums)[kRows][2]) {
  using F = typename S::F;
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  constexpr int kPointers = kRowsContiguous ? 1 : (kRows + 2) / 3;
  const float* rows[kPointers];
  unroll<kPointers>([&](auto p) __attribute__((always_inline)) { rows[p] = a + 3 * p * stride; });
  for (int64_t t = 0; t < depth; ++t) {
    const F b0 = S::load(b);
    const F b1 = S::load(b + S::kLanes);
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
      const float* p = nullptr;
      if constexpr (kRowsContiguous) {
        p = rows[0] + i;
      } else {
        p = rows[i / 3] + (i % 3) * stride + t;
      }
      const F x = S::broadcast(p);
      sums[i][0] = O::step(x, b0, sums[i][0]);
      sums[i][1] = O::step(x, b1, sums[i][1]);
    });
    if constexpr (kRowsContiguous) rows[0] += stride;
    b += kWidth;
  }
}

// kRows rows of the scores: scale * sums + bias, kept, and their maximum by query.
// reversed[x] is the bias of key - query = first key - x.
template <class S, class O, int kRows>
void score_rows(const float* k, int64_t k_stride, const float* queries, int64_t depth, float scale,
                const float* reversed, float* scores, float* highest) {
  using F = typename S::F;
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  F sums[kRows][2];
  unroll<kRows>([&](auto i) __attribute__((always_inline)) {
    sums[i][0] = S::zero();
    sums[i][1] = S::zero();
  });
  product<S, O, kRows, false>(k, k_stride, queries, depth, sums);
  const F factor = S::set(scale);
  F high0 = S::load(highest);
  F high1 = S::load(highest + S::kLanes);
  unroll<kRows>([&](auto i) __attribute__((always_inline)) {
    F s0 = S::mul(sums[i][0], factor);
    F s1 = S::mul(sums[i][1], factor);
    if (reversed != nullptr) {
      s0 = S::add(s0, S::load(reversed - i));
      s1 = S::add(s1, S::load(reversed - i + S::kLanes));
    }
    high0 = S::max(high0, s0);
    high1 = S::max(high1, s1);
    S::store(scores + i * kWidth, s0);
    S::store(scores + i * kWidth + S::kLanes, s1);
  });
  S::store(highest, high0);
  S::store(highest + S::kLanes, high1);
}

template <class S, class O, int kRows>
void scores_of(const float* k, int64_t k_stride, int64_t rows, const float* queries, int64_t depth,
               float scale, const float* reversed, float* scores, float* highest) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return scores_of<S, O, kRows - 1>(k, k_stride, rows, queries, depth, scale, reversed, scores,
                                        highest);
    }
  }
  score_rows<S, O, kRows>(k, k_stride, queries, depth, scale, reversed, scores, highest);
}

// kRows rows of O^T: corrected by the change of the maxima, plus this block's V^T P^T.
template <class S, class O, int kRows>
void output_rows(const float* v, int64_t v_stride, const float* weights, int64_t depth,
                 const float* correction, float* out) {
  using F = typename S::F;
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  const F correct0 = S::load(correction);
  const F correct1 = S::load(correction + S::kLanes);
  F sums[kRows][2];
  unroll<kRows>([&](auto i) __attribute__((always_inline)) {
    sums[i][0] = S::mul(S::load(out + i * kWidth), correct0);
    sums[i][1] = S::mul(S::load(out + i * kWidth + S::kLanes), correct1);
  });
  product<S, O, kRows, true>(v, v_stride, weights, depth, sums);
  unroll<kRows>([&](auto i) __attribute__((always_inline)) {
    S::store(out + i * kWidth, sums[i][0]);
    S::store(out + i * kWidth + S::kLanes, sums[i][1]);
  });
}

template <class S, class O, int kRows>
void outputs_of(const float* v, int64_t v_stride, int64_t rows, const float* weights, int64_t depth,
                const float* correction, float* out) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return outputs_of<S, O, kRows - 1>(v, v_stride, rows, weights, depth, correction, out);
    }
  }
  output_rows<S, O, kRows>(v, v_stride, weights, depth, correction, out);
}

// Running state of one group of kWidth queries, in the tile's scratch.
template <class S>
struct QueryGroup {
  float* queries;  // [dwords of dim, kWidth]
  float* out;      // [dim, kWidth]
  float* highest;  // [kWidth], as are the following
  float* block_highest;
  float* total;
  float* correction;
  float* first;  // of each query's range of keys, as f32: exact up to 2^24
  float* end;
  SeenKeys seen;
};

// What a block's plain scores may still need, in this order: the soft cap, the bias (`reversed` of
// key 0), -inf where a query does not see the key. Their maxima then come from here.
template <class S>
void adjust_scores(const AttentionTile& tile, const QueryGroup<S>& group, int64_t first_key,
                   int64_t keys, const float* reversed, float* scores) {
  using F = typename S::F;
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  const F hidden = S::set(-__builtin_inff());
  const F cap = S::set(tile.soft_cap);
  for (int lane = 0; lane < kWidth; lane += S::kLanes) {
    const F begin = S::load(group.first + lane), end = S::load(group.end + lane);
    F high = S::load(group.highest + lane);
    for (int64_t j = 0; j < keys; ++j) {
      F s = S::load(scores + j * kWidth + lane);
      if (tile.soft_cap > 0.0f) s = S::mul(cap, tanh<S>(S::div(s, cap)));
      if (reversed != nullptr) s = S::add(s, S::load(reversed - j + lane));
      const F key = S::set(static_cast<float>(first_key + j));
      s = S::if_negative(S::sub(key, begin), hidden, s);
      s = S::if_negative(S::sub(key, end), s, hidden);
      high = S::max(high, s);
      S::store(scores + j * kWidth + lane, s);
    }
    S::store(group.block_highest + lane, high);
  }
}

// Scores of one block to their exponentials, as O multiplies them; maxima, sums and corrections by
// query brought up to date. `block_highest`: the maxima with this block's in.
template <class S, class O>
void softmax_block(float* scores, int64_t keys, const float* block_highest, float* highest,
                   float* total, float* correction) {
  using F = typename S::F;
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  for (int lane = 0; lane < kWidth; lane += S::kLanes) {
    const F next = S::load(block_highest + lane);
    // All scores so far -inf: any finite shift keeps their exponentials at 0.
    const F shift = S::max(S::set(-3.402823466e38f), next);
    const F correct = exp_without_subnormals<S>(S::sub(S::load(highest + lane), shift));
    F sums[2] = {S::zero(), S::zero()};
    const auto weight = [&](auto chain, int64_t key) __attribute__((always_inline)) {
      const F one = exp_without_subnormals<S>(S::sub(S::load(scores + key * kWidth + lane), shift));
      sums[chain] = S::add(sums[chain], one);
      return one;
    };
    int64_t j = 0;
    for (; j + 2 <= keys; j += 2) {
      const F even = weight(Index<0>{}, j), odd = weight(Index<1>{}, j + 1);
      O::store_weights(scores + O::dwords(j) * kWidth + lane, even, odd);
    }
    if (j < keys) {
      O::store_last_weight(scores + O::dwords(j) * kWidth + lane, weight(Index<0>{}, j));
    }
    const F before = S::mul(S::load(total + lane), correct);
    S::store(total + lane, S::add(before, S::add(sums[0], sums[1])));
    S::store(correction + lane, correct);
    S::store(highest + lane, next);
  }
}

// dim rows of kWidth lanes -> rows x dim (row-major); missing queries are not stored.
template <class S>
void turn_out(const float* turned, const float* total, int64_t queries, int64_t dim, float* out,
              int64_t out_stride) {
  constexpr int kWidth = AttentionShapeOf<S>::kWidth;
  for (int lane = 0; lane < queries; lane += S::kLanes) {
    const auto scale = S::div(S::set(1.0f), S::load(total + lane));
    for (int64_t d = 0; d < dim; d += S::kLanes) {
      typename S::F r[S::kLanes];
      const int64_t columns = smaller(dim - d, S::kLanes);
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        r[i] = S::mul(S::load(turned + (d + i) * kWidth + lane), scale);
      });
      S::transpose(r);
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        if (lane + i < queries) S::store_n(out + (lane + i) * out_stride + d, r[i], columns);
      });
    }
  }
}

// Scores and reversed bias of one group and block; state of every group.
inline int64_t attention_scratch_bytes(int64_t head_dim) {
  const int64_t padded = (head_dim + 15) / 16 * 16;
  return 4 * (34 * kBlockKeys + 7 * kTileQueries + 2 * kTileQueries * padded);
}

// All groups of queries against one block of keys before the next block: K and V come from memory
// once a tile. At 3364 keys of width 104, 128 queries a tile run at 46 % of the FMA peak where 32
// ran at 29 % (one core of a busy machine).
template <class S, class O>
void attend(const AttentionTile& tile) {
  using Shape = AttentionShapeOf<S>;
  constexpr int kWidth = Shape::kWidth;
  constexpr int kGroups = kTileQueries / kWidth;
  const int64_t dim = tile.head_dim;
  const int64_t padded = (dim + 15) / 16 * 16;
  const int64_t groups = (tile.queries + kWidth - 1) / kWidth;
  const int64_t depth = O::dwords(dim);
  const bool biased = tile.bias != nullptr;
  float* scores = reinterpret_cast<float*>(tile.scratch);  // [kBlockKeys, kWidth]
  float* reversed = scores + kBlockKeys * kWidth;          // kBlockKeys + kWidth
  float* next = reversed + kBlockKeys + kWidth;
  const auto take = [&](int64_t n) __attribute__((always_inline)) {
    float* taken = next;
    next += n;
    return taken;
  };

  QueryGroup<S> state[kGroups];
  int64_t begin = tile.keys, end = 0;
  for (int64_t g = 0; g < groups; ++g) {
    state[g] = {.queries = take(padded * kWidth),
                .out = take(padded * kWidth),
                .highest = take(kWidth),
                .block_highest = take(kWidth),
                .total = take(kWidth),
                .correction = take(kWidth),
                .first = take(kWidth),
                .end = take(kWidth),
                .seen = {}};
    state[g].seen = seen_keys(tile, g * kWidth, smaller(tile.queries - g * kWidth, kWidth));
    for (int lane = 0; lane < kWidth; ++lane) {
      const KeyRange range = range_of(tile, g * kWidth + lane);
      state[g].first[lane] = static_cast<float>(range.first);
      state[g].end[lane] = static_cast<float>(range.end);
    }
    begin = smaller(begin, state[g].seen.any_first);
    end = larger(end, state[g].seen.any_end);
    O::turn_in(tile.q + g * kWidth * tile.q_stride, tile.q_stride,
               smaller(tile.queries - g * kWidth, kWidth), dim, state[g].queries);
    for (int64_t i = 0; i < padded * kWidth; i += S::kLanes) S::store(state[g].out + i, S::zero());
    for (int lane = 0; lane < kWidth; lane += S::kLanes) {
      S::store(state[g].highest + lane, S::set(-__builtin_inff()));
      S::store(state[g].block_highest + lane, S::set(-__builtin_inff()));
      S::store(state[g].total + lane, S::zero());
    }
  }
  const int64_t blocks = (dim + Shape::kColumns - 1) / Shape::kColumns;
  const int64_t columns = (dim + blocks - 1) / blocks;

  for (int64_t key = begin / kBlockKeys * kBlockKeys; key < end; key += kBlockKeys) {
    const int64_t keys = smaller(tile.keys - key, kBlockKeys);
    const float* k =
        reinterpret_cast<const float*>(tile.blocks + key / kBlockKeys * O::block_bytes(dim));
    const float* v = k + kBlockKeys * depth;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * kWidth;
      const QueryGroup<S>& group = state[g];
      if (!group.seen.sees(key, key + keys)) continue;
      const bool adjust = tile.soft_cap > 0.0f || !group.seen.sees_all(key, key + keys);
      if (biased) {
        // reversed[x] = bias[last key - first - x]: lanes (queries) then run upwards.
        const float* last = tile.bias + (key + keys - 1 - first);
        const int64_t used = keys - 1 + smaller(tile.queries - first, kWidth);
        for (int64_t x = 0; x < used; ++x) reversed[x] = last[-x];
        for (int64_t x = used; x < keys - 1 + kWidth; ++x) reversed[x] = 0.0f;
      }
      for (int64_t j = 0; j < keys; j += Shape::kKeys) {
        scores_of<S, O, Shape::kKeys>(k + j * depth, depth, smaller(keys - j, Shape::kKeys),
                                      group.queries, depth, tile.scale,
                                      biased && !adjust ? reversed + (keys - 1 - j) : nullptr,
                                      scores + j * kWidth, group.block_highest);
      }
      if (adjust) {
        adjust_scores<S>(tile, group, key, keys, biased ? reversed + (keys - 1) : nullptr, scores);
      }
      softmax_block<S, O>(scores, keys, group.block_highest, group.highest, group.total,
                          group.correction);
      for (int64_t d = 0; d < dim; d += columns) {
        outputs_of<S, O, Shape::kColumns>(v + d, dim, smaller(dim - d, columns), scores,
                                          O::dwords(keys), group.correction,
                                          group.out + d * kWidth);
      }
    }
  }
  for (int64_t g = 0; g < groups; ++g) {
    turn_out<S>(state[g].out, state[g].total, smaller(tile.queries - g * kWidth, kWidth), dim,
                tile.out + g * kWidth * tile.out_stride, tile.out_stride);
  }
}

template <class S, class O>
AttentionKernels attention_kernels() {
  return {.queries = kTileQueries,
          .keys = kBlockKeys,
          .block_bytes = O::block_bytes,
          .scratch_bytes = attention_scratch_bytes,
          .prepare = O::prepare,
          .attend = attend<S, O>};
}

}  // namespace
}  // namespace pali
