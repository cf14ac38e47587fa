// A query, or a few, against their keys, streaming softmax, lanes along the head; keys through the
// row table where there is one: a decoder's step. Included once by each ISA source.
#pragma once

#include "kernels/rows-inl.hpp"
#include "kernels/simd_common.hpp"

namespace pali {
namespace {

constexpr int64_t kAhead = 12;  // rows of K and V asked for before their turn

constexpr int64_t kRowKeys = 128;  // of one streaming block

// Row j of keys or values, stored as kType.
template <KernelType kType>
[[gnu::always_inline]] inline const std::byte* stored_row(const void* first, int64_t stride,
                                                          int64_t j) {
  return static_cast<const std::byte*>(first) + j * stride * bytes_of(kType);
}

template <class S, KernelType kType>
[[gnu::always_inline]] inline typename S::F load_stored(const std::byte* p, int64_t lanes) {
  return lanes == S::kLanes ? S::template load_as<kType>(p)
                            : S::template load_as_n<kType>(p, lanes);
}

template <class S, KernelType kType>
[[gnu::always_inline]] inline float dot_stored(const float* q, const std::byte* k, int64_t n) {
  return sum_of<S>(
      n, [=](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        return S::mul(load_lanes<S>(q + i, lanes),
                      load_stored<S, kType>(k + i * bytes_of(kType), lanes));
      });
}

// Soft cap, then bias, of the scores from `first_key` on.
template <class S>
void adjust_row(const AttentionRow& row, int64_t first_key, int64_t keys, float* scores) {
  if (row.bias == nullptr && row.soft_cap <= 0.0f) return;
  const auto cap = S::set(row.soft_cap);
  for (int64_t j = 0; j < keys; j += S::kLanes) {
    const int64_t lanes = smaller(keys - j, S::kLanes);
    auto s = load_lanes<S>(scores + j, lanes);
    if (row.soft_cap > 0.0f) s = S::mul(cap, tanh<S>(S::div(s, cap)));
    if (row.bias != nullptr) s = S::add(s, load_lanes<S>(row.bias + first_key + j, lanes));
    store_lanes<S>(scores + j, s, lanes);
  }
}

// out[d] = out[d] * correction + sum over keys of weights[j] v_j[d], for kVectors vectors of d.
template <class S, KernelType kType, int kVectors, class Row>
[[gnu::always_inline]] inline void weigh_values(const Row& value_row, const float* weights,
                                                int64_t keys, float correction, int64_t last_lanes,
                                                float* out) {
  using F = typename S::F;
  F sums[kVectors];
  const auto load = [&](const float* p, auto v) __attribute__((always_inline)) {
    return v == kVectors - 1 ? load_lanes<S>(p + v * S::kLanes, last_lanes)
                             : S::load(p + v * S::kLanes);
  };
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    sums[v] = S::mul(load(out, v), S::set(correction));
  });
  for (int64_t j = 0; j < keys; ++j) {
    const F weight = S::broadcast(weights + j);
    const std::byte* row = value_row(j);
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      const std::byte* p = row + v * S::kLanes * bytes_of(kType);
      const F value =
          v == kVectors - 1 ? load_stored<S, kType>(p, last_lanes) : S::template load_as<kType>(p);
      sums[v] = S::fma(weight, value, sums[v]);
    });
  }
  unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
    if (v == kVectors - 1) {
      store_lanes<S>(out + v * S::kLanes, sums[v], last_lanes);
    } else {
      S::store(out + v * S::kLanes, sums[v]);
    }
  });
}

// Keys and values of any type and width: one key after the other.
template <class S, KernelType kType>
struct StoredKeys {
  static constexpr int64_t kTogether = 1;

  const AttentionRow& row;

  int64_t place(int64_t key) const { return row.rows != nullptr ? row.rows[key] : key; }
  const std::byte* key_row(int64_t key) const {
    return stored_row<kType>(row.k, row.k_stride, place(key));
  }
  const std::byte* value_row(int64_t key) const {
    return stored_row<kType>(row.v, row.v_stride, place(key));
  }
  int64_t ahead(int64_t key) const { return smaller(key + kAhead, row.keys - 1); }

