// The avx2 tier (+ fma, f16c): the generic kernels over eight floats. A 6 x 16 tile of sums takes
// 12 of the 16 registers, two vectors of weights and one broadcast the rest.
#include "kernels/fill-inl.hpp"
#include "kernels/simd_avx2.hpp"

namespace pali {

void fill_avx2(KernelTable& table) { fill<Avx2, 6, 2>(table); }

}  // namespace pali
