// Which backend serves which product where the user leaves it to us. A table to be kept true by
// `pali bench matmul`; nothing here depends on the number of threads. And what is multiplied where
// the user leaves that to us.
#include "kernels/isa.hpp"
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"

namespace pali {

MatmulBackend backend_for(int64_t m, DType weight, ComputeType compute) {
  struct Row {
    DType weight;
    ComputeType compute;
    int64_t from_rows;  // products of at least so many rows
  };
  // oneDNN where it has an instruction that our tiers lack: AMX tiles for bf16. One thread of a
  // Xeon with AMX, q25 of CPU time, GFLOP/s oneDNN 2.6.3 | native (W 5120x2048, M > 200 8192x1664):
  //   M 8: 65 | 54   12: 96 | 61   24: 143 | 75   256: 474 | 96   3364: 504 | 99
  // On a CPU without AMX the two multiply bf16 at the same peak. Up to kGemvRows native reads rows
  // in place at the speed of memory, where oneDNN was seen at a third of it on plain rows (Zen 5).
  // f32 stays native: both run at the same peak (143 | 142 at M 256), and native widens bf16 and
  // f16 on the way.
  constexpr Row kOneDnn[] = {{DType::bf16, ComputeType::bf16, kGemvRows + 1}};
  for (const Row& row : kOneDnn) {
    if (row.weight == weight && row.compute == compute && m >= row.from_rows) {
      return MatmulBackend::onednn;
    }
  }
  return MatmulBackend::native;
}

Bf16Units bf16_units() { return {onednn_has_amx(), cpu_is_intel()}; }

// GFLOP/s, bf16 by oneDNN with AMX | bf16 by AVX512-BF16 | f32. Xeon with AMX (one thread, q25 of
// CPU time, M 256): 474 | 102 | 148. Zen 5 (peaks of two cores): none | 975 | 485.
ComputeType automatic_compute(DType weights, MatmulBackend backend, Isa isa,
                              const Bf16Units& units) {
  if (weights != DType::bf16 || isa < Isa::avx512_bf16) return ComputeType::f32;
  switch (backend) {
    case MatmulBackend::reference:
      return ComputeType::f32;  // computes nothing else
    case MatmulBackend::native:
      return units.intel ? ComputeType::f32 : ComputeType::bf16;
    default:
      return units.amx || !units.intel ? ComputeType::bf16 : ComputeType::f32;
  }
}

}  // namespace pali
