// Pairs of bf16 in the registers of the avx512_bf16 tier, beside Avx512.
#pragma once

#include "kernels/simd_avx512.hpp"

namespace pali {
namespace {

constexpr __mmask32 kAll32 = 0xffffffff;

__mmask32 first32(int64_t n) { return n >= 32 ? kAll32 : static_cast<__mmask32>((1u << n) - 1u); }

__m512i as_integers(__m512bh x) {
  __m512i bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}

__m512bh as_bf16(__m512i bits) {
  __m512bh x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

// Up to 32 neighbours along K as bf16; those from n on are zero. 1 <= n <= 32.
template <KernelType kType>
[[gnu::always_inline]] inline __m512i load_bf16(const std::byte* p, int64_t n) {
  if constexpr (kType == KernelType::bf16) {
    return _mm512_maskz_loadu_epi16(first32(n), p);
  } else {
    const __m512 low = Avx512::load_as_n<kType>(p, smaller(n, 16));
    const __m512 high =
        n > 16 ? Avx512::load_as_n<kType>(p + 16 * bytes_of(kType), n - 16) : Avx512::zero();
    return as_integers(_mm512_maskz_cvtne2ps_pbh(kAll32, high, low));
  }
}

}  // namespace
}  // namespace pali
