// The avx512 tier (f, bw, cd, dq, vl): the generic kernels over sixteen floats. A 6 x 64 tile of
// sums takes 24 of the 32 registers and loads 10 times for 24 products; 12 x 32 loads 14 times and
// was measured 2 to 6 points of the peak slower.
#include "kernels/fill-inl.hpp"
#include "kernels/simd_avx512.hpp"

namespace pali {

void fill_avx512(KernelTable& table) { fill<Avx512, 6, 4>(table); }

}  // namespace pali
