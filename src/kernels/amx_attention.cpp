// Attention of the amx tier: bf16 operands in tile registers, softmax in f32.
//
// Rows of the tiles are queries, 32 of them against a block of keys: S = Q K^T goes to memory, its
// exponentials come back as bf16, O += P V. Two units work side by side: while the tiles multiply
// the next block's scores and the last block's values, the vector unit does this block's softmax,
// a few rows after each step of the tiles. Weights are relative to a maximum that follows the
// scores only when they have outgrown it, so that sums are seldom corrected. V has one column more,
// of ones: the sums of the weights, as rounded, come out beside those of the values.
#include <immintrin.h>

#include "kernels/attention_mask-inl.hpp"
#include "kernels/simd_avx512.hpp"
#include "kernels/tiles-inl.hpp"

namespace pali {
namespace {

constexpr int64_t kGroup = 32;  // queries: two tiles
constexpr int64_t kGroups = 8;
constexpr int64_t kTileQueries = kGroup * kGroups;
constexpr int64_t kStepKeys = 32;  // of one softmax, of one step of P V
constexpr int64_t kBlockSteps = 4;
constexpr int64_t kBlockKeys = kStepKeys * kBlockSteps;
constexpr int64_t kSpanSteps = 16;  // of keys that all groups are held against before the next ones

constexpr TileConfig kConfig = whole_tiles();  // 0-3 sums, 4-5 queries' rows, 6-7 keys or values

constexpr int64_t depth_of(int64_t dim) { return (dim + 31) / 32; }  // steps of Q K^T
constexpr int64_t columns_of(int64_t dim) { return dim / 16 + 1; }   // tiles of V, with the ones
constexpr int64_t keys_bytes(int64_t dim) { return depth_of(dim) * 2 * kBlockSteps * kTile; }
constexpr int64_t values_bytes(int64_t dim) { return columns_of(dim) * kBlockSteps * kTile; }

int64_t block_bytes(int64_t dim) { return keys_bytes(dim) + values_bytes(dim); }

// K: for each 16 keys, a tile a step of 32 dims: dword (pair of dims, key). V: for each column of
// 16 dims, a tile a step of 32 keys: dword (key j of 16, dim) is the pair of keys j and j + 16.
void prepare(const float* k, int64_t k_stride, const float* v, int64_t v_stride, int64_t n,
             int64_t dim, std::byte* block) {
  const int64_t depth = depth_of(dim), columns = columns_of(dim);
  for (int64_t key = 0; key < kBlockKeys; key += 16) {
    for (int64_t s = 0; s < depth; ++s) {
      const int64_t left = dim - s * 32;
      F r[16];
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        const float* p = k + (key + i) * k_stride + s * 32;
        r[i] = key + i < n
                   ? _mm512_castsi512_ps(narrow(_mm512_maskz_loadu_ps(first16(left), p),
                                                _mm512_maskz_loadu_ps(first16(left - 16), p + 16)))
                   : _mm512_setzero_ps();
      });
      Avx512::transpose(r);
      float* to = reinterpret_cast<float*>(block + (key / 16 * depth + s) * kTile);
      unroll<16>([&](auto i)
                     __attribute__((always_inline)) { _mm512_store_ps(to + i * 16, r[i]); });
    }
  }
  std::byte* values = block + keys_bytes(dim);
  const __m512i order = [] {
    alignas(64) uint16_t words[32];
    for (int i = 0; i < 16; ++i) words[2 * i] = i, words[2 * i + 1] = 16 + i;
    return _mm512_load_si512(words);
  }();
  for (int64_t column = 0; column < columns; ++column) {
    const __mmask16 some = first16(dim - column * 16);
    const __mmask16 one = column + 1 == columns ? __mmask16(1u << dim % 16) : __mmask16{0};
    for (int64_t r = 0; r < kBlockSteps; ++r) {
      std::byte* to = values + (column * kBlockSteps + r) * kTile;
      for (int64_t j = 0; j < 16; ++j) {
        const auto row = [&](int64_t key) __attribute__((always_inline)) {
          if (key >= n) return _mm512_setzero_ps();
          return _mm512_mask_mov_ps(_mm512_maskz_loadu_ps(some, v + key * v_stride + column * 16),
                                    one, _mm512_set1_ps(1.0f));
        };
        const __m512i halves = narrow(row(r * 32 + j), row(r * 32 + j + 16));
        _mm512_store_si512(to + j * 64,
                           _mm512_maskz_permutexvar_epi16(~__mmask32{0}, order, halves));
      }
    }
  }
}

