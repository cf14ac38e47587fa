// The avx512 tier (f, bw, cd, dq, vl): the generic kernels over sixteen floats. A 12 x 32 tile of
// sums takes 24 of the 32 registers.
#include "kernels/fill-inl.hpp"
#include "kernels/simd_avx512.hpp"

namespace pali {

void fill_avx512(KernelTable& table) { fill<Avx512, 12, 2>(table); }

}  // namespace pali
