// The integers beside Avx512 (int8-inl.hpp): 16-bit pairs, exact on every AVX-512 CPU.
#pragma once

#include "kernels/simd_avx512.hpp"

namespace pali {
namespace {

struct Avx512Pairs {
  using V = __m512i;
  static constexpr int64_t kQuad = 2;
  static constexpr int32_t kOffset = 0;

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

 protected:
  static constexpr __mmask16 kAll = 0xffff;
};

// Packed as bytes, for instructions that multiply four of them at a time.
struct Avx512Bytes : Avx512Pairs {
  static constexpr int64_t kQuad = 4;

  static void store_packed(std::byte* p, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(kAll, x));
  }
};

}  // namespace
}  // namespace pali