// The running state of 32 queries.
struct Group {
  std::byte* queries;            // [depth][2] tiles
  float* out;                    // [columns][2] tiles
  float* shift;                  // [kGroup], in units of log2: kLowest before any score
  int64_t first_step, end_step;  // of keys that some query sees
  SeenKeys seen;
  bool started;  // shifts are there
  bool fresh;    // nothing in `out` yet
};

int64_t group_bytes(int64_t dim) {
  return (2 * depth_of(dim) + 2 * columns_of(dim)) * kTile + kGroup * 4;
}

constexpr int64_t kScoreFloats = kGroup * kStepKeys;
constexpr int64_t kWeightBytes = kGroup * kBlockKeys * 2;

// Scores of two steps, weights of two blocks, and the groups.
int64_t scratch_bytes(int64_t dim) {
  return 2 * (kScoreFloats * 4 + kWeightBytes) + kGroups * group_bytes(dim);
}

constexpr float kLog2E = 1.44269504088896341f;
// Weights reach 2^kSlack before the maximum follows: far from any overflow, seldom passed.
constexpr float kSlack = 16.0f;
constexpr float kLowest = -3.402823466e38f;

// 2^z within 7.5e-5 of itself, plus half a unit of bf16: what is left after cutting to bf16 is
// then rounded to nearest. Minimax fit of 2^f on [0, 1).
[[gnu::always_inline]] inline F power_to_cut(F z) {
  const F f = _mm512_maskz_reduce_ps(0xffff, z, 0x09);  // z - floor(z)
  F p = _mm512_set1_ps(0.0780249049f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.226066652f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.695833669f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999925226f + 0x1p-8f));
  // By 2^floor(z); 0 where that is subnormal, which costs more than a hundred cycles a vector.
  const __mmask16 normal = _mm512_cmp_ps_mask(z, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, p, z);
}

// Scores of 32 queries and 32 keys, four tiles [2 of keys][2 of queries], and how they become what
// softmax takes the exponentials of, in units of log2.
struct Scores {
  const AttentionTile* tile;
  const float* tiles;
  int64_t query, key;  // of the first
  float factor;        // where nothing but that is needed
  bool plain;          // so it is

  [[gnu::always_inline]] F raw(int64_t i, int64_t t) const {
    return _mm512_load_ps(tiles + t * 512 + i * 16);
  }
  // Scale, soft cap, bias, range.
  [[gnu::always_inline]] F adjusted(int64_t i, int64_t t) const {
    const int64_t m = query + i;
    const KeyRange range = m < tile->queries ? range_of(*tile, m) : KeyRange{0, 0};
    const int64_t first = key + 16 * t;
    const __m512i keys = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 seen = _mm512_mask_cmplt_epi32_mask(
        _mm512_cmple_epi32_mask(_mm512_set1_epi32(static_cast<int>(range.first - first)), keys),
        keys, _mm512_set1_epi32(static_cast<int>(range.end - first)));
    F x = _mm512_mul_ps(raw(i, t), _mm512_set1_ps(tile->scale));
    if (tile->soft_cap > 0.0f) {
      const F cap = _mm512_set1_ps(tile->soft_cap);
      x = _mm512_mul_ps(cap, tanh<Avx512>(_mm512_div_ps(x, cap)));
    }
    if (tile->bias != nullptr) {
      x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(seen, tile->bias + (first - m)));
    }
    x = _mm512_mul_ps(x, _mm512_set1_ps(kLog2E));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, x);
  }
  [[gnu::always_inline]] F logits(int64_t i, int64_t t) const {
    return plain ? _mm512_mul_ps(raw(i, t), _mm512_set1_ps(factor)) : adjusted(i, t);
  }
};

// A step's weights, a few rows at a time.
struct Softmax {
  Scores scores;
  const float* shift;
  std::byte* weights;  // of this step: tiles kBlockSteps apart
  F highest;           // exponent of a weight, by lane
  int64_t row, credit, rate;

