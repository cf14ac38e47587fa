// The integers beside Avx2 (int8-inl.hpp, gemv_int8-inl.hpp).
#pragma once

#include "kernels/simd_avx2.hpp"
#include "kernels/simd_int8_common.hpp"

namespace pali {
namespace {

// VPMADDUBSW would take four columns at a time, but saturates: 16-bit pairs are exact.
struct Avx2Pairs {
  using V = __m256i;
  static constexpr int64_t kQuad = 2;
  static constexpr int32_t kOffset = 0;
  static constexpr int32_t kMost = 127;

  static V zero() { return _mm256_setzero_si256(); }
  static V load(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static V broadcast(const std::byte* p) {
    int dword;
    __builtin_memcpy(&dword, p, sizeof(dword));
    return _mm256_set1_epi32(dword);
  }
  static V add(V a, V b) { return _mm256_add_epi32(a, b); }
  static V dot(V sums, V x, V w) { return add(sums, _mm256_madd_epi16(x, w)); }
  static __m256 to_float(V x) { return _mm256_cvtepi32_ps(x); }
  static __m256 as_floats(V x) { return _mm256_castsi256_ps(x); }
  static V round(__m256 x) { return _mm256_cvtps_epi32(x); }
  static V magnitude(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
  }
  static V max(V a, V b) { return _mm256_max_epi32(a, b); }
  static int32_t highest(V x) {
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x);
    int32_t most = lanes[0];
    for (const int32_t lane : lanes) most = lane > most ? lane : most;
    return most;
  }
  static int32_t sum(V x) {
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x);
    int32_t total = 0;
    for (const int32_t lane : lanes) total += lane;
    return total;
  }
  static void store_packed(std::byte* p, V x) {
    const __m128i pairs =
        _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pairs);
  }
  static V load_weights(const std::byte* p, int64_t n) {
    alignas(16) std::byte copy[16] = {};
    if (n < 16) {
      for (int64_t i = 0; i < n; ++i) copy[i] = p[i];
      p = copy;
    }
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  static V first_lane(const std::byte*) { return zero(); }  // no offset
  // The sums of a, of b, of c, of d. (VPHADDD takes two cycles.)
  static __m128i four_sums(V a, V b, V c, V d) {
    const V ab = add(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const V cd = add(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    const V all = add(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  }
  // The low or the high nibbles of bytes.
  template <bool kHigh>
  static V nibbles_of(__m256 x) {
    const V bytes = _mm256_castps_si256(x);
    return _mm256_and_si256(kHigh ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
  }
  static V negate(V x) { return _mm256_sub_epi32(zero(), x); }
  static void store(std::byte* p, V x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
};

// x in int16: as fast as int8 where both are multiplied in pairs.
struct Avx2Words : Avx2Pairs {
  static constexpr int32_t kMost = 32767;
  static constexpr int64_t kBytes = 16;

  using Weights = V;
  static V weights(const std::byte* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  // Two groups of int4 weights; nibble c of each word is a vector of 16-bit integers, less 8 once
  // its high bit is turned over. Sums come out in four lanes each.
  static constexpr int64_t kUnit = 32;
  static constexpr bool kSignedNibbles = true;
  struct Nibbles {
    V words[4];
  };
  static constexpr Nibble nibble_at(int e) { return {e % 16 * 2 + e / 32, e / 16 % 2 == 1}; }
  static Nibbles nibbles(const std::byte* p) {
    const V w = _mm256_xor_si256(load(p), _mm256_set1_epi8(static_cast<char>(0x88)));
    return {{_mm256_srai_epi16(_mm256_slli_epi16(w, 12), 12),
             _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 12),
             _mm256_srai_epi16(_mm256_slli_epi16(w, 4), 12), _mm256_srai_epi16(w, 12)}};
  }
  static V dot_nibbles(V, const Nibbles& n, const std::byte* x) {
    const auto products = [&](int c) __attribute__((always_inline)) {
      return _mm256_madd_epi16(n.words[c], load(x + c * 32));
    };
    return add(add(products(0), products(1)), add(products(2), products(3)));
  }
  static __m256 nibble_scales(const std::byte* p) { return Avx2::group_scales(p); }
  template <int kPart>
  static V columns(__m256 x) {
    return _mm256_shuffle_epi8(nibbles_of<kPart / 2 == 1>(x),
                               _mm256_broadcastsi128_si256(pair_as_words<kPart % 2>()));
  }
};

// Packed as bytes, for few rows: VPMADDUBSW is exact where one side is a magnitude, up to 2 * 128 *
// 127, or a nibble.
struct Avx2Bytes : Avx2Pairs {
  static constexpr int64_t kQuad = 4;
  static constexpr int64_t kBytes = 32;

  static void store_packed(std::byte* p, V x) {
    const __m128i pairs =
        _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(pairs, pairs));
  }

  struct Weights {
    V magnitudes, signs;
  };
  static Weights weights(const std::byte* p) {
    const V w = load(p);
    return {_mm256_abs_epi8(w), w};
  }
  static V dot(V sums, V x, const Weights& w) {
    const V pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x, w.signs));
    return add(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // A group of x meets 8 groups of int4 weights, whose sums come out one to a lane: 0, 2, 4, 6,
  // 1, 3, 5, 7.
  static constexpr int64_t kUnit = 128;
  static constexpr bool kSignedNibbles = false;
  static constexpr Nibble nibble_at(int e) { return {e / 64 * 32 + e % 32, e / 32 % 2 == 1}; }
  struct Nibbles {
    V low[4], high[4];
  };
  static Nibbles nibbles(const std::byte* p) {
    Nibbles n;
    unroll<4>([&](auto v) __attribute__((always_inline)) {
      const V w = load(p + v * kBytes);
      n.low[v] = _mm256_and_si256(w, _mm256_set1_epi8(15));
      n.high[v] = _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15));
    });
    return n;
  }
  // A group's sixteen pairs of products, of up to 2 * 15 * 127, are added up to two of 16 bits.
  static V dot_nibbles(V start, const Nibbles& n, const std::byte* x) {
    const auto pairs = [&](auto v) __attribute__((always_inline)) {
      return _mm256_add_epi16(_mm256_maddubs_epi16(n.low[v], load(x + 2 * v * kBytes)),
                              _mm256_maddubs_epi16(n.high[v], load(x + (2 * v + 1) * kBytes)));
    };
    const V a = pairs(Index<0>{}), b = pairs(Index<1>{});
    const V ab = _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const V c = pairs(Index<2>{}), d = pairs(Index<3>{});
    const V cd = _mm256_add_epi16(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    const V all = _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    return add(start, _mm256_madd_epi16(all, _mm256_set1_epi16(1)));
  }
  static __m256 nibble_scales(const std::byte* p) {
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm256_cvtph_ps(
        _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), order));
  }
  template <int kPart>
  static V columns(__m256 x) {
    return nibbles_of<kPart == 1>(x);
  }
};

// Of int4 weights beside many rows: sums are pairs of 16 bits.
struct Avx2Nibbles : Avx2Bytes {
  static V dot(V sums, V x, V w) { return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x)); }
  static V negate(V sums) { return _mm256_sub_epi16(zero(), sums); }
  static __m256 to_float(V sums) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace pali
