// The avx2 tier (+ fma, f16c): the generic kernels over eight floats. A 6 x 16 tile of sums takes
// 12 of the 16 registers, two vectors of weights and one broadcast the rest. Integer products need
// one for the product too, so theirs is 4 x 16.
#include "kernels/fill-inl.hpp"
#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_avx2.hpp"
#include "kernels/simd_int8_avx2.hpp"

namespace pali {

void fill_avx2(KernelTable& table) {
  fill<Avx2, 6, 2>(table);
  table.int8.by_int8 = fused_integers<Avx2, Avx2Pairs, KernelType::int8, 4, 2>();
  table.int8.by_int4 = fused_integers<Avx2, Avx2Nibbles, KernelType::int4, 4, 2>();
  table.int8.gemv = gemv_integers<Avx2, Avx2Bytes>();
  table.int16.by_int8 = fused_integers<Avx2, Avx2Words, KernelType::int8, 4, 2>();
  table.int16.by_int4 = fused_integers<Avx2, Avx2Words, KernelType::int4, 4, 2>();
  table.int16.gemv = gemv_integers<Avx2, Avx2Words>();
}

}  // namespace pali
