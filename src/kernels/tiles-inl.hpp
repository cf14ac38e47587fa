// Tile registers, and bf16 operands for them. Included once by each source of the amx tier.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pali {
namespace {

using F = __m512;
constexpr int64_t kTile = 1024;  // bytes: 16 rows of 64

struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Eight tiles of 16 rows of 64 bytes.
constexpr TileConfig whole_tiles() {
  return {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
}

// The intrinsics that load tiles do not tell the compiler that they read memory.
[[gnu::always_inline]] inline void stores_before_tiles() { __asm__ volatile("" ::: "memory"); }

inline __m512i as_integers(__m512bh x) {
  __m512i bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline __mmask16 first16(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << (n > 0 ? n : 0)) - 1u);
}
inline __mmask32 first32(int64_t n) { return n >= 32 ? ~__mmask32{0} : (__mmask32{1} << n) - 1u; }

// `low`, then `high`, rounded to bf16.
[[gnu::always_inline]] inline __m512i narrow(F low, F high) {
  return as_integers(_mm512_maskz_cvtne2ps_pbh(~__mmask32{0}, high, low));
}

}  // namespace
}  // namespace pali
