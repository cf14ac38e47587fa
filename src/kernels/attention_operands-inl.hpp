// What the products of attention-inl.hpp read, and how queries, keys, values and weights become
// that: dwords, in which a product takes kDepth neighbours at once. Included once by each ISA
// source.
#pragma once

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

constexpr int64_t kBlockKeys = 128;
constexpr int64_t kTileQueries = 128;

template <class S>
struct AttentionShapeOf {
  static constexpr int kVectors = 2;                         // of queries
  static constexpr int kWidth = kVectors * S::kLanes;        // queries of one pass
  static constexpr int kKeys = S::kLanes == 16 ? 12 : 6;     // rows of S^T in registers
  static constexpr int kColumns = S::kLanes == 16 ? 13 : 6;  // rows of O^T in registers
};

// n rows of `dim` values side by side. Rows of one head lie a page or more apart and share few sets
// of the first-level cache; V is read column by column, which suffers from both.
template <class S>
void gather_rows(const float* from, int64_t stride, int64_t n, int64_t dim, float* to) {
  for (int64_t i = 0; i < n; ++i) {
    const float* row = from + i * stride;
    float* out = to + i * dim;
    int64_t d = 0;
    for (; d + S::kLanes <= dim; d += S::kLanes) S::store(out + d, S::load(row + d));
    if (d < dim) S::store_n(out + d, S::load_n(row + d, dim - d), dim - d);
  }
}

// One f32 a dword.
template <class S>
struct AttentionFloats {
  using F = typename S::F;
  static constexpr int kWidth = AttentionShapeOf<S>::kWidth;

  static constexpr int64_t dwords(int64_t n) { return n; }
  static F step(F x, F y, F sums) { return S::fma(x, y, sums); }

  // rows x dim (row-major) -> dim rows of kWidth lanes; missing queries are zero.
  static void turn_in(const float* q, int64_t q_stride, int64_t queries, int64_t dim,
                      float* turned) {
    for (int lane = 0; lane < kWidth; lane += S::kLanes) {
      for (int64_t d = 0; d < dim; d += S::kLanes) {
        typename S::F r[S::kLanes];
        const int64_t columns = smaller(dim - d, S::kLanes);
        unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
          r[i] = lane + i < queries ? S::load_n(q + (lane + i) * q_stride + d, columns) : S::zero();
        });
        S::transpose(r);
        unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
          S::store(turned + (d + i) * kWidth + lane, r[i]);
        });
      }
    }
  }

  // A block: the rows of K, then those of V, side by side.
  static int64_t block_bytes(int64_t head_dim) {
    return 2 * kBlockKeys * ((head_dim + 15) / 16 * 16) * 4;
  }
  static void prepare(const float* k, int64_t k_stride, const float* v, int64_t v_stride, int64_t n,
                      int64_t head_dim, std::byte* block) {
    float* keys = reinterpret_cast<float*>(block);
    gather_rows<S>(k, k_stride, n, head_dim, keys);
    gather_rows<S>(v, v_stride, n, head_dim, keys + kBlockKeys * head_dim);
  }

  // Weights of two keys, by query, where their rows of P^T begin; of the last of an odd number.
  static void store_weights(float* row, F even, F odd) {
    S::store(row, even);
    S::store(row + kWidth, odd);
  }
  static void store_last_weight(float* row, F weight) { S::store(row, weight); }
};

}  // namespace
}  // namespace pali
