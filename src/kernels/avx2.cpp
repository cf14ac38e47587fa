// The avx2 tier (+ fma, f16c): the generic kernels over eight floats. A 6 x 16 tile of sums takes
// 12 of the 16 registers, two vectors of weights and one broadcast the rest. Integer products need
// one for the product too, so theirs is 4 x 16.
#include "kernels/fill-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_avx2.hpp"

namespace pali {
namespace {

// The integers beside Avx2 (int8-inl.hpp). VPMADDUBSW would take four columns at a time, but
// saturates: 16-bit pairs are exact.
struct Avx2Pairs {
  using V = __m256i;
  static constexpr int64_t kQuad = 2;
  static constexpr int32_t kOffset = 0;

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
};

}  // namespace

void fill_avx2(KernelTable& table) {
  fill<Avx2, 6, 2>(table);
  table.fused_int8 = fused_int8<Avx2, Avx2Pairs, 4, 2>();
}

}  // namespace pali
