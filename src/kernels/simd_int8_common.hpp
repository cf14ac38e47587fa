// What the integers of the vector tiers share.
#pragma once

#include <immintrin.h>

namespace pali {
namespace {

// A half of a byte of int4 weights.
struct Nibble {
  int byte;
  bool high;
};

// For VPSHUFB: bytes 0 and 1, or 2 and 3, of each dword as words.
template <int kPair>
__m128i pair_as_words() {
  constexpr char kNone = static_cast<char>(0x80), kA = 2 * kPair, kB = kA + 1;
  return _mm_setr_epi8(kA, kNone, kB, kNone, kA + 4, kNone, kB + 4, kNone, kA + 8, kNone, kB + 8,
                       kNone, kA + 12, kNone, kB + 12, kNone);
}

}  // namespace
}  // namespace pali