  // scores[j] = scale * q . k of key first + j, for query i.
  template <int kQueries>
  [[gnu::always_inline]] void score(int64_t i, int64_t first, int64_t keys,
                                    float (*scores)[kRowKeys]) const {
    static_assert(kQueries == 1);
    const float* q = row.q + i * row.q_stride;
    for (int64_t j = 0; j < keys; ++j) {
      prefetch(key_row(ahead(first + j)), row.head_dim * bytes_of(kType));
      scores[0][j] = row.scale * dot_stored<S, kType>(q, key_row(first + j), row.head_dim);
    }
  }
  // out = out * correction + the weighted sum of the values, for query i.
  template <int kQueries>
  [[gnu::always_inline]] void weigh(int64_t i, int64_t first, int64_t keys,
                                    const float (*weights)[kRowKeys],
                                    const float* correction) const {
    float* out = row.out + i * row.out_stride;
    for (int64_t d = 0; d < row.head_dim; d += 4 * S::kLanes) {
      const int64_t width = smaller(row.head_dim - d, 4 * S::kLanes);
      const int64_t vectors = (width + S::kLanes - 1) / S::kLanes;
      const int64_t last = width - (vectors - 1) * S::kLanes;
      const auto values = [&](int64_t j) __attribute__((always_inline)) {
        const int64_t begin = d * bytes_of(kType);
        prefetch(value_row(ahead(first + j)) + begin, width * bytes_of(kType));
        return value_row(first + j) + begin;
      };
      if (vectors == 4) {
        weigh_values<S, kType, 4>(values, weights[0], keys, correction[0], last, out + d);
      } else if (vectors == 3) {
        weigh_values<S, kType, 3>(values, weights[0], keys, correction[0], last, out + d);
      } else if (vectors == 2) {
        weigh_values<S, kType, 2>(values, weights[0], keys, correction[0], last, out + d);
      } else {
        weigh_values<S, kType, 1>(values, weights[0], keys, correction[0], last, out + d);
      }
    }
  }
  void finish(float scale, float* out) const {
    for (int64_t d = 0; d < row.head_dim; ++d) out[d] *= scale;
  }
};

// bf16 by pairs: a vector of 2 kLanes values is widened by a shift and a mask, where widening in
// order takes shuffles, of which a core starts one a cycle; kTogether queries share what was
// widened; and kLanes sums are added up together. Even columns of such a group stand before odd
// ones, in q and in the sums, to the end.
template <class S>
struct PairedKeys : StoredKeys<S, KernelType::bf16> {
  using F = typename S::F;
  using Base = StoredKeys<S, KernelType::bf16>;
  using Base::row;
  static constexpr int64_t kGroup = 2 * S::kLanes;
  static constexpr int64_t kMostDim = 256;
  static constexpr int64_t kTogether = S::kLanes / 4;  // 16 sums in 32 registers, 8 in 16

  static bool take(const AttentionRow& row) {
    return row.head_dim % kGroup == 0 && row.head_dim <= kMostDim;
  }
  explicit PairedKeys(const AttentionRow& r) : Base{r} {
    for (int64_t i = 0; i < r.queries; ++i) {
      for (int64_t d = 0; d < r.head_dim; d += kGroup) {
        const float* from = r.q + i * r.q_stride + d;
        const F low = S::load(from), high = S::load(from + S::kLanes);
        S::store(paired[i] + d, S::evens(low, high));
        S::store(paired[i] + d + S::kLanes, S::odds(low, high));
      }
    }
  }

