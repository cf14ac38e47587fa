// Eight floats of AVX2 + FMA + F16C: the primitives that the generic kernels are written in.
// Loads and stores need no alignment; `_n` versions touch the first n lanes only, 1 <= n <= 8.
#pragma once

#include <immintrin.h>

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;
  // See gemv-inl.hpp.
  static constexpr bool asks_ahead(KernelType type) { return type == KernelType::int4; }

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float value) { return _mm256_set1_ps(value); }
  static F broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store_n(float* p, F x, int64_t n) { _mm256_maskstore_ps(p, first(n), x); }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where either is NaN
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F absolute(F x) { return _mm256_andnot_ps(set(-0.0f), x); }
  static F negate(F x) { return _mm256_xor_ps(set(-0.0f), x); }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x 2^n for whole n in [-151, 129], in two steps so that subnormals are reached.
  static F scale_by_power_of_two(F x, F n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return mul(mul(x, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
  }
  // 0 where x < least, else value.
  static F zero_where_less(F x, F least, F value) {
    return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), value);
  }
  // a where x < 0, else b.
  static F if_negative(F x, F a, F b) {
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, zero(), _CMP_LT_OQ));
  }
  static F nan_lanes(F x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
  static F either(F a, F b) { return _mm256_or_ps(a, b); }
  static bool any(F lanes) { return _mm256_movemask_ps(lanes) != 0; }
  using Lanes = F;
  static Lanes no_lanes() { return zero(); }

  static float sum(F x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float highest(F x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  // Values of a weight type at any address, widened exactly.
  template <KernelType kType>
  static F load_as(const std::byte* p) {
    if constexpr (kType == KernelType::f32) {
      return load(reinterpret_cast<const float*>(p));
    } else if constexpr (kType == KernelType::int8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
      return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    } else {
      return widen16<kType>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
  }
  template <KernelType kType>
  static F load_as_n(const std::byte* p, int64_t n) {
    if constexpr (kType == KernelType::f32) {
      return load_n(reinterpret_cast<const float*>(p), n);
    } else {  // no masked 16-bit load here
      alignas(16) std::byte copy[16] = {};
      for (int64_t i = 0; i < 2 * n; ++i) copy[i] = p[i];
      return widen16<kType>(_mm_load_si128(reinterpret_cast<const __m128i*>(copy)));
    }
  }
  // Nibble kN of each dword at p, less 8: with its high bit turned over it is that in two's
  // complement.
  template <int kN>
  static F nibble(const std::byte* p) {
    const __m256i dwords = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                                            _mm256_set1_epi8(static_cast<char>(0x88)));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(dwords, 28 - 4 * kN), 28));
  }
  // Two f16 at p, each for four lanes.
  static F group_scales(const std::byte* p) {
    const __m128i halves = _mm_castps_si128(_mm_broadcast_ss(reinterpret_cast<const float*>(p)));
    const __m128i spread = _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3);
    return _mm256_cvtph_ps(_mm_shuffle_epi8(halves, spread));
  }
  // Pairs of bf16, the low one of a lane first; n <= 16 of them, the others zero.
  static F load_pairs(const std::byte* p, int64_t n) {
    if (n == 2 * kLanes) return load(reinterpret_cast<const float*>(p));
    alignas(32) std::byte copy[32] = {};
    for (int64_t i = 0; i < 2 * n; ++i) copy[i] = p[i];
    return load(reinterpret_cast<const float*>(copy));
  }
  static F widen_low(F pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
  }
  static F widen_high(F pairs) {
    return _mm256_and_ps(pairs,
                         _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // Every second of the floats of a, then b, from the first or from the second on.
  static F evens(F a, F b) { return in_order(_mm256_shuffle_ps(a, b, 0x88)); }
  static F odds(F a, F b) { return in_order(_mm256_shuffle_ps(a, b, 0xdd)); }
  // Rounds to nearest even; NaN stays NaN.
  static void store_bf16(uint16_t* p, F x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_add_epi32(bits, bias);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i chosen = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan_lanes(x)));
    const __m256i high = _mm256_srli_epi32(chosen, 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static void store_bf16_n(uint16_t* p, F x, int64_t n) {
    uint16_t copy[kLanes];
    store_bf16(copy, x);
    for (int64_t i = 0; i < n; ++i) p[i] = copy[i];
  }

  // rows[i][j] <-> rows[j][i].
  [[gnu::always_inline]] static void transpose(F (&r)[kLanes]) {
    F t[8], u[8];
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    });
    unroll<2>([&](auto i) __attribute__((always_inline)) {
      u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
      u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
      u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
      u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    });
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
      r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    });
  }

 private:
  static __m256i first(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static F in_order(F pairs) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xd8));
  }
  static F power_of_two(__m256i n) {
    const __m256i biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  template <KernelType kType>
  static F widen16(__m128i x) {
    if constexpr (kType == KernelType::f16) return _mm256_cvtph_ps(x);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
};

}  // namespace
}  // namespace pali
