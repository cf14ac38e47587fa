// The integers beside Avx512 (int8-inl.hpp, gemv_int8-inl.hpp): 16-bit pairs, exact on every
// AVX-512 CPU.
#pragma once

#include "kernels/simd_avx512.hpp"
#include "kernels/simd_int8_common.hpp"

namespace pali {
namespace {

struct Avx512Pairs {
  using V = __m512i;
  static constexpr int64_t kQuad = 2;
  static constexpr int32_t kOffset = 0;
  static constexpr int32_t kMost = 127;

  static V zero() { return _mm512_setzero_si512(); }
  static V load(const std::byte* p) { return _mm512_loadu_si512(p); }
  static V broadcast(const std::byte* p) {
    int dword;
    __builtin_memcpy(&dword, p, sizeof(dword));
    return _mm512_set1_epi32(dword);
  }
  static V add(V a, V b) { return _mm512_add_epi32(a, b); }
  static V dot(V sums, V x, V w) { return add(sums, _mm512_madd_epi16(x, w)); }
  static __m512 to_float(V x) { return _mm512_maskz_cvtepi32_ps(kAll, x); }
  static __m512 as_floats(V x) { return _mm512_castsi512_ps(x); }
  static V round(__m512 x) { return _mm512_maskz_cvtps_epi32(kAll, x); }
  static V magnitude(__m512 x) {
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
  }
  static V max(V a, V b) { return _mm512_maskz_max_epi32(kAll, a, b); }
  static int32_t highest(V x) {
    int32_t lanes[16], most;
    _mm512_storeu_si512(lanes, x);
    most = lanes[0];
    for (int i = 1; i < 16; ++i) most = lanes[i] > most ? lanes[i] : most;
    return most;
  }
  static int32_t sum(V x) {
    int32_t lanes[16], total = 0;
    _mm512_storeu_si512(lanes, x);
    for (const int32_t lane : lanes) total += lane;
    return total;
  }
  static void store_packed(std::byte* p, V x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(kAll, x));
  }
  static V load_weights(const std::byte* p, int64_t n) {
    const __mmask32 some = static_cast<__mmask32>((uint64_t{1} << n) - 1u);
    return _mm512_maskz_cvtepi8_epi16(~__mmask32{0}, _mm256_maskz_loadu_epi8(some, p));
  }