  // Of queries i .. i + kQueries - 1, into a row of scores each.
  template <int kQueries>
  [[gnu::always_inline]] void score(int64_t i, int64_t first, int64_t keys,
                                    float (*scores)[kRowKeys]) const {
    constexpr int kKeys = S::kLanes / kQueries;
    for (int64_t j = 0; j < keys; j += kKeys) {
      const std::byte* rows[kKeys];
      for (int64_t k = 0; k < kKeys; ++k) {
        const int64_t key = first + smaller(j + k, keys - 1);
        rows[k] = this->key_row(key);
        prefetch(this->key_row(this->ahead(key)), row.head_dim * 2);
      }
      F sums[S::kLanes];
      unroll<S::kLanes>([&](auto s) __attribute__((always_inline)) { sums[s] = S::zero(); });
      for (int64_t d = 0; d < row.head_dim; d += kGroup) {
        F even[kQueries], odd[kQueries];
        unroll<kQueries>([&](auto n) __attribute__((always_inline)) {
          even[n] = S::load(paired[i + n] + d);
          odd[n] = S::load(paired[i + n] + d + S::kLanes);
        });
        unroll<kKeys>([&](auto k) __attribute__((always_inline)) {
          const F pairs = S::load_pairs(rows[k] + d * 2, kGroup);
          const F low = S::widen_low(pairs), high = S::widen_high(pairs);
          unroll<kQueries>([&](auto n) __attribute__((always_inline)) {
            constexpr int s = n.value * kKeys + k.value;
            sums[s] = S::fma(odd[n], high, S::fma(even[n], low, sums[s]));
          });
        });
      }
      add_neighbours<S::kLanes>(sums);
      float found[S::kLanes];
      S::store(found, S::mul(sums[0], S::set(row.scale)));
      // Whole groups: a row of scores has room for them.
      for (int n = 0; n < kQueries; ++n) {
        for (int k = 0; k < kKeys; ++k) scores[n][j + k] = found[n * kKeys + k];
      }
    }
  }
  // Lane s of sums[0] becomes the sum of the lanes of sums[s].
  template <int kCount>
  [[gnu::always_inline]] static void add_neighbours(F* sums) {
    if constexpr (kCount > 1) {
      unroll<kCount / 2>([&](auto s) __attribute__((always_inline)) {
        const F a = sums[2 * s], b = sums[2 * s + 1];
        sums[s] = S::add(S::evens(a, b), S::odds(a, b));
      });
      add_neighbours<kCount / 2>(sums);
    }
  }

  template <int kQueries>
  [[gnu::always_inline]] void weigh(int64_t i, int64_t first, int64_t keys,
                                    const float (*weights)[kRowKeys],
                                    const float* correction) const {
    int64_t d = 0;
    for (; d + 2 * kGroup <= row.head_dim; d += 2 * kGroup) {
      weigh_groups<kQueries, 2>(i, d, first, keys, weights, correction);
    }
    if (d < row.head_dim) weigh_groups<kQueries, 1>(i, d, first, keys, weights, correction);
  }
  template <int kQueries, int kGroups>
  [[gnu::always_inline]] void weigh_groups(int64_t i, int64_t d, int64_t first, int64_t keys,
                                           const float (*weights)[kRowKeys],
                                           const float* correction) const {
    constexpr int kVectors = 2 * kGroups;
    F sums[kQueries * kVectors];
    float* out = row.out + i * row.out_stride + d;
    unroll<kQueries * kVectors>([&](auto s) __attribute__((always_inline)) {
      const float* from = out + s / kVectors * row.out_stride + s % kVectors * S::kLanes;
      sums[s] = S::mul(S::load(from), S::set(correction[s / kVectors]));
    });
    for (int64_t j = 0; j < keys; ++j) {
      prefetch(this->value_row(this->ahead(first + j)) + d * 2, kGroups * kGroup * 2);
      const std::byte* values = this->value_row(first + j) + d * 2;
      unroll<kGroups>([&](auto g) __attribute__((always_inline)) {
        const F pairs = S::load_pairs(values + g * kGroup * 2, kGroup);
        const F low = S::widen_low(pairs), high = S::widen_high(pairs);
        unroll<kQueries>([&](auto n) __attribute__((always_inline)) {
          constexpr int s = n.value * kVectors + 2 * g.value;
          const F weight = S::broadcast(weights[n] + j);
          sums[s] = S::fma(weight, low, sums[s]);
          sums[s + 1] = S::fma(weight, high, sums[s + 1]);
        });
      });
    }
    unroll<kQueries * kVectors>([&](auto s) __attribute__((always_inline)) {
      S::store(out + s / kVectors * row.out_stride + s % kVectors * S::kLanes, sums[s]);
    });
  }
  void finish(float scale, float* out) const {
    for (int64_t d = 0; d < row.head_dim; d += kGroup, out += kGroup) {
      float sums[kGroup];
      for (int64_t i = 0; i < kGroup; ++i) sums[i] = out[i] * scale;
      for (int64_t i = 0; i < S::kLanes; ++i) {
        out[2 * i] = sums[i];
        out[2 * i + 1] = sums[S::kLanes + i];
      }
    }
  }

