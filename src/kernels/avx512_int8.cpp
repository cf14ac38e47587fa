// Products of integers on the avx512 tier: 16-bit pairs, exact on every AVX-512 CPU.
#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx512.hpp"

namespace pali {

void fill_avx512_int8(KernelTable& table) {
  table.int8 = integer_kernels<Avx512, Avx512Pairs, Avx512Nibbles, Avx512Bytes, 6, 4>();
  table.int16 = integer_kernels<Avx512, Avx512Words, Avx512Words, Avx512Words, 6, 4>();
}

}  // namespace pali
