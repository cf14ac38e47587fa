// The avx_vnni tier: VPDPBUSD and VPDPWSSD over eight dwords, on CPUs of 256-bit vectors that have
// them. Its float kernels are avx2's. A product adds to its sum at once, so a 6 x 16 tile fits the
// registers.
#include <immintrin.h>

#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx2.hpp"

namespace pali {
namespace {

struct AvxVnniQuads : Avx2Bytes {
  static constexpr int32_t kOffset = 128;

  static V dot(V sums, V x, V w) { return _mm256_dpbusd_avx_epi32(sums, w, x); }
  static V load_weights(const std::byte* p, int64_t n) {
    alignas(32) std::byte copy[32] = {};
    if (n < 32) {
      for (int64_t i = 0; i < n; ++i) copy[i] = p[i];
      p = copy;
    }
    return _mm256_xor_si256(load(p), _mm256_set1_epi8(static_cast<char>(0x80)));
  }

  using Weights = V;
  static V weights(const std::byte* p) { return load_weights(p, kBytes); }
  static V first_lane(const std::byte* p) {
    int dword;
    __builtin_memcpy(&dword, p, sizeof(dword));
    return _mm256_zextsi128_si256(_mm_cvtsi32_si128(dword));
  }

  // A quarter of a group of x meets 2 groups of int4 weights, whose sums come out in four lanes
  // each.
  static constexpr int64_t kUnit = 32;
  static constexpr Nibble nibble_at(int e) { return {e % 32, e >= 32}; }
  struct Nibbles {
    V low, high;
  };
  static Nibbles nibbles(const std::byte* p) {
    const V w = load(p), mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(w, mask), _mm256_and_si256(_mm256_srli_epi16(w, 4), mask)};
  }
  static V dot_nibbles(V start, const Nibbles& n, const std::byte* x) {
    return dot(dot(start, load(x), n.low), load(x + kBytes), n.high);
  }
  static __m256 nibble_scales(const std::byte* p) { return Avx2::group_scales(p); }
};

struct AvxVnniWords : Avx2Words {
  static V dot(V sums, V x, V w) { return _mm256_dpwssd_avx_epi32(sums, x, w); }
  static V dot_nibbles(V sums, const Nibbles& n, const std::byte* x) {
    for (int c = 0; c < 4; ++c) sums = dot(sums, n.words[c], load(x + c * 32));
    return sums;
  }
};

}  // namespace

void fill_avx_vnni(KernelTable& table) {
  table.int8 = integer_kernels<Avx2, AvxVnniQuads, AvxVnniQuads, AvxVnniQuads, 6, 2>();
  table.int16 = integer_kernels<Avx2, AvxVnniWords, AvxVnniWords, AvxVnniWords, 6, 2>();
}

}  // namespace pali
