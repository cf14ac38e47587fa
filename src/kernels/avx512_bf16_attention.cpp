// Attention with bf16 operands on the avx512_bf16 tier: the loops of f32, where a dword is two
// neighbours of a head's width (queries, keys) or two keys (values, weights), multiplied and summed
// up in f32 by VDPBF16PS. Softmax stays in f32; sums of weights are those before they are rounded.
#include "kernels/attention-inl.hpp"
#include "kernels/simd_avx512_bf16.hpp"

namespace pali {
namespace {

struct Bf16Pairs {
  using F = __m512;
  static constexpr int kWidth = AttentionShapeOf<Avx512>::kWidth;

  static constexpr int64_t dwords(int64_t n) { return (n + 1) / 2; }
  static F step(F x, F y, F sums) {
    return _mm512_dpbf16_ps(sums, as_bf16(_mm512_castps_si512(x)), as_bf16(_mm512_castps_si512(y)));
  }

  // rows x dim (row-major) -> dwords of dim rows of kWidth lanes; missing queries are zero.
  static void turn_in(const float* q, int64_t q_stride, int64_t queries, int64_t dim,
                      float* turned) {
    for (int lane = 0; lane < kWidth; lane += 16) {
      for (int64_t d = 0; d < dim; d += 32) {
        F r[16];
        unroll<16>([&](auto i) __attribute__((always_inline)) {
          r[i] = lane + i < queries ? row_pairs(q + (lane + i) * q_stride + d, dim - d)
                                    : Avx512::zero();
        });
        Avx512::transpose(r);
        unroll<16>([&](auto i) __attribute__((always_inline)) {
          Avx512::store(turned + (d / 2 + i) * kWidth + lane, r[i]);
        });
      }
    }
  }

  // A block: the rows of K, then pairs of rows of V, side by side.
  static int64_t block_bytes(int64_t head_dim) {
    return kBlockKeys * 4 * dwords(head_dim) + kBlockKeys / 2 * 4 * head_dim;
  }
  static void prepare(const float* k, int64_t k_stride, const float* v, int64_t v_stride, int64_t n,
                      int64_t head_dim, std::byte* block) {
    float* keys = reinterpret_cast<float*>(block);
    float* values = keys + kBlockKeys * dwords(head_dim);
    for (int64_t j = 0; j < n; ++j) {
      float* row = keys + j * dwords(head_dim);
      for (int64_t d = 0; d < head_dim; d += 32) {
        Avx512::store_n(row + d / 2, row_pairs(k + j * k_stride + d, head_dim - d),
                        smaller(dwords(head_dim - d), 16));
      }
    }
    for (int64_t j = 0; j < n; j += 2, values += head_dim) {
      for (int64_t d = 0; d < head_dim; d += 16) {
        const int64_t columns = smaller(head_dim - d, 16);
        const float* const from = v + j * v_stride + d;
        const F odd = j + 1 < n ? Avx512::load_n(from + v_stride, columns) : Avx512::zero();
        Avx512::store_n(values + d, pairs(Avx512::load_n(from, columns), odd), columns);
      }
    }
  }

  static void store_weights(float* row, F even, F odd) { Avx512::store(row, pairs(even, odd)); }
  static void store_last_weight(float* row, F weight) {
    Avx512::store(row, pairs(weight, Avx512::zero()));
  }

 private:
  // Up to 32 of n values, two to a dword, zeros behind them.
  static F row_pairs(const float* x, int64_t n) {
    return _mm512_castsi512_ps(
        load_bf16<KernelType::f32>(reinterpret_cast<const std::byte*>(x), smaller(n, 32)));
  }
  // Lane by lane, `even` in the lower half.
  static F pairs(F even, F odd) {
    alignas(64) static constexpr uint16_t kInterleaved[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = as_integers(_mm512_maskz_cvtne2ps_pbh(kAll32, odd, even));
    return _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi16(kAll32, _mm512_load_si512(kInterleaved), both));
  }
};

}  // namespace

void fill_avx512_bf16_attention(KernelTable& table) {
  table.attention_bf16 = attention_kernels<Avx512, Bf16Pairs>();
}

}  // namespace pali