  template <bool kPlain>
  [[gnu::always_inline]] void weigh(int64_t i) {
    F z[2];
    unroll<2>([&](auto t) __attribute__((always_inline)) {
      const F offset = _mm512_set1_ps(shift[i]);
      if constexpr (kPlain) {
        z[t] = _mm512_fmsub_ps(scores.raw(i, t), _mm512_set1_ps(scores.factor), offset);
      } else {
        z[t] = _mm512_sub_ps(scores.adjusted(i, t), offset);
      }
      highest = Avx512::max(z[t], highest);
    });
    const __m512i even = _mm512_castps_si512(power_to_cut(z[0]));
    const __m512i odd = _mm512_castps_si512(power_to_cut(z[1]));
    _mm512_store_si512(
        weights + (i >> 4) * kBlockSteps * kTile + (i & 15) * 64,
        _mm512_mask_mov_epi16(_mm512_maskz_srli_epi32(0xffff, even, 16), 0xaaaaaaaau, odd));
  }
  // A share of the rows that fits beside what was last given to the tiles.
  [[gnu::always_inline]] void some() {
    for (credit += rate; credit > 0 && row < kGroup; credit -= 256) two();
  }
  void all() {
    while (row < kGroup) two();
  }
  [[gnu::always_inline]] void two() {
    if (scores.plain) {
      unroll<2>([&](auto i) __attribute__((always_inline)) { weigh<true>(row + i); });
    } else {
      unroll<2>([&](auto i) __attribute__((always_inline)) { weigh<false>(row + i); });
    }
    row += 2;
  }
  bool outgrown() const {
    return _mm512_cmp_ps_mask(highest, _mm512_set1_ps(kSlack), _CMP_GT_OQ) != 0;
  }
};

// What tiles multiply: sums of 32 rows and 16 kColumns columns over `steps`.
struct Chain {
  const std::byte* rows;  // two tiles a step, `half` apart
  int64_t rows_step, half;
  const std::byte* columns;  // a tile a step
  int64_t next_column;       // bytes
  int64_t steps;
  bool fresh;  // sums begin with zero
  float* to;   // of each column, two tiles
};

template <int kColumns, class Work>
[[gnu::always_inline]] inline void multiply(const Chain& chain, const Work& beside) {
  if (chain.fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, chain.to, 64);
    _tile_loadd(1, chain.to + 256, 64);
    if constexpr (kColumns == 2) {
      _tile_loadd(2, chain.to + 512, 64);
      _tile_loadd(3, chain.to + 768, 64);
    }
  }
  const std::byte *rows = chain.rows, *columns = chain.columns;
  for (int64_t s = 0; s < chain.steps; ++s, rows += chain.rows_step, columns += kTile) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, columns, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, rows + chain.half, 64);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (kColumns == 2) {
      _tile_loadd(7, columns + chain.next_column, 64);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    beside();
  }
  _tile_stored(0, chain.to, 64);
  _tile_stored(1, chain.to + 256, 64);
  if constexpr (kColumns == 2) {
    _tile_stored(2, chain.to + 512, 64);
    _tile_stored(3, chain.to + 768, 64);
  }
}

// The maxima of the queries follow the scores of a step, and the sums so far are corrected.
void raise(Group& group, const Scores& scores, int64_t columns) {
  for (int64_t half = 0; half < 2; ++half) {
    F r[16];
    unroll<16>([&](auto i) __attribute__((always_inline)) {
      const int64_t row = half * 16 + i;
      r[i] = Avx512::max(scores.logits(row, 0), scores.logits(row, 1));
    });
    Avx512::transpose(r);
    unroll<8>([&](auto i) __attribute__((always_inline)) { r[i] = Avx512::max(r[i], r[i + 8]); });
    unroll<4>([&](auto i) __attribute__((always_inline)) { r[i] = Avx512::max(r[i], r[i + 4]); });
    const F high = Avx512::max(Avx512::max(r[0], r[1]), Avx512::max(r[2], r[3]));
    const F old = _mm512_load_ps(group.shift + half * 16);
    const F next = Avx512::max(old, high);
    _mm512_store_ps(group.shift + half * 16, next);
    if (group.fresh) continue;
    const F change = _mm512_sub_ps(old, next);
    alignas(64) float corrections[16];
    _mm512_store_ps(corrections, exp_without_subnormals<Avx512>(
                                     _mm512_mul_ps(change, _mm512_set1_ps(0.693147180559945f))));
    for (int64_t column = 0; column < columns; ++column) {
      float* out = group.out + (2 * column + half) * 256;
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        _mm512_store_ps(out + i * 16, _mm512_mul_ps(_mm512_load_ps(out + i * 16),
                                                    _mm512_set1_ps(corrections[i])));
      });
    }
  }
  group.started = true;
  stores_before_tiles();
}

