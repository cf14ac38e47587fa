// The avx512_vnni tier: products of bytes four columns at a time (VPDPBUSD), and of 16-bit integers
// two at a time (VPDPWSSD), added to their sums at once. Its float kernels are avx512's.
#include <immintrin.h>

#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx512.hpp"

namespace pali {
namespace {

struct Avx512Quads : Avx512Bytes {
  static constexpr int32_t kOffset = 128;

  static V dot(V sums, V x, V w) { return _mm512_dpbusd_epi32(sums, w, x); }
  static V load_weights(const std::byte* p, int64_t n) {
    const __mmask64 some = n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1u;
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, p),
                            _mm512_set1_epi8(static_cast<char>(0x80)));
  }

  using Weights = V;
  static V weights(const std::byte* p) { return load_weights(p, kBytes); }
  static V dot_nibbles(V start, const Nibbles& n, const std::byte* x) {
    return dot(dot(start, load(x), n.low), load(x + kBytes), n.high);
  }
};

struct Avx512QuickWords : Avx512Words {
  static V dot(V sums, V x, V w) { return _mm512_dpwssd_epi32(sums, x, w); }
  static V dot_nibbles(V sums, const Nibbles& n, const std::byte* x) {
    for (int c = 0; c < 4; ++c) sums = dot(sums, n.words[c], load(x + c * 64));
    return sums;
  }
};

}  // namespace

void fill_avx512_vnni(KernelTable& table) {
  table.int8 = integer_kernels<Avx512, Avx512Quads, Avx512Quads, Avx512Quads, 6, 4>();
  table.int16 =
      integer_kernels<Avx512, Avx512QuickWords, Avx512QuickWords, Avx512QuickWords, 6, 4>();
}

}  // namespace pali
