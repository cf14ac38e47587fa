// Products of integers on the avx2 tier. They need a register for the product itself, so their tile
// is 4 x 16.
#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx2.hpp"

namespace pali {

void fill_avx2_int8(KernelTable& table) {
  table.int8.by_int8 = fused_integers<Avx2, Avx2Pairs, KernelType::int8, 4, 2>();
  table.int8.by_int4 = fused_integers<Avx2, Avx2Nibbles, KernelType::int4, 4, 2>();
  table.int8.gemv = gemv_integers<Avx2, Avx2Bytes>();
  table.int16.by_int8 = fused_integers<Avx2, Avx2Words, KernelType::int8, 4, 2>();
  table.int16.by_int4 = fused_integers<Avx2, Avx2Words, KernelType::int4, 4, 2>();
  table.int16.gemv = gemv_integers<Avx2, Avx2Words>();
}

}  // namespace pali
