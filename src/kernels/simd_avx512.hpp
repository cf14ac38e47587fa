// Sixteen floats of AVX-512 (F, BW, CD, DQ, VL): the primitives that the generic kernels are
// written in. Loads and stores need no alignment; `_n` versions touch the first n lanes only,
// 1 <= n <= 16.
#pragma once

#include <immintrin.h>

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr bool asks_ahead(KernelType) { return true; }  // see gemv-inl.hpp

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float value) { return _mm512_set1_ps(value); }
  static F broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store_n(float* p, F x, int64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // Masked forms with a full mask: those without it start from an undefined vector, which gcc 12
  // warns about. b where either is NaN.
  static F max(F a, F b) { return _mm512_maskz_max_ps(kAll, a, b); }
  static F min(F a, F b) { return _mm512_maskz_min_ps(kAll, a, b); }
  static F absolute(F x) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
  }
  static F negate(F x) { return _mm512_xor_ps(x, set(-0.0f)); }
  static F round(F x) {
    return _mm512_maskz_roundscale_ps(kAll, x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static F scale_by_power_of_two(F x, F n) { return _mm512_maskz_scalef_ps(kAll, x, n); }
  // 0 where x < least, else value.
  static F zero_where_less(F x, F least, F value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), value);
  }
  // a where x < 0, else b.
  static F if_negative(F x, F a, F b) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, zero(), _CMP_LT_OQ), b, a);
  }
  using Lanes = __mmask16;
  static Lanes no_lanes() { return 0; }
  static Lanes nan_lanes(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
  static Lanes either(Lanes a, Lanes b) { return static_cast<Lanes>(a | b); }
  static bool any(Lanes lanes) { return lanes != 0; }

  static float sum(F x) {
    const __m256 s = _mm256_add_ps(half<0>(x), half<1>(x));
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
  }
  static float highest(F x) {
    const __m256 s = _mm256_max_ps(half<0>(x), half<1>(x));
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
  }

  // Values of a weight type at any address, widened exactly.
  template <KernelType kType>
  static F load_as(const std::byte* p) {
    if constexpr (kType == KernelType::f32) return _mm512_loadu_ps(p);
    if constexpr (kType == KernelType::int8) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      return _mm512_maskz_cvtepi32_ps(kAll, _mm512_maskz_cvtepi8_epi32(kAll, bytes));
    }
    return widen16<kType>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  template <KernelType kType>
  static F load_as_n(const std::byte* p, int64_t n) {
    if constexpr (kType == KernelType::f32) return _mm512_maskz_loadu_ps(first(n), p);
    return widen16<kType>(_mm256_maskz_loadu_epi16(first(n), p));
  }
  // Nibble kN of each dword at p, less 8. The table is indexed by the low four bits of a lane.
  template <int kN>
  static F nibble(const std::byte* p) {
    const __m512i dwords = _mm512_maskz_srli_epi32(kAll, _mm512_loadu_si512(p), 4 * kN);
    const F table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_maskz_permutexvar_ps(kAll, dwords, table);
  }
  // Four f16 at p, each for four lanes.
  static F group_scales(const std::byte* p) {
    long long halves;
    __builtin_memcpy(&halves, p, sizeof(halves));
    const __m256i spread = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4,
                                            5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7);
    return _mm512_maskz_cvtph_ps(kAll, _mm256_shuffle_epi8(_mm256_set1_epi64x(halves), spread));
  }
  // Pairs of bf16, the low one of a lane first; n <= 32 of them, the others zero.
  static F load_pairs(const std::byte* p, int64_t n) {
    const __mmask32 some = static_cast<__mmask32>((uint64_t{1} << n) - 1u);
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(some, p));
  }
  static F widen_low(F pairs) {
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, _mm512_castps_si512(pairs), 16));
  }
  static F widen_high(F pairs) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), high));
  }
  // Every second of the floats of a, then b, from the first or from the second on.
  static F evens(F a, F b) {
    const __m512i from =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, from, b);
  }
  static F odds(F a, F b) {
    const __m512i from =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, from, b);
  }
  // Rounds to nearest even; NaN stays NaN.
  static void store_bf16(uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x));
  }
  static void store_bf16_n(uint16_t* p, F x, int64_t n) {
    _mm256_mask_storeu_epi16(p, first(n), narrow(x));
  }

  // rows[i][j] <-> rows[j][i].
  [[gnu::always_inline]] static void transpose(F (&r)[kLanes]) {
    F t[16];
    unroll<8>([&](auto i) __attribute__((always_inline)) {
      t[2 * i] = _mm512_maskz_unpacklo_ps(kAll, r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_maskz_unpackhi_ps(kAll, r[2 * i], r[2 * i + 1]);
    });
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      r[4 * i] = _mm512_maskz_shuffle_ps(kAll, t[4 * i], t[4 * i + 2], 0x44);
      r[4 * i + 1] = _mm512_maskz_shuffle_ps(kAll, t[4 * i], t[4 * i + 2], 0xee);
      r[4 * i + 2] = _mm512_maskz_shuffle_ps(kAll, t[4 * i + 1], t[4 * i + 3], 0x44);
      r[4 * i + 3] = _mm512_maskz_shuffle_ps(kAll, t[4 * i + 1], t[4 * i + 3], 0xee);
    });
    // Now r[4 g + c] holds, in its 128-bit part q, column 4 q + c of rows 4 g .. 4 g + 3.
    unroll<4>([&](auto c) __attribute__((always_inline)) {
      t[c] = _mm512_maskz_shuffle_f32x4(kAll, r[c], r[c + 4], 0x88);
      t[c + 4] = _mm512_maskz_shuffle_f32x4(kAll, r[c], r[c + 4], 0xdd);
      t[c + 8] = _mm512_maskz_shuffle_f32x4(kAll, r[c + 8], r[c + 12], 0x88);
      t[c + 12] = _mm512_maskz_shuffle_f32x4(kAll, r[c + 8], r[c + 12], 0xdd);
    });
    unroll<4>([&](auto c) __attribute__((always_inline)) {
      r[c] = _mm512_maskz_shuffle_f32x4(kAll, t[c], t[c + 8], 0x88);
      r[c + 8] = _mm512_maskz_shuffle_f32x4(kAll, t[c], t[c + 8], 0xdd);
      r[c + 4] = _mm512_maskz_shuffle_f32x4(kAll, t[c + 4], t[c + 12], 0x88);
      r[c + 12] = _mm512_maskz_shuffle_f32x4(kAll, t[c + 4], t[c + 12], 0xdd);
    });
  }

 private:
  static constexpr __mmask16 kAll = 0xffff;
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  template <int kHalf>
  static __m256 half(F x) {
    return _mm512_maskz_extractf32x8_ps(0xff, x, kHalf);
  }
  template <KernelType kType>
  static F widen16(__m256i x) {
    if constexpr (kType == KernelType::f16) return _mm512_maskz_cvtph_ps(kAll, x);
    return _mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, x), 16));
  }
  static __m256i narrow(F x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd =
        _mm512_and_si512(_mm512_maskz_srli_epi32(kAll, bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i chosen =
        _mm512_mask_or_epi32(rounded, nan_lanes(x), bits, _mm512_set1_epi32(0x400000));
    return _mm512_maskz_cvtepi32_epi16(kAll, _mm512_maskz_srli_epi32(kAll, chosen, 16));
  }
};

}  // namespace
}  // namespace pali