void pack_queries(const float* q, int64_t stride, int64_t rows, int64_t dim, std::byte* to) {
  for (int64_t i = 0; i < kGroup; ++i) {
    for (int64_t s = 0; s < depth_of(dim); ++s) {
      const int64_t left = dim - s * 32;
      const float* p = q + i * stride + s * 32;
      _mm512_store_si512(to + (2 * s + i / 16) * kTile + i % 16 * 64,
                         i < rows ? narrow(_mm512_maskz_loadu_ps(first16(left), p),
                                           _mm512_maskz_loadu_ps(first16(left - 16), p + 16))
                                  : _mm512_setzero_si512());
    }
  }
}

void store_rows(const Group& group, int64_t rows, int64_t dim, float* out, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = group.out + i / 16 * 256 + i % 16 * 16;
    const F inverse = _mm512_set1_ps(1.0f / row[dim / 16 * 512 + dim % 16]);
    for (int64_t d = 0; d < dim; d += 16) {
      _mm512_mask_storeu_ps(out + i * stride + d, first16(dim - d),
                            _mm512_mul_ps(_mm512_load_ps(row + d * 32), inverse));
    }
  }
}

// One step of keys for one group of queries.
struct Item {
  int64_t group = 0, step = 0;
  bool exists = false;
  bool same_block(const Item& other) const {
    return exists && other.exists && group == other.group &&
           step / kBlockSteps == other.step / kBlockSteps;
  }
};

// All groups against a span of keys before the next span, so that keys and values come from memory
// once a tile.
class Walk {
 public:
  Walk(const Group* groups, int64_t count) : groups_(groups), count_(count) {
    first_ = groups[0].first_step, end_ = groups[0].end_step;
    for (int64_t g = 1; g < count; ++g) {
      first_ = smaller(first_, groups[g].first_step);
      end_ = larger(end_, groups[g].end_step);
    }
    first_ = first_ / kSpanSteps * kSpanSteps;
  }
  Item next() {
    for (; first_ < end_; first_ += kSpanSteps) {
      for (; group_ < count_; ++group_) {
        step_ = larger(step_, larger(first_, groups_[group_].first_step));
        if (step_ < smaller(first_ + kSpanSteps, groups_[group_].end_step)) {
          return {group_, step_++, true};
        }
        step_ = 0;
      }
      group_ = 0;
    }
    return {};
  }

 private:
  const Group* groups_;
  int64_t count_, first_, end_, group_ = 0, step_ = 0;
};

// Weights that are still to be multiplied by their values, column by column.
struct Pending {
  Group* group = nullptr;
  const std::byte* weights;
  const std::byte* values;
  int64_t steps;
  int64_t column, columns;
};

template <class Work>
[[gnu::always_inline]] inline void multiply_values(Pending& pending, int64_t count,
                                                   const Work& beside) {
  stores_before_tiles();
  while (count > 0) {
    const Chain chain{pending.weights,      kTile,
                      kBlockSteps * kTile,  pending.values + pending.column * kBlockSteps * kTile,
                      kBlockSteps * kTile,  pending.steps,
                      pending.group->fresh, pending.group->out + pending.column * 512};
    if (pending.column + 1 < pending.columns) {
      multiply<2>(chain, beside);
      pending.column += 2;
    } else {
      multiply<1>(chain, beside);
      pending.column += 1;
    }
    count -= 2;
    if (pending.column == pending.columns) {
      pending.group->fresh = false;
      pending.group = nullptr;
      return;
    }
  }
}