  alignas(64) float paired[kRowQueries][kMostDim];
};

// The streaming softmax of queries i .. i + kQueries - 1 over one block of keys.
template <class S, int kQueries, class Keys>
[[gnu::always_inline]] inline void attend_block(const Keys& stored, int64_t i, int64_t key,
                                                int64_t keys, float* highest, float* total) {
  const AttentionRow& row = stored.row;
  alignas(64) float scores[kQueries][kRowKeys];
  float correction[kQueries];
  stored.template score<kQueries>(i, key, keys, scores);
  for (int64_t n = 0; n < kQueries; ++n) {
    float* of_query = scores[n];
    adjust_row<S>(row, key, keys, of_query);
    const float block = max<S>(of_query, keys);
    const float before = highest[i + n];
    const float next = before > block ? before : block;
    const float shift = next < -3.402823466e38f ? -3.402823466e38f : next;
    float part[S::kLanes];
    S::store(part, exp_without_subnormals<S>(S::set(before - shift)));
    correction[n] = part[0];
    for (int64_t j = 0; j < keys; j += S::kLanes) {
      const int64_t lanes = smaller(keys - j, S::kLanes);
      const auto x = S::sub(load_lanes<S>(of_query + j, lanes), S::set(shift));
      store_lanes<S>(of_query + j, exp_without_subnormals<S>(x), lanes);
    }
    total[i + n] = total[i + n] * correction[n] +
                   sum_of<S>(
                       keys, [=](int64_t j, int64_t lanes) __attribute__((always_inline)) {
                         return load_lanes<S>(of_query + j, lanes);
                       });
    highest[i + n] = next;
  }
  stored.template weigh<kQueries>(i, key, keys, scores, correction);
}

// Block by block of keys, all queries: what several share comes from memory once.
template <class S, class Keys>
void attend_row_over(const Keys& stored) {
  const AttentionRow& row = stored.row;
  float highest[kRowQueries], total[kRowQueries];
  for (int64_t i = 0; i < row.queries; ++i) {
    highest[i] = -__builtin_inff();
    total[i] = 0.0f;
    // `out` itself holds the running sums; whatever lies there must not enter them.
    for (int64_t d = 0; d < row.head_dim; ++d) row.out[i * row.out_stride + d] = 0.0f;
  }
  for (int64_t key = 0; key < row.keys; key += kRowKeys) {
    const int64_t keys = smaller(row.keys - key, kRowKeys);
    int64_t i = 0;
    if constexpr (Keys::kTogether > 1) {
      for (; i + Keys::kTogether <= row.queries; i += Keys::kTogether) {
        attend_block<S, Keys::kTogether>(stored, i, key, keys, highest, total);
      }
    }
    for (; i < row.queries; ++i) attend_block<S, 1>(stored, i, key, keys, highest, total);
  }
  for (int64_t i = 0; i < row.queries; ++i) {
    stored.finish(1.0f / total[i], row.out + i * row.out_stride);
  }
}

template <class S>
void attend_row(const AttentionRow& row) {
  if (row.type == KernelType::f32) {
    attend_row_over<S>(StoredKeys<S, KernelType::f32>{row});
  } else if (PairedKeys<S>::take(row)) {
    attend_row_over<S>(PairedKeys<S>(row));
  } else {
    attend_row_over<S>(StoredKeys<S, KernelType::bf16>{row});
  }
}

}  // namespace
}  // namespace pali
