// Products of integers on the avx512 tier: 16-bit pairs, exact on every AVX-512 CPU.
#include "kernels/gemv_int8-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx512.hpp"

namespace pali {

void fill_avx512_int8(KernelTable& table) {
  table.int8.by_int8 = fused_integers<Avx512, Avx512Pairs, KernelType::int8, 6, 4>();
  table.int8.by_int4 = fused_integers<Avx512, Avx512Nibbles, KernelType::int4, 6, 4>();
  table.int8.gemv = gemv_integers<Avx512, Avx512Bytes>();
  table.int16.by_int8 = fused_integers<Avx512, Avx512Words, KernelType::int8, 6, 4>();
  table.int16.by_int4 = fused_integers<Avx512, Avx512Words, KernelType::int4, 6, 4>();
  table.int16.gemv = gemv_integers<Avx512, Avx512Words>();
}

}  // namespace pali