void attend(const AttentionTile& tile) {
  const int64_t dim = tile.head_dim, depth = depth_of(dim), columns = columns_of(dim);
  float* scores[2] = {reinterpret_cast<float*>(tile.scratch),
                      reinterpret_cast<float*>(tile.scratch) + kScoreFloats};
  std::byte* weights[2] = {tile.scratch + 2 * kScoreFloats * 4,
                           tile.scratch + 2 * kScoreFloats * 4 + kWeightBytes};
  std::byte* place = weights[1] + kWeightBytes;
  const int64_t count = (tile.queries + kGroup - 1) / kGroup;
  Group groups[kGroups];
  for (int64_t g = 0; g < count; ++g) {
    const int64_t rows = smaller(tile.queries - g * kGroup, kGroup);
    Group& group = groups[g];
    group.queries = place + g * group_bytes(dim);
    group.out = reinterpret_cast<float*>(group.queries + 2 * depth * kTile);
    group.shift = group.out + 2 * columns * 256;
    group.seen = seen_keys(tile, g * kGroup, rows);
    group.first_step = group.seen.any_first / kStepKeys;
    group.end_step = (group.seen.any_end + kStepKeys - 1) / kStepKeys;
    group.started = false;
    group.fresh = true;
    for (int64_t i = 0; i < kGroup; ++i) group.shift[i] = kLowest;
    pack_queries(tile.q + g * kGroup * tile.q_stride, tile.q_stride, rows, dim, group.queries);
  }

  const bool factor_only = tile.bias == nullptr && tile.soft_cap <= 0.0f && tile.scale > 0.0f;
  const auto scores_of = [&](const Item& item, int64_t side) {
    const int64_t key = item.step * kStepKeys;
    return Scores{&tile,
                  scores[side],
                  item.group * kGroup,
                  key,
                  tile.scale * kLog2E,
                  factor_only && groups[item.group].seen.sees_all(key, key + kStepKeys)};
  };
  const auto block_of = [&](const Item& item) {
    return tile.blocks + item.step / kBlockSteps * block_bytes(dim);
  };
  const auto nothing = [] {};
  const auto multiply_keys = [&](const Item& item, int64_t side, const auto& beside)
      __attribute__((always_inline)) {
    const std::byte* keys = block_of(item) + item.step % kBlockSteps * 2 * depth * kTile;
    stores_before_tiles();
    multiply<2>({groups[item.group].queries, 2 * kTile, kTile, keys, depth * kTile, depth, true,
                 scores[side]},
                beside);
  };

  stores_before_tiles();
  _tile_loadconfig(&kConfig);
  Walk walk(groups, count);
  Item now = walk.next();
  Pending pending;
  int64_t side = 0, weights_side = 0, first_step = now.step;
  multiply_keys(now, side, nothing);
  stores_before_tiles();
  Softmax softmax{};
  const auto share = [&]() __attribute__((always_inline)) { softmax.some(); };
  // Weights of [first_step, end) of the item's block.
  const auto weighted = [&](const Item& item, int64_t end) {
    const int64_t skipped = first_step % kBlockSteps * kTile;
    return Pending{&groups[item.group],
                   weights[weights_side] + skipped,
                   block_of(item) + keys_bytes(dim) + skipped,
                   end - first_step,
                   0,
                   columns};
  };
  const auto finish = [&](Pending& some) {
    if (some.group != nullptr) multiply_values(some, some.columns, nothing);
    stores_before_tiles();
  };
  while (now.exists) {
    const Item next = walk.next();
    Group& group = groups[now.group];
    softmax.scores = scores_of(now, side);
    softmax.shift = group.shift;
    softmax.weights = weights[weights_side] + now.step % kBlockSteps * kTile;
    softmax.highest = _mm512_setzero_ps();
    softmax.row = softmax.credit = 0;
    if (!group.started) raise(group, softmax.scores, columns);
    const int64_t steps_left = kBlockSteps - now.step % kBlockSteps;
    const int64_t shares =
        pending.group == nullptr
            ? 0
            : ((pending.columns - pending.column + 1) / 2 + steps_left - 1) / steps_left;
    const int64_t slots = (next.exists ? depth : 0) + shares * (shares == 0 ? 0 : pending.steps);
    softmax.rate = slots == 0 ? 0 : (256 * kGroup / 2 + slots - 1) / slots;
    if (next.exists) multiply_keys(next, 1 - side, share);
    if (shares > 0) multiply_values(pending, 2 * shares, share);
    stores_before_tiles();
    softmax.all();
    if (softmax.outgrown()) {
      finish(pending);
      if (first_step < now.step) {
        Pending earlier = weighted(now, now.step);
        finish(earlier);
      }
      first_step = now.step;
      raise(group, softmax.scores, columns);
      softmax.row = 0;
      softmax.all();
    }
    if (!now.same_block(next)) {
      finish(pending);
      pending = weighted(now, now.step + 1);
      weights_side = 1 - weights_side;
      first_step = next.step;
    }
    stores_before_tiles();
    side = 1 - side;
    now = next;
  }
  finish(pending);
  _tile_release();
  for (int64_t g = 0; g < count; ++g) {
    store_rows(groups[g], smaller(tile.queries - g * kGroup, kGroup), dim,
               tile.out + g * kGroup * tile.out_stride, tile.out_stride);
  }
}

}  // namespace

void fill_amx_attention(KernelTable& table) {
  table.attention_bf16 = {.queries = kTileQueries,
                          .keys = kBlockKeys,
                          .block_bytes = block_bytes,
                          .scratch_bytes = scratch_bytes,
                          .prepare = prepare,
                          .attend = attend};
}

}  // namespace pali
