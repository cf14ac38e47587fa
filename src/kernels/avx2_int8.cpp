// Products of integers on the avx2 tier. They need a register for the product itself, so their tile
// is 4 x 16.
#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx2.hpp"

namespace pali {

void fill_avx2_int8(KernelTable& table) {
  table.int8 = integer_kernels<Avx2, Avx2Pairs, Avx2Nibbles, Avx2Bytes, 4, 2>();
  table.int16 = integer_kernels<Avx2, Avx2Words, Avx2Words, Avx2Words, 4, 2>();
}

}  // namespace pali
