// One query against its keys, streaming softmax, lanes along the head; keys through the row table
// where there is one: a decoder's step. Included once by each ISA source.
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

template <class S, KernelType kType>
void attend_row_as(const AttentionRow& row) {
  const int64_t dim = row.head_dim;
  float* out = row.out;
  alignas(64) float scores[kRowKeys];
  const auto place = [&](int64_t j) __attribute__((always_inline)) {
    return row.rows != nullptr ? static_cast<int64_t>(row.rows[j]) : j;
  };
  float highest = -__builtin_inff();
  float total = 0.0f;
  // `out` itself holds the running sums; whatever lies there must not enter them.
  for (int64_t d = 0; d < dim; ++d) out[d] = 0.0f;
  for (int64_t key = 0; key < row.keys; key += kRowKeys) {
    const int64_t keys = smaller(row.keys - key, kRowKeys);
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t ahead = smaller(key + j + kAhead, row.keys - 1);
      prefetch(stored_row<kType>(row.k, row.k_stride, place(ahead)), dim * bytes_of(kType));
      const std::byte* k = stored_row<kType>(row.k, row.k_stride, place(key + j));
      scores[j] = row.scale * dot_stored<S, kType>(row.q, k, dim);
    }
    adjust_row<S>(row, key, keys, scores);
    const float block = max<S>(scores, keys);
    const float next = highest > block ? highest : block;
    const float shift = next < -3.402823466e38f ? -3.402823466e38f : next;
    float part[S::kLanes];
    S::store(part, exp<S>(S::set(highest - shift)));
    const float correction = part[0];
    for (int64_t j = 0; j < keys; j += S::kLanes) {
      const int64_t lanes = smaller(keys - j, S::kLanes);
      const auto x = S::sub(load_lanes<S>(scores + j, lanes), S::set(shift));
      store_lanes<S>(scores + j, exp<S>(x), lanes);
    }
    total = total * correction +
            sum_of<S>(
                keys, [=](int64_t j, int64_t lanes) __attribute__((always_inline)) {
                  return load_lanes<S>(scores + j, lanes);
                });
    for (int64_t d = 0; d < dim; d += 4 * S::kLanes) {
      const int64_t width = smaller(dim - d, 4 * S::kLanes);
      const int64_t vectors = (width + S::kLanes - 1) / S::kLanes;
      const int64_t last = width - (vectors - 1) * S::kLanes;
      const auto value_row = [&](int64_t j) __attribute__((always_inline)) {
        const int64_t ahead = smaller(key + j + kAhead, row.keys - 1);
        const int64_t begin = d * bytes_of(kType);
        prefetch(stored_row<kType>(row.v, row.v_stride, place(ahead)) + begin,
                 width * bytes_of(kType));
        return stored_row<kType>(row.v, row.v_stride, place(key + j)) + begin;
      };
      if (vectors == 4) {
        weigh_values<S, kType, 4>(value_row, scores, keys, correction, last, out + d);
      } else if (vectors == 3) {
        weigh_values<S, kType, 3>(value_row, scores, keys, correction, last, out + d);
      } else if (vectors == 2) {
        weigh_values<S, kType, 2>(value_row, scores, keys, correction, last, out + d);
      } else {
        weigh_values<S, kType, 1>(value_row, scores, keys, correction, last, out + d);
      }
    }
    highest = next;
  }
  const float scale = 1.0f / total;
  for (int64_t d = 0; d < dim; ++d) out[d] *= scale;
}

template <class S>
void attend_row(const AttentionRow& row) {
  if (row.type == KernelType::bf16) return attend_row_as<S, KernelType::bf16>(row);
  attend_row_as<S, KernelType::f32>(row);
}

}  // namespace
}  // namespace pali