  // The dword at p, zeros behind it.
  static V first_lane(const std::byte* p) {
    int dword;
    __builtin_memcpy(&dword, p, sizeof(dword));
    return _mm512_zextsi128_si512(_mm_cvtsi32_si128(dword));
  }
  // The sums of a, of b, of c, of d: turned within quarters, which are added then.
  static __m128i four_sums(V a, V b, V c, V d) {
    const V ab = add(low_dwords(a, b), high_dwords(a, b));
    const V cd = add(low_dwords(c, d), high_dwords(c, d));
    const V all = add(low_qwords(ab, cd), high_qwords(ab, cd));
    const __m256i half = _mm256_add_epi32(_mm512_maskz_extracti64x4_epi64(0xf, all, 0),
                                          _mm512_maskz_extracti64x4_epi64(0xf, all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  }
  // The low or the high nibbles of bytes.
  template <bool kHigh>
  static V nibbles_of(__m512 x) {
    const V bytes = _mm512_castps_si512(x);
    return _mm512_and_si512(kHigh ? _mm512_srli_epi16(bytes, 4) : bytes, _mm512_set1_epi8(15));
  }
  static V negate(V x) { return _mm512_sub_epi32(zero(), x); }
  static void store(std::byte* p, V x) { _mm512_storeu_si512(p, x); }

 protected:
  static constexpr __mmask16 kAll = 0xffff;

 private:
  static V low_dwords(V a, V b) { return _mm512_maskz_unpacklo_epi32(kAll, a, b); }
  static V high_dwords(V a, V b) { return _mm512_maskz_unpackhi_epi32(kAll, a, b); }
  static V low_qwords(V a, V b) { return _mm512_maskz_unpacklo_epi64(0xff, a, b); }
  static V high_qwords(V a, V b) { return _mm512_maskz_unpackhi_epi64(0xff, a, b); }
};

// x in int16: see Avx2Words.
struct Avx512Words : Avx512Pairs {
  static constexpr int32_t kMost = 32767;
  static constexpr int64_t kBytes = 32;

  using Weights = V;
  static V weights(const std::byte* p) {
    return _mm512_maskz_cvtepi8_epi16(~__mmask32{0},
                                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static constexpr int64_t kUnit = 64;
  static constexpr bool kSignedNibbles = true;
  struct Nibbles {
    V words[4];
  };
  static constexpr Nibble nibble_at(int e) { return {e % 32 * 2 + e / 64, e / 32 % 2 == 1}; }
  static Nibbles nibbles(const std::byte* p) {
    const V w = _mm512_xor_si512(load(p), _mm512_set1_epi8(static_cast<char>(0x88)));
    return {{_mm512_srai_epi16(_mm512_slli_epi16(w, 12), 12),
             _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 12),
             _mm512_srai_epi16(_mm512_slli_epi16(w, 4), 12), _mm512_srai_epi16(w, 12)}};
  }
  static V dot_nibbles(V, const Nibbles& n, const std::byte* x) {
    const auto products = [&](int c) __attribute__((always_inline)) {
      return _mm512_madd_epi16(n.words[c], load(x + c * 64));
    };
    return add(add(products(0), products(1)), add(products(2), products(3)));
  }
  static __m512 nibble_scales(const std::byte* p) { return Avx512::group_scales(p); }
  template <int kPart>
  static V columns(__m512 x) {
    return _mm512_shuffle_epi8(nibbles_of<kPart / 2 == 1>(x),
                               _mm512_maskz_broadcast_i32x4(kAll, pair_as_words<kPart % 2>()));
  }
};

// Packed as bytes, for instructions that multiply four of them at a time, and for few rows, where
// VPMADDUBSW is exact: one side is a magnitude, up to 2 * 128 * 127, or a nibble.
struct Avx512Bytes : Avx512Pairs {
  static constexpr int64_t kQuad = 4;
  static constexpr int64_t kBytes = 64;

  static void store_packed(std::byte* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(kAll, x));
  }

  struct Weights {
    V magnitudes;
    __mmask64 negative;
  };
  static Weights weights(const std::byte* p) {
    const V w = load(p);
    return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)};
  }
  static V dot(V sums, V x, const Weights& w) {
    const V turned = _mm512_mask_sub_epi8(x, w.negative, zero(), x);
    return add(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(w.magnitudes, turned), ones()));
  }
  // Half a group of x meets 4 groups of int4 weights, whose sums come out in four lanes each.
  static constexpr int64_t kUnit = 64;
  static constexpr bool kSignedNibbles = false;
  static constexpr Nibble nibble_at(int e) { return {e % 64, e >= 64}; }
  struct Nibbles {
    V low, high;
  };
  static Nibbles nibbles(const std::byte* p) {
    const V w = load(p), mask = _mm512_set1_epi8(15);
    return {_mm512_and_si512(w, mask), _mm512_and_si512(_mm512_srli_epi16(w, 4), mask)};
  }
  static V dot_nibbles(V start, const Nibbles& n, const std::byte* x) {
    const V pairs = _mm512_add_epi16(_mm512_maddubs_epi16(n.low, load(x)),
                                     _mm512_maddubs_epi16(n.high, load(x + kBytes)));
    return add(start, _mm512_madd_epi16(pairs, ones()));
  }
  static __m512 nibble_scales(const std::byte* p) { return Avx512::group_scales(p); }
  template <int kPart>
  static V columns(__m512 x) {
    return nibbles_of<kPart == 1>(x);
  }

 protected:
  static V ones() { return _mm512_set1_epi16(1); }
};

// Of int4 weights beside many rows: sums are pairs of 16 bits.
struct Avx512Nibbles : Avx512Bytes {
  static V dot(V sums, V x, V w) { return _mm512_add_epi16(sums, _mm512_maddubs_epi16(w, x)); }
  static V negate(V sums) { return _mm512_sub_epi16(zero(), sums); }
  static __m512 to_float(V sums) {
    return _mm512_maskz_cvtepi32_ps(kAll, _mm512_madd_epi16(sums, ones()));
  }
};

}  // namespace
}  // namespace pali
